# SPDX-License-Identifier: Apache-2.0
"""What a score has to beat: guessing among the possible answers, and always giving the commonest one."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from omni_grpo.evaluation.records import Prediction
from omni_rewards import PROBLEM_TYPES, AnswerReward

_MAX_OPTIONS = 8  # all sets of so many options are scored one by one


def chance_level(
    rows: Sequence[Prediction], kind_of: Callable[[Prediction], str], answers: AnswerReward
) -> float | None:
    """
    Mean score of guessing: a random option, a random set of options, yes or no, a random label.

    The labels are those of the problem type's set, else the row's options, else the gold answers of the row's kind.
    Rows of open types count for nothing; `None` if there are no others.

    Args:
        rows (sequence of `Mapping`): Prediction rows.
        kind_of (`Callable`): A row's kind.
        answers ([`~omni_rewards.AnswerReward`]): Scores the guesses.
    """
    levels = [level for level in chance_levels(rows, kind_of, answers) if level is not None]
    return float(np.mean(levels)) if levels else None


def chance_levels(
    rows: Sequence[Prediction], kind_of: Callable[[Prediction], str], answers: AnswerReward
) -> list[float | None]:
    """What guessing earns on each row, see [`chance_level`]; `None` for rows of open types."""
    kinds: dict[str, set[str]] = {}
    for row in rows:
        kinds.setdefault(kind_of(row), set()).add(row["solution"])
    return [
        _chance(row, len(kinds[kind_of(row)]), answers) if PROBLEM_TYPES[row["problem_type"]].is_closed else None
        for row in rows
    ]


def _chance(row: Prediction, num_gold: int, answers: AnswerReward) -> float:
    kind, options = PROBLEM_TYPES[row["problem_type"]], tuple(row["options"] or ())
    if kind.reads == "options" and len(options) <= _MAX_OPTIONS:
        return _mean_over_sets(row["solution"], row["problem_type"], options, answers.chance_corrected)
    return 1 / (len(kind.labels) or len(options) or num_gold)


@lru_cache(maxsize=4096)
def _mean_over_sets(solution: str, problem_type: str, options: tuple[str, ...], chance_corrected: bool) -> float:
    """Mean score of all non-empty sets of options."""
    answers = AnswerReward(chance_corrected=chance_corrected)
    letters = "ABCDEFGH"[: len(options)]
    sets = [s for size in range(1, len(letters) + 1) for s in itertools.combinations(letters, size)]
    return float(np.mean([answers.read(",".join(s), solution, problem_type, options).score for s in sets]))


def majority_score(
    rows: Sequence[Prediction], kind_of: Callable[[Prediction], str], answers: AnswerReward
) -> float | None:
    """
    Mean score of always giving the commonest gold answer of the row's kind and type, of several the first by alphabet.

    Rows of open types count for nothing; `None` if there are no others. The commonest answer is taken from the rows
    themselves, so this is an upper bound for a model that knows nothing but how answers are distributed.
    """
    kinds: dict[tuple[str, str], list[Prediction]] = {}
    for row in rows:
        if PROBLEM_TYPES[row["problem_type"]].is_closed:
            kinds.setdefault((kind_of(row), row["problem_type"]), []).append(row)
    scores: list[float] = []
    for (_, problem_type), members in kinds.items():
        counts = Counter(row["solution"] for row in members)
        commonest = min(counts, key=lambda answer: (-counts[answer], answer))
        for row in members:
            scores.append(answers.read(commonest, row["solution"], problem_type, row["options"]).score)
    return float(np.mean(scores)) if scores else None
