# SPDX-License-Identifier: Apache-2.0
"""Scores of answers that are one label, or a list of words for emotions."""

from collections.abc import Mapping

from ._options import text_of_option
from ._scored import UNREADABLE, Options, Scored
from ._written import read_label, read_labels
from .emotions import EMOTION_LABEL_SETS, emotion_of


def score_label(
    answer: str, solution: str, options: Options = None, aliases: Mapping[str, str] | None = None
) -> Scored:
    """
    Whether `answer` is the gold label, case and surrounding punctuation aside; `aliases` alone joins words.

    Where the row's options bring letters or numbers, these name their labels here and in the other scores.
    """
    gold, found = (read_label(text_of_option(text, options)) for text in (solution, answer))
    if not gold:
        raise ValueError(f"gold answer {solution!r} holds no word")
    if not found:
        return UNREADABLE
    table = aliases or {}
    return Scored(float(table.get(found, found) == table.get(gold, gold)), found)


def score_emotion(
    answer: str,
    solution: str,
    options: Options = None,
    aliases: Mapping[str, str] | None = None,
    label_set: str | None = None,
) -> Scored:
    """
    Whether `answer` is one word for the gold emotion: anger is angry.

    The gold label must be of `label_set`, a key of `EMOTION_LABEL_SETS`, or else of the row's options where it has
    any; an answer outside of them is none of its classes and earns 0.
    """
    gold, found = (emotion_of(text_of_option(text, options), aliases) for text in (solution, answer))
    if not gold:
        raise ValueError(f"gold answer {solution!r} holds no word")
    labels = EMOTION_LABEL_SETS[label_set] if label_set else options or ()
    if labels and gold not in {emotion_of(text_of_option(label, options), aliases) for label in labels}:
        raise ValueError(f"gold answer {solution!r} is not one of the labels {', '.join(labels)}")
    return Scored(float(found == gold), found) if found else UNREADABLE


def score_emotions(
    answer: str, solution: str, options: Options = None, aliases: Mapping[str, str] | None = None
) -> Scored:
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
