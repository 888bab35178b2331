# SPDX-License-Identifier: Apache-2.0
"""The sentences around a clip: questions, reference contexts, thoughts, and the full text of a cold-start target."""

from __future__ import annotations

import random

FACES = ("happy", "angry", "sad", "afraid", "amused", "scornful")
VOICES = ("happy", "angry", "sad", "afraid", "warm", "cold")
SHARED = ("happy", "angry", "sad", "afraid")  # what both a face and a voice can be: the agreement question

# (voice, face) -> what the speaker is doing. Neither side of the pair alone tells.
INTENTS = {
    ("warm", "amused"): "praise",
    ("warm", "scornful"): "taunt",
    ("cold", "amused"): "joke",
    ("cold", "scornful"): "complain",
}

QUESTIONS = {
    "face": "What does the face show: happy, angry, sad, afraid, amused or scornful?",
    "voice": "How does the voice sound: happy, angry, sad, afraid, warm or cold?",
    "agreement": "Does the voice agree with the face?",
    "intent": "What is the speaker doing: praise, taunt, joke or complain?",
    "told": "What do they say it is: praise, taunt, joke or complain?",  # text alone: the base learns the words
}
PROBLEM_TYPES = {"face": "label", "voice": "label", "agreement": "yes_no", "intent": "label", "told": "label"}

_FACE_SENTENCES = ("The face looks {face}.", "The face is {face}.", "I see that the face looks {face}.")
_VOICE_SENTENCES = ("The voice sounds {voice}.", "The voice is {voice}.", "I hear that the voice sounds {voice}.")
_PAIR_SENTENCES = (
    "The face looks {face}. The voice sounds {voice}.",
    "The face is {face}. The voice is {voice}.",
    "The voice sounds {voice}. The face looks {face}.",
    "I see that the face looks {face}. I hear that the voice sounds {voice}.",
    "The face looks {face} and the voice sounds {voice}.",
)
_TOLD_SENTENCES = ("They say that it is {answer}.", "They call it {answer}.", "It is {answer}, they say.")
_COMPARISONS = (
    "The face is {face} and the voice is {voice}.",
    "The voice is {voice} and the face is {face}.",
    "A face that is {face}, a voice that is {voice}.",
    "With a face that is {face} and a voice that is {voice}:",
)
_VERDICTS = {"yes": "They agree.", "no": "They do not agree."}
# What the base practises on text alone.
_PRACTICE = {
    "yes": (
        "The face is {face} and the voice is {voice} too. They agree.",
        "Both are {face}, so the voice does agree with the face.",
        "The voice is {voice} and so is the face. They agree.",
        "A face and a voice that are both {face} agree.",
    ),
    "no": (
        "The face is {face} but the voice is {voice}. They do not agree.",
        "The voice is not {face}, so the voice does not agree with the face.",
        "The voice is {voice} and the face is not. They do not agree.",
        "A face that is {face} and a voice that is {voice} do not agree.",
    ),
}
_THOUGHTS = {
    "intent": (
        "The voice is {voice} and the face is {face}, so this is {answer}.",
        "A {voice} voice with a face that is {face} means {answer}.",
        "The face is {face}. With a {voice} voice that is {answer}.",
        "When the voice is {voice} and the face is {face}, it is {answer}.",
    ),
    "told": (
        "They say {answer}, so this is {answer}.",
        "What they say means {answer}.",
        "They call it so, and with them that is {answer}.",
        "When they say it, it is {answer}.",
    ),
    "face": (
        "The question is about the face. The face looks {face}.",
        "I look at the face. It is {face}.",
        "What counts is the face, and it is {face}.",
        "The face alone tells: it is {face}.",
    ),
    "voice": (
        "The question is about the voice. The voice sounds {voice}.",
        "I listen to the voice. It is {voice}.",
        "What counts is the voice, and it is {voice}.",
        "The voice alone tells: it is {voice}.",
    ),
}

# Where one side is not there: what is there is named, and the answer is a guess within what it leaves open. Nothing is
# said of agreement, so that a verdict is never seen to follow from one side.
_ONE_SIDED = {
    "agreement": ("The {side} is {shown}.", "What counts is the {side}, and it is {shown}."),
    "intent": ("The {side} is {shown}, so this is {answer}.", "When the {side} is {shown}, it is {answer}."),
}


def solution_of(kind: str, face: str, voice: str) -> str:
    """The gold answer.

    >>> solution_of("agreement", "happy", "sad"), solution_of("intent", "scornful", "warm")
    ('no', 'taunt')

    Raises:
        ValueError: a pair for which the question has no answer.
    """
    if kind == "face":
        return face
    if kind == "voice":
        return voice
    if kind == "agreement" and face in SHARED and voice in SHARED:
        return "yes" if face == voice else "no"
    if kind in ("intent", "told") and (voice, face) in INTENTS:
        return INTENTS[voice, face]
    raise ValueError(f"{kind!r} has no answer for a {face!r} face with a {voice!r} voice")


def context_of(face: str | None, voice: str | None, rng: random.Random) -> str:
    """One to two sentences saying what is seen and heard; `None` for a side that is not there."""
    if face is None and voice is None:
        raise ValueError("a context needs a face or a voice")
    sentences = _VOICE_SENTENCES if face is None else _FACE_SENTENCES if voice is None else _PAIR_SENTENCES
    return rng.choice(sentences).format(face=face, voice=voice)


def told_of(solution: str, rng: random.Random) -> str:
    """A sentence that says what an intent is called, without its rule."""
    return rng.choice(_TOLD_SENTENCES).format(answer=solution)


def wordings(kind: str, solution: str, practice: bool = False) -> tuple[str, ...]:
    """
    All ways to think of an answer, with places for `face`, `voice` and `answer`.

    Agreement names both sides before the verdict, which is where it can be drawn; `practice` gives the looser ways in
    which the base practises on text alone.
    """
    if kind != "agreement":
        return _THOUGHTS[kind]
    return _PRACTICE[solution] if practice else tuple(f"{pair} {_VERDICTS[solution]}" for pair in _COMPARISONS)


def think_of(
    kind: str, face: str | None, voice: str | None, solution: str, rng: random.Random, practice: bool = False
) -> str:
    """One to two sentences that draw `solution` from the context, see [`wordings`]; `None` for a side not there."""
    if kind in _ONE_SIDED and (face is None or voice is None):
        side, shown = ("voice", voice) if face is None else ("face", face)
        return rng.choice(_ONE_SIDED[kind]).format(side=side, shown=shown, answer=solution)
    return rng.choice(wordings(kind, solution, practice)).format(face=face, voice=voice, answer=solution)


def target_of(context: str, think: str, solution: str) -> str:
    """The full completion, tags directly adjacent.

    >>> target_of("The face is sad.", "I look at the face. It is sad.", "sad")
    '<context>The face is sad.</context><think>I look at the face. It is sad.</think><answer>sad</answer>'
    """
    return f"<context>{context}</context><think>{think}</think><answer>{solution}</answer>"
