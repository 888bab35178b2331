# SPDX-License-Identifier: Apache-2.0
"""Predictions to figures: accuracy by group with intervals and chance, paired comparisons, the table people read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from omni_grpo.statistics import accuracy_interval, mcnemar, paired_bootstrap


def group_of(prediction: Mapping[str, Any]) -> str:
    """A prediction's group in tables: `meta.kind`, else its problem type."""
    return str(prediction["meta"].get("kind", prediction["problem_type"]))


def _groups(predictions: Sequence[Mapping[str, Any]], combined: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    kinds = list(dict.fromkeys(group_of(p) for p in predictions))
    for kind in kinds:
        yield kind, [p for p in predictions if group_of(p) == kind]
    for name in combined:
        parts = name.split("+")
        if set(parts) <= set(kinds):
            yield name, [p for p in predictions if group_of(p) in parts]
    yield "all", list(predictions)


def _chance(predictions: Sequence[Mapping[str, Any]]) -> float:
    """Accuracy of drawing among the gold answers of each kind, the share that guessing earns."""
    kinds: dict[str, set[str]] = {}
    for p in predictions:
        kinds.setdefault(group_of(p), set()).add(p["solution"])
    return float(np.mean([1 / len(kinds[group_of(p)]) for p in predictions]))


def summarise(predictions: Sequence[Mapping[str, Any]], combined: Sequence[str] = ()) -> dict[str, Any]:
    """
    Accuracy with 95 % interval and chance level by group, and the share of well-formed completions.

    Args:
        predictions (sequence of `dict`): From [`predict`].
        combined (sequence of `str`): Further groups such as `"intent+agreement"`.
    """
    groups = {}
    for name, rows in _groups(predictions, combined):
        scores = [r["answer_score"] for r in rows]
        groups[name] = {
            "n": len(rows),
            "accuracy": float(np.mean(scores)),
            "ci95": list(accuracy_interval(scores)),
            "chance": _chance(rows),
        }
    valid = [float(p["format_ok"]) for p in predictions]
    return {
        "n": len(predictions),
        "groups": groups,
        "format_rate": float(np.mean(valid)),
        "format_ci95": list(accuracy_interval(valid)),
        "mean_tokens": float(np.mean([p["num_tokens"] for p in predictions])),
    }


def compare(
    a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]], names: tuple[str, str], group: str
) -> dict[str, Any]:
    """
    Accuracy of `a` minus accuracy of `b` on the same rows of `group`, with a paired 95 % interval and McNemar's p.

    Raises:
        `ValueError`: The two do not hold the same rows in the same order.
    """
    parts = group.split("+")
    rows_a, rows_b = ([p for p in side if group == "all" or group_of(p) in parts] for side in (a, b))
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
        "ci95": list(paired.ci95),
        "p_mcnemar": mcnemar([s >= 1 for s in scores_a], [s >= 1 for s in scores_b]),
    }


def table(summary: Mapping[str, Any]) -> str:
    """The combined metrics as aligned text: one line a model and group, then ablations and comparisons."""

    def cell(group: Mapping[str, Any]) -> str:
        low, high = group["ci95"]
        return f"{100 * group['accuracy']:5.1f} [{100 * low:.1f}, {100 * high:.1f}]"

    lines = [f"{'model':10} {'variant':9} {'group':18} {'accuracy % [95 %]':24} {'chance':>6} {'n':>5}"]
    for name, metrics in summary["stages"].items():
        for variant, part in {"full": metrics, **metrics["variants"]}.items():
            for group, figures in part["groups"].items():
                chance = f"{100 * figures['chance']:6.1f}"
                lines.append(f"{name:10} {variant:9} {group:18} {cell(figures):24} {chance} {figures['n']:5}")
            low, high = part["format_ci95"]
            valid = f"{100 * part['format_rate']:5.1f} [{100 * low:.1f}, {100 * high:.1f}]"
            lines.append(f"{name:10} {variant:9} {'valid format':18} {valid:24} {'':6} {part['n']:5}")
    for c in summary["comparisons"]:
        low, high = c["ci95"]
        lines.append(
            f"{c['a']} − {c['b']} on {c['group']}: {100 * c['difference']:+.1f} points [{100 * low:+.1f}, "
            f"{100 * high:+.1f}], McNemar p = {c['p_mcnemar']:.2g}, n = {c['n']}"
        )
    return "\n".join(lines)
