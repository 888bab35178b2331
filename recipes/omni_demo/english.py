# SPDX-License-Identifier: Apache-2.0
"""
The sentences around a clip in varied English, for a model that knows the language: thousands of forms of each, all of
which the demo's judge ([`~omni_demo.grading.claims_of`]) reads as they are meant.
"""

from __future__ import annotations

import random
import re

_NEAR = {
    "happy": ("cheerful", "joyful", "glad", "pleased"),
    "angry": ("furious", "cross", "irritated", "mad"),
    "sad": ("gloomy", "downcast", "unhappy", "sorrowful"),
    "afraid": ("frightened", "scared", "fearful", "anxious"),
    "amused": ("entertained", "playful", "tickled", "ready to laugh"),
    "scornful": ("contemptuous", "disdainful", "sneering", "mocking"),
    "warm": ("kind", "friendly", "gentle", "affectionate"),
    "cold": ("distant", "icy", "unfriendly", "hard"),
}
_OPENERS = {
    "face": ("In the picture ", "As far as I can see, ", "At first sight ", "Looking closely, ", "On the screen "),
    "voice": ("On the sound track ", "As far as I can hear, ", "At first hearing ", "Listening closely, ", "Here "),
}
_CLAUSES = {
    "face": (
        "the face {looks} {degree}{shown}",
        "the face of the speaker {looks} {degree}{shown}",
        "the face has a {degree}{shown} look",
        "the face wears a {degree}{shown} expression",
        "there is a {degree}{shown} face",
        "I see a {degree}{shown} face",
        "I see that the face {looks} {degree}{shown}",
        "the look on the face is {degree}{shown}",
    ),
    "voice": (
        "the voice {sounds} {degree}{shown}",
        "the voice of the speaker {sounds} {degree}{shown}",
        "the voice has a {degree}{shown} tone",
        "the voice comes across as {degree}{shown}",
        "there is a {degree}{shown} voice",
        "I hear a {degree}{shown} voice",
        "I hear that the voice {sounds} {degree}{shown}",
        "the tone of the voice is {degree}{shown}",
    ),
}
_LOOKS, _SOUNDS = ("looks", "is", "seems", "appears"), ("sounds", "is", "seems", "appears")
_DEGREES = ("", "", "", "quite ", "rather ", "clearly ", "very ")
_TAILS = ("", "", ", even {near}", ", one could say {near}")
_JOINTS = (" and ", ", and ", ", while ", "; ")
_ABSENT = {
    "face": ("Nobody can be seen.", "There is nothing to see.", "The picture shows nobody."),
    "voice": ("Nothing is said.", "There is nothing to hear.", "It is silent."),
}
_VERDICTS = {
    "yes": ("so they agree", "so the two agree", "so I would say that they agree", "and that means they agree"),
    "no": (
        "so they do not agree",
        "so the two do not agree",
        "so I would say that they do not agree",
        "and that means they do not agree",
    ),
}
_MEANINGS = ("so this is {answer}", "which means {answer}", "and that makes it {answer}", "so it must be {answer}")
_GUESSES = ("so perhaps this is {answer}", "and my guess is {answer}", "which may mean {answer}")
_ATTENTION = {
    "face": ("The question is about the face.", "I have to look at the face.", "What counts here is the face."),
    "voice": ("The question is about the voice.", "I have to listen to the voice.", "What counts here is the voice."),
}
_QUESTIONS = {
    "face": ("How does the face look?", "Describe the face.", "What is the expression on the face?"),
    "voice": ("How does the voice sound?", "Describe the voice.", "What is the tone of the voice?"),
    "describe": ("Describe what you see and hear.", "What is going on in this clip?", "Say what you see and hear."),
}


def question_of(kind: str, rng: random.Random) -> str:
    """One way to ask for a description: of the `face`, of the `voice`, of both (`describe`)."""
    return rng.choice(_QUESTIONS[kind])


def sentence_of(side: str, shown: str, rng: random.Random) -> str:
    """
    One sentence about one side.

    >>> sentence_of("face", "angry", random.Random(1))
    'At first sight there is an angry face.'
    """
    opener = rng.choice((*_OPENERS[side], "", "", ""))
    return _sentence(opener + _clause(side, shown, rng) + rng.choice(_TAILS).format(near=rng.choice(_NEAR[shown])))


def context_of(face: str | None, voice: str | None, rng: random.Random) -> str:
    """One to two sentences saying what is seen and heard; `None` for a side that is not there, which may be said."""
    if face is None and voice is None:
        raise ValueError("a context needs a face or a voice")
    sides = [(side, shown) for side, shown in (("face", face), ("voice", voice)) if shown is not None]
    rng.shuffle(sides)
    if len(sides) == 2 and rng.random() < 0.5:
        first, second = (_clause(side, shown, rng) for side, shown in sides)
        return _sentence(first + rng.choice(_JOINTS) + second)
    sentences = [sentence_of(side, shown, rng) for side, shown in sides]
    if len(sides) == 1 and rng.random() < 0.5:
        sentences.append(rng.choice(_ABSENT["voice" if voice is None else "face"]))
    return " ".join(sentences)


def think_of(kind: str, face: str | None, voice: str | None, solution: str, rng: random.Random) -> str:
    """
    One to two sentences that draw `solution` from the context; `None` for a side that is not there. Where one side of two
    is missing, nothing is said of agreement, so that a verdict is never seen to follow from one side.
    """
    if kind in ("face", "voice"):
        side, shown = (kind, face if kind == "face" else voice)
        return f"{rng.choice(_ATTENTION[side])} {_sentence(_clause(side, shown or '', rng))}"
    sides = [(side, shown) for side, shown in (("face", face), ("voice", voice)) if shown is not None]
    rng.shuffle(sides)
    seen = rng.choice(_JOINTS).join(_clause(side, shown, rng) for side, shown in sides)
    if kind == "agreement" and len(sides) == 1:
        return f"All I can go by is the {sides[0][0]}. {_sentence(seen)}"
    ends = _VERDICTS[solution] if kind == "agreement" else _MEANINGS if len(sides) == 2 else _GUESSES
    return _sentence(f"{seen}, {rng.choice(ends).format(answer=solution)}")


def _clause(side: str, shown: str, rng: random.Random) -> str:
    looks, sounds, degree = rng.choice(_LOOKS), rng.choice(_SOUNDS), rng.choice(_DEGREES)
    return rng.choice(_CLAUSES[side]).format(looks=looks, sounds=sounds, degree=degree, shown=shown)


def _sentence(text: str) -> str:
    text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)
    return f"{text[0].upper()}{text[1:]}."
