# SPDX-License-Identifier: Apache-2.0
"""The figures of metrics.json as tables, numbers unchanged but for rounding to a tenth of a percent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from omni_grpo.evaluation.records import Comparison
from omni_grpo.report.figures import NOTHING, Cell, Table, accuracy, number, p_value, percent, points, share, spread
from omni_grpo.report.run_folder import RunFolder, stage_label, tone


def results_table(run: RunFolder) -> Table | str:
    """Group x stage: accuracy, 95 % interval, chance level; the headline group first."""
    rows = []
    for group in run.groups:
        figures = {stage: run.figures(stage, group) for stage in run.evaluated}
        found = [f for f in figures.values() if f]
        chance = next((f["chance"] for f in found if f["chance"] is not None), None)
        sizes = " / ".join(dict.fromkeys(str(f["n"]) for f in found))
        rows.append([group, *(accuracy(f, tone(s)) for s, f in figures.items()), percent(chance), sizes])
    if not rows:
        return "No evaluation yet: there is nothing to compare."
    header = ["Group", *map(stage_label, run.evaluated), "Chance", "n"]
    return Table("Accuracy in percent, by group and stage", header, rows)


def differences_table(caption: str, what: str, rows: Iterable[tuple[str, Comparison]]) -> Table:
    """Paired differences over the same items, in percentage points; `what` heads the names of what is compared."""
    cells = [
        [name, c["group"], Cell(points(c["difference"])), spread(c["ci95"]), p_value(c["p_mcnemar"]), str(c["n"])]
        for name, c in rows
    ]
    header = [what, "Group", "Difference, points", "95\u00a0% interval", "McNemar p", "n"]
    return Table(caption, header, cells)


def comparison_table(run: RunFolder) -> Table | str:
    """The paired comparisons of metrics.json."""
    rows = [(f"{stage_label(c['a'])} − {stage_label(c['b'])}", c) for c in run.metrics["comparisons"]]
    if not rows:
        return "No paired comparison in metrics.json."
    return differences_table("Paired comparisons on the same items", "Stages", rows)


def format_table(run: RunFolder) -> Table | str:
    """Valid format, accuracy where it is valid (a gain in form is not one in substance), and length."""
    rows = []
    for stage, measured in run.evaluated.items():
        predictions = run.predictions.get(stage, {}).values()
        valid = [row["answer_score"] for row in predictions if row["format_ok"]]
        faults = Counter(row["format_reason"] for row in predictions if not row["format_ok"])
        commonest = ", ".join(f"{reason} {count}×" for reason, count in faults.most_common(2))
        shape = share(measured.get("format_rate"), measured.get("format_ci95"), None, tone(stage))
        given = Cell(percent(float(np.mean(valid))), f"of {len(valid)}") if valid else NOTHING
        tokens = number(measured.get("mean_tokens"))
        length = NOTHING if tokens is None else f"{tokens:.0f}"
        rows.append([stage_label(stage), shape, given, length, commonest or NOTHING])
    header = ["Stage", "Valid format, %", "Accuracy if valid, %", "Mean tokens", "Commonest faults"]
    return Table("Format and length, all test rows", header, rows)
