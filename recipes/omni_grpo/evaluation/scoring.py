# SPDX-License-Identifier: Apache-2.0
"""Predictions to figures: scores by group with intervals and what guessing earns; differences of two runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from omni_grpo.data.rows.kinds import kind_of
from omni_grpo.evaluation.baselines import chance_level, majority_score
from omni_grpo.evaluation.metrics import out_of_vocabulary, unweighted_average_recall
from omni_grpo.evaluation.perception import summarise_perception
from omni_grpo.evaluation.protocol import Protocol
from omni_grpo.evaluation.records import Comparison, GroupFigures, Prediction, Summary
from omni_grpo.evaluation.results_table import table
from omni_grpo.evaluation.statistics import accuracy_interval, bootstrap_interval, mcnemar, paired_bootstrap
from omni_rewards import PROBLEM_TYPES, AnswerReward

__all__ = ["compare", "grouped", "groups_of", "members", "summarise", "table"]

_N_RESAMPLES = 2_000


def groups_of(prediction: Prediction, group_by: Sequence[str] = ()) -> list[str]:
    """
    The groups that a prediction is reported in: its kind, or `"key: value"` for each key of `meta` in `group_by`.

    A list in `meta` puts it into the group of each of its values; a value that is missing, into none.

    >>> groups_of({"meta": {"task": "Reasoning", "audio": ["Speech", "Music"]}}, ["task", "audio"])
    ['task: Reasoning', 'audio: Speech', 'audio: Music']
    """
    if not group_by:
        return [kind_of(prediction)]
    names = []
    for key in group_by:
        value = prediction["meta"].get(key)
        values = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
        names += [f"{key}: {v}" for v in values]
    return list(dict.fromkeys(names))


def members(predictions: Sequence[Prediction], group: str, group_by: Sequence[str] = ()) -> list[Prediction]:
    """Predictions of `group`, which is one, several joined by `+`, or `all`; in their order."""
    if group == "all":
        return list(predictions)
    parts = {group, *group.split("+")}
    return [p for p in predictions if not parts.isdisjoint(groups_of(p, group_by))]


def grouped(
    predictions: Sequence[Prediction], protocol: Protocol, combined: Sequence[str] = ()
) -> Iterator[tuple[str, list[Prediction]]]:
    """Each group that is reported, with its predictions: those of the protocol, the combined ones, `all`."""
    group_by, combined = protocol.group_by, (*combined, *protocol.combined)
    names = list(dict.fromkeys(name for p in predictions for name in groups_of(p, group_by)))
    if group_by:  # by key, then alphabetically: the order of the rows says nothing
        names.sort(key=lambda name: (list(group_by).index(name.split(": ", 1)[0]), name))
    names += [name for name in combined if set(name.split("+")) <= set(names)]
    for name in (*names, "all"):
        yield name, members(predictions, name, group_by)


def summarise(
    predictions: Sequence[Prediction], combined: Sequence[str] = (), protocol: Protocol | None = None
) -> Summary:
    """
    Mean score with 95 % interval by group, beside it what guessing and the commonest answer earn; the share of
    well-formed completions; perception.

    Args:
        predictions (sequence of `dict`): From [`~omni_grpo.evaluation.evaluate.predict`].
        combined (sequence of `str`): Further groups, beside those of `protocol`.
        protocol ([`~omni_grpo.evaluation.protocol.Protocol`], *optional*): Groups, metric, how answers are scored.
    """
    protocol = protocol or Protocol()
    groups = {name: _figures(rows, protocol) for name, rows in grouped(predictions, protocol, combined)}
    valid = [float(p["format_ok"]) for p in predictions]
    reasons = [p["answer_reason"] for p in predictions]
    summary: Summary = {
        "n": len(predictions),
        "groups": groups,
        "format_rate": float(np.mean(valid)),
        "format_ci95": accuracy_interval(valid),
        "mean_tokens": float(np.mean([p["num_tokens"] for p in predictions])),
        "answers": {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)},
        "perception": summarise_perception(predictions),
    }
    if protocol.metric == "war_uar":
        summary["out_of_vocabulary"], summary["unanswered"] = _labels(predictions)
    return summary


def _figures(rows: Sequence[Prediction], protocol: Protocol) -> GroupFigures:
    scores = [r["answer_score"] for r in rows]
    figures: GroupFigures = {
        "n": len(rows),
        "accuracy": float(np.mean(scores)),
        "ci95": accuracy_interval(scores),
        "chance": chance_level(rows, kind_of, protocol.answers),
        "majority": majority_score(rows, kind_of, protocol.answers),
    }
    if protocol.metric == "war_uar":
        gold, predicted = [str(r["gold_parsed"]) for r in rows], [r["answer_parsed"] for r in rows]
        figures["war"], figures["uar"] = figures["accuracy"], unweighted_average_recall(gold, predicted)
        figures["uar_ci95"] = _uar_interval(gold, predicted)
    return figures


def _uar_interval(gold: Sequence[str], predicted: Sequence[str | None]) -> tuple[float, float]:
    """Bootstrap over items; a class that a resample lacks is left out of that resample's mean."""
    classes = {label: i for i, label in enumerate(dict.fromkeys(gold))}
    codes = [2 * classes[g] + (g == p) for g, p in zip(gold, predicted, strict=True)]

    def uar(resamples: np.ndarray, axis: int) -> np.ndarray:  # (r, n) -> (r,)
        hits = np.stack([(resamples == 2 * c + 1).sum(axis=axis) for c in classes.values()])
        sizes = hits + np.stack([(resamples == 2 * c).sum(axis=axis) for c in classes.values()])
        present = sizes > 0
        return (hits / np.maximum(sizes, 1)).sum(axis=0) / present.sum(axis=0)

    return bootstrap_interval(codes, uar, n_resamples=_N_RESAMPLES)


def _labels(rows: Sequence[Prediction]) -> tuple[dict[str, int], int]:
    """Answers that are none of the labels, rows without an answer."""
    kinds, read = {r["problem_type"] for r in rows}, AnswerReward().read
    listed = {str(read(label, label, kind).parsed) for kind in kinds for label in PROBLEM_TYPES[kind].labels}
    known = listed or {str(r["gold_parsed"]) for r in rows}
    predicted = [r["answer_parsed"] for r in rows]
    return out_of_vocabulary(predicted, known), predicted.count(None)


def compare(
    a: Sequence[Prediction],
    b: Sequence[Prediction],
    names: tuple[str, str],
    group: str,
    group_by: Sequence[str] = (),
) -> Comparison:
    """
    Accuracy of `a` minus accuracy of `b` on the same rows of `group`, with a paired 95 % interval and McNemar's p.

    Raises:
        `ValueError`: The two do not hold the same rows in the same order.
    """
    rows_a, rows_b = (members(side, group, group_by) for side in (a, b))
    if [p["id"] for p in rows_a] != [p["id"] for p in rows_b]:
        raise ValueError(f"{names[0]} and {names[1]} answered different rows; evaluate both on one file")
    scores_a, scores_b = ([p["answer_score"] for p in rows] for rows in (rows_a, rows_b))
    paired = paired_bootstrap(scores_a, scores_b)
    return {
        "a": names[0],
        "b": names[1],
        "group": group,
        "n": paired.n,
        "difference": paired.difference,
        "ci95": paired.ci95,
        "p_mcnemar": mcnemar([s >= 1 for s in scores_a], [s >= 1 for s in scores_b]),
    }
