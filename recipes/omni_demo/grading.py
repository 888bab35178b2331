# SPDX-License-Identifier: Apache-2.0
"""What the demo's judge knows: the grammar of faces and voices, and the grade of a context or of a reasoning by it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from omni_demo.targets import FACES, INTENTS, QUESTIONS, SHARED, VOICES, solution_of

SIDES = {"face": frozenset(FACES), "voice": frozenset(VOICES)}
TOP = 5
Claims = dict[str, set[str]]  # side to what is said of it; two of one side contradict each other


def claims_of(text: str) -> Claims:
    """
    What a text says of the face and of the voice.

    An expression belongs to the side that follows it at once, else to the last one named before it in its sentence or,
    after "It", in the one before; after "both" it belongs to both. What is denied is not claimed.

    >>> claims_of("A cold voice with a face that is amused means joke.") == {"face": {"amused"}, "voice": {"cold"}}
    True
    >>> claims_of("The voice is sad and so is the face. The face is not happy.") == {"face": {"sad"}, "voice": {"sad"}}
    True
    >>> claims_of("They agree.")
    {}
    """
    claims: Claims = {}
    sides: tuple[str, ...] = ()
    for sentence in re.split(r"[.!?]", text.lower()):
        words = re.findall(r"[a-z]+", sentence)
        sides = sides if words[:1] == ["it"] else ()
        for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False):
            if word in SIDES:
                sides = (word,)
            elif word == "both":
                sides = tuple(SIDES)
            elif before != "not":
                for side in (after,) if after in SIDES else sides:
                    if word in SIDES[side]:
                        claims.setdefault(side, set()).add(word)
        if same := re.search(r"so is the (face|voice)", sentence):
            claims.setdefault(same[1], set()).update(*claims.values())
    return claims


def conclusions_of(kind: str, text: str) -> set[str]:
    """
    Which answers to a question a text states.

    >>> conclusions_of("agreement", "Both are sad. They do not agree."), conclusions_of("intent", "so this is a joke.")
    ({'no'}, {'joke'})
    """
    words = re.findall(r"[a-z]+", text.lower())
    if kind == "agreement":
        pairs = zip(["", *words], words, strict=False)
        return {"no" if before == "not" else "yes" for before, word in pairs if word == "agree"}
    return {word for word in words if word in INTENTS.values()} if kind == "intent" else set()


def is_consistent(kind: str, reasoning: str, answer: str) -> bool:
    """Whether an answer is the one that follows, by the demo's rules, from what a reasoning names and what it states."""
    answer = answer.strip().lower()
    follows = possible_answers(kind, claims_of(reasoning)) == {answer}
    return follows and conclusions_of(kind, reasoning) <= {answer}


def grade_context(reference: str, candidate: str, sides: tuple[str, ...]) -> int:
    """
    How far a context says of `sides` what the reference says, from 0 to 5: 5 for all of it and nothing else, 3 for a
    side on which the right thing stands beside a wrong one, 0 for nothing right; the mean over sides, rounded down. At
    most 3 where something is said of a side that the reference lacks.
    """
    true, said = claims_of(reference), claims_of(candidate)
    grades = [
        0 if not true.get(side, set()) & said.get(side, set()) else TOP if said[side] == true[side] else 3
        for side in sides
        if side in true
    ]
    invented = any(said.get(side) for side in sides if side not in true)
    return min(sum(grades) // len(grades), 3 if invented else TOP) if grades else 0


def grade_reasoning(question: str, context: str, reasoning: str, answer: str) -> int:
    """
    How well a reasoning rests on the context and leads to the answer, from 0 to 5.

    5: it names what the question needs and the context has, and the answer follows by the demo's rules, or is left open
    by a context that lacks a side. 3: the answer follows, evidence that the question needs is not named. 1: the answer
    does not follow from the context, or the reasoning states another. 0: it says other than the context.
    """
    given, used = claims_of(context), claims_of(reasoning)
    if any(said - given.get(side, set()) for side, said in used.items()) or any(len(s) > 1 for s in used.values()):
        return 0
    kind = next((kind for kind, asked in QUESTIONS.items() if asked in question), None)
    needed = {"face": ("face",), "voice": ("voice",)}.get(kind or "", ("face", "voice"))
    answer = answer.strip().lower()
    if kind is None or answer not in possible_answers(kind, given) or conclusions_of(kind, reasoning) - {answer}:
        return 1
    return TOP if all(side in used for side in needed if side in given) and used else 3


def possible_answers(kind: str, claims: Mapping[str, set[str]]) -> set[str]:
    """Every answer that a question can have where this is all that is known of face and voice."""
    faces, voices = (claims.get(side) or known for side, known in SIDES.items())
    pairs = [(face, voice) for face in faces for voice in voices if _has_answer(kind, face, voice)]
    return {solution_of(kind, face, voice) for face, voice in pairs}


def _has_answer(kind: str, face: str, voice: str) -> bool:
    if kind == "agreement":
        return face in SHARED and voice in SHARED
    return kind in SIDES or (voice, face) in INTENTS
