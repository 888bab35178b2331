# SPDX-License-Identifier: Apache-2.0
"""What the voices say: small grammars, with whole phrases held out for validation and test.

A held-out phrase is new as a sentence, but each of its words is said in training, so that a model which hears words can
understand it and a model which knows sentences by heart cannot.
"""

from __future__ import annotations

import random
from itertools import product

TONES = ("neutral", "positive", "negative")
GROUPS = ("training", "validation", "test")

_COMERS = ("bus", "train", "boat", "man", "class", "van")
_THINGS = ("book", "box", "cup", "map", "pen", "lamp")
_NOUNS = ("idea", "plan", "speech", "cake", "song", "job", "coat", "team")
_GOOD = ("great", "lovely", "superb", "perfect", "brilliant")
_BAD = ("bad", "poor", "stupid", "dreadful", "terrible")

# Share of the phrases of each tone that only validation, only test hears.
_HELD_OUT = {"validation": 0.12, "test": 0.20}


def grammar(tone: str) -> list[str]:
    """
    All phrases of a tone, in a fixed order.

    >>> grammar("positive")[0]
    'What a great idea.'
    """
    if tone == "neutral":
        coming = product(_COMERS, ("comes", "leaves", "stops", "starts"), ("at nine", "at noon", "at six", "in June"))
        lying = product(_THINGS, ("on", "by"), ("desk", "chair", "shelf", "floor", "bed", "wall"))
        return [f"The {a} {b} {c}." for a, b, c in coming] + [f"The {a} is {b} the {c}." for a, b, c in lying]
    words, verb = {"positive": (_GOOD, "love"), "negative": (_BAD, "hate")}[tone]
    exclaimed = [f"What a {word} {noun}." for word, noun in product(words, _NOUNS)]
    stated = [f"Your {noun} is {word}." for word, noun in product(words, _NOUNS)]
    return exclaimed + stated + [f"I {verb} your {noun}." for noun in _NOUNS]


def words_of(phrase: str) -> set[str]:
    """The words of a phrase, lower case, without the full stop."""
    return set(phrase.lower().rstrip(".").split())


def phrase_groups(tone: str, seed: int) -> dict[str, list[str]]:
    """Phrases of `tone` for each of `GROUPS`; the groups share no phrase, training has every word."""
    phrases = grammar(tone)
    random.Random(f"{seed}/phrases/{tone}").shuffle(phrases)
    groups: dict[str, list[str]] = {}
    for group, share in _HELD_OUT.items():
        count = round(share * len(phrases))
        groups[group], phrases = phrases[:count], phrases[count:]
    groups["training"] = phrases
    known = set().union(*map(words_of, groups["training"]))
    for group in _HELD_OUT:  # grammars are products, so this holds for practically every seed
        for phrase in groups[group]:
            if missing := words_of(phrase) - known:
                raise ValueError(f"seed {seed} leaves {sorted(missing)} of {phrase!r} out of training; take another")
    return groups
