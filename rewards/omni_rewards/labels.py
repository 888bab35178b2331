# SPDX-License-Identifier: Apache-2.0
"""Scores of answers that are one label, or a list of words for emotions."""

from collections.abc import Callable, Mapping, Sequence

from ._options import text_of_option
from ._scored import UNREADABLE, Options, Scored
from ._written import read_labels
from .emotions import emotion_of


def score_label(
    answer: str, solution: str, options: Options, name_of: Callable[[str], str], labels: Sequence[str] = ()
) -> Scored:
    """
    Whether `answer` has the name of the gold label; where the row's options bring letters or numbers, these name them.

    `name_of` says which words are one: `read_label` none but for case and punctuation, `emotion_of` those for one
    emotion. The gold label must be one of `labels`, if there are any; an answer outside of them earns 0.
    """
    gold, found = (name_of(text_of_option(text, options)) for text in (solution, answer))
    if not gold:
        raise ValueError(f"gold answer {solution!r} holds no word")
    if labels and gold not in {name_of(text_of_option(label, options)) for label in labels}:
        raise ValueError(f"gold answer {solution!r} is not one of the labels {', '.join(labels)}")
    return Scored(float(found == gold), found) if found else UNREADABLE


def score_emotions(answer: str, solution: str, options: Options, aliases: Mapping[str, str]) -> Scored:
    """F1 of the two sets of emotions; words for one emotion count once, so that synonyms neither pay nor cost."""
    gold, found = (
        {emotion_of(text_of_option(label, options), aliases) for label in read_labels(text)}
        for text in (solution, answer)
    )
    if not gold:
        raise ValueError(f"gold answer {solution!r} holds no word")
    if not found:
        return UNREADABLE
    return Scored(2 * len(found & gold) / (len(found) + len(gold)), ", ".join(sorted(found)))
