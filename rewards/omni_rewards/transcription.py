# SPDX-License-Identifier: Apache-2.0
"""Scores of transcriptions: word and character error rate, by the script of the text."""

import re
from collections.abc import Hashable, Sequence
from typing import Literal

from ._scored import UNREADABLE, Scored
from ._written import normalize

Unit = Literal["word", "character"]

# Scripts that are written without spaces between words: a character is a word.
UNSPACED = (
    r"\u3005\u3006\u3041-\u30ff\u31f0-\u31ff"  # kana, with their iteration marks
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"  # Han
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Burmese, Khmer
)
_PUNCTUATION = "'\"()\\[\\]{}<>«»„“”‘’‚‹›.,;:!?…·•¿¡。、「」『』《》〈〉【】〔〕~_*`|–—\\-"
_LETTERS = rf"[^\s{UNSPACED}{_PUNCTUATION}]+"
# A word may hold apostrophes and hyphens; a number its points, commas, colons, and a sign where no word is before it.
_SPOKEN = re.compile(
    rf"[{UNSPACED}]|(?:(?<![^\s(\[])-(?=[0-9]))?{_LETTERS}(?:(?:[’'-]|(?<=[0-9])[.,:](?=[0-9])){_LETTERS})*"
)
_WRITTEN = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
_SPACE_BESIDE_UNSPACED = re.compile(rf"(?<=[{UNSPACED}])\s+|\s+(?=[{UNSPACED}])")


def spoken_words(text: str) -> list[str]:
    """
    The words of `text` as they are said: case and punctuation dropped; of Chinese, Japanese or Thai, the characters.

    >>> spoken_words("Don't stop: 3.5 km, 你好。")
    ["don't", 'stop', '3.5', 'km', '你', '好']
    """
    return _SPOKEN.findall(normalize(text).replace("’", "'"))


def written_words(text: str) -> list[str]:
    """
    The words of `text` as they are written, punctuation and all; case and white space aside.

    >>> written_words("EXIT  only! 出口")
    ['exit', 'only!', '出', '口']
    """
    return _WRITTEN.findall(normalize(text))


def characters(words: Sequence[str]) -> str:
    """The characters of `words`, with a space between two words of a script that has spaces."""
    return _SPACE_BESIDE_UNSPACED.sub("", " ".join(words))


def edit_distance(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """
    Fewest insertions, deletions and substitutions that turn one sequence into the other.

    One column of the distance table at a time, its differences held as bits of two integers (Hyyrö 2003).

    >>> edit_distance("kitten", "sitting")
    3
    """
    pattern, text = (first, second) if len(first) <= len(second) else (second, first)
    if not pattern:
        return len(text)
    places: dict[Hashable, int] = {}
    for index, item in enumerate(pattern):
        places[item] = places.get(item, 0) | 1 << index
    every, last = (1 << len(pattern)) - 1, 1 << (len(pattern) - 1)
    rises, falls, distance = every, 0, len(pattern)  # along the column: +1 where `rises`, -1 where `falls`
    places_of = places.get
    for item in text:
        diagonal = places_of(item, 0)
        diagonal = (((diagonal & rises) + rises) ^ rises) | diagonal | falls
        up = falls | (every & ~(diagonal | rises))
        down = diagonal & rises
        if up & last:
            distance += 1
        elif down & last:
            distance -= 1
        up = up << 1 | 1
        rises = (down << 1 | ~(diagonal | up)) & every
        falls = up & diagonal & every
    return distance


def score_transcription(answer: str, solution: str, unit: Unit, is_spoken: bool) -> Scored:
    r"""
    $$R = \max(0, 1 - \text{edits} / \text{gold length})$$, in words or in characters.

    >>> score_transcription("exit here now", "Exit only now", "word", is_spoken=False).score.__round__(3)
    0.667
    """
    split = spoken_words if is_spoken else written_words
    gold: Sequence[str] = split(solution)
    found: Sequence[str] = split(answer)
    if not gold:
        raise ValueError(f"gold answer {solution!r} holds no word")
    if not found:
        return UNREADABLE
    parsed = " ".join(found[:200])
    if unit == "character":
        gold, found = characters(gold), characters(found)
    if len(found) >= 2 * len(gold):  # as many errors as words at least; a very long answer costs nothing
        return Scored(0.0, parsed)
    return Scored(max(0.0, 1 - edit_distance(gold, found) / len(gold)), parsed)
