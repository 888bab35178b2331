# SPDX-License-Identifier: Apache-2.0
"""Scores of free-form answers by the words that they share with the gold answer."""

from collections import Counter
from collections.abc import Hashable, Sequence

from ._scored import UNREADABLE, Scored
from .transcription import spoken_words, written_words


def longest_common_subsequence(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """
    Length of the longest sequence of items that both hold in this order, not necessarily side by side.

    >>> longest_common_subsequence("a man laughs aloud".split(), "the man now laughs".split())
    2
    """
    pattern, text = (first, second) if len(first) <= len(second) else (second, first)
    places: dict[Hashable, int] = {}
    for index, item in enumerate(pattern):
        places[item] = places.get(item, 0) | 1 << index
    every = (1 << len(pattern)) - 1
    row = every  # a zero bit for each step of the length along the pattern (Crochemore et al. 2001)
    places_of = places.get
    for item in text:
        matched = row & places_of(item, 0)
        if matched:
            row = ((row + matched) | (row - matched)) & every
    return len(pattern) - row.bit_count()


def rouge_l(answer: Sequence[str], gold: Sequence[str]) -> float:
    """F1 of the longest common subsequence of two lists of words, in `[0, 1]`."""
    return 2 * longest_common_subsequence(answer, gold) / (len(answer) + len(gold))


def token_f1(answer: Sequence[str], gold: Sequence[str]) -> float:
    """F1 of the words that two lists share, each as often as both hold it, in `[0, 1]`; their order is ignored."""
    return 2 * (Counter(answer) & Counter(gold)).total() / (len(answer) + len(gold))


def score_free_form(answer: str, solution: str) -> Scored:
    """
    Mean of ROUGE-L and token F1 over words, case and punctuation aside; Chinese and Japanese by character.

    Only the gold answer's own words in its own order earn 1. Shared words are not shared meaning (`not happy` against
    `happy` earns 2/3): a judge reads better where there is one.

    >>> score_free_form("She laughs, then cries.", "she laughs then cries").score
    1.0
    """
    gold, found = spoken_words(solution), spoken_words(answer)
    if not gold:  # signs alone, such as "?!"
        gold, found = written_words(solution), written_words(answer)
    if not found:
        return UNREADABLE
    return Scored((rouge_l(found, gold) + token_f1(found, gold)) / 2, " ".join(found[:200]))
