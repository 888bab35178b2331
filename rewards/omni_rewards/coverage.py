# SPDX-License-Identifier: Apache-2.0
"""What of a reference context is named, what is missing, what is invented; seen apart from heard."""

from itertools import pairwise
from typing import NamedTuple

from ._elements import AUDIO, UNMARKED, VISUAL, key_elements, runs


class Coverage(NamedTuple):
    """
    Key elements of one sense, counted.

    Args:
        named (`int`): Of the reference, and written.
        missing (`int`): Of the reference, and not written.
        invented (`int`): Written, and not of the reference.
    """

    named: int
    missing: int
    invented: int


def context_coverage(written: str, reference: str) -> dict[str, Coverage]:
    r"""
    Elements of a reference context that a bare context names, misses and invents; more named, fewer of the rest are
    better.

    Counts from 0 by sense: `"visual"` and `"audio"`, and `"unmarked"` for what is written under neither. A reference
    that marks one sense alone, or none, keeps nothing apart: all that is written counts under its one sense. What an
    element is, how its sense is told, and what counts as invented, `context_reward` says. An empty `written` misses
    everything; the result is empty for a reference that names nothing.

    Args:
        written (`str`): The context, without tags.
        reference (`str`): The reference context, without tags.

    Raises nothing. Takes time linear in the texts.

    Source: ours; the counts under `context_reward`'s formula.

    >>> context_coverage("The face looks happy. A dog barks loudly.", "The face looks happy. The voice sounds angry.")
    {'visual': Coverage(named=1, missing=0, invented=0), 'audio': Coverage(named=0, missing=1, invented=3)}
    """
    gold, found = key_elements(reference), key_elements(written)
    misplaced = _misplaced(written, reference)
    for elements in found.values():
        elements |= {f"{word} {noun}" for word, noun in misplaced if word in elements}
    marked = [sense for sense in (VISUAL, AUDIO) if gold[sense]]
    if len(marked) < 2:  # nothing to keep apart: what is unmarked belongs to the one sense, or all to none
        whole = marked[0] if marked else UNMARKED
        for elements in (gold, found):
            pooled = (UNMARKED,) if marked else (VISUAL, AUDIO)
            elements[whole] = elements[whole].union(*(elements[sense] for sense in pooled))
            elements |= {sense: set[str]() for sense in pooled}
    if not any(gold.values()):
        return {}
    return {
        sense: Coverage(
            len(gold[sense] & found[sense]), len(gold[sense] - found[sense]), len(found[sense] - gold[sense])
        )
        for sense in gold
        if gold[sense] or found[sense]
    }


def _misplaced(written: str, reference: str) -> set[tuple[str, str]]:
    """The "blue coat" of a reference's "red coat" and "blue ball": before one word what the other has before it."""
    before: dict[str, set[str]] = {}
    for run in runs(reference):
        for place, element in enumerate(run):
            before.setdefault(element, set()).update(run[max(0, place - 8) : place])
    qualifying = set[str]().union(*before.values())
    return {
        (word, noun)
        for run in runs(written)
        for word, noun in pairwise(run)
        if word in qualifying and before.get(noun) and word not in before[noun]
    }
