# SPDX-License-Identifier: Apache-2.0
"""The figures of metrics.json as tables, numbers unchanged but for rounding to a tenth of a percent."""

from __future__ import annotations

from collections import Counter
from typing import Any

from omni_grpo.report.curves import TONES
from omni_grpo.report.drawing import interval_glyph
from omni_grpo.report.markup import NOTHING, interval, note, number, p_value, percent, points, table, text
from omni_grpo.report.run_folder import FULL, Row, RunFolder

VARIANTS = {
    FULL: "All media",
    "no_audio": "Without audio",
    "no_video": "Without video",
    "neither": "Without both",
    "silent": "Silence for the audio",
    "blank": "Blank picture",
    "swapped_audio": "Another row's audio",
    "swapped_video": "Another row's video",
    "shuffled_frames": "Frames shuffled",
}


def headline_group(run: RunFolder) -> str | None:
    """The group that the page leads with: that of the first comparison, else `all`, else the first there is."""
    groups = group_names(run)
    first = next((c.get("group") for c in comparisons(run)), None)
    return next((group for group in (first, "all", *groups) if group in groups), None)


def group_names(run: RunFolder) -> list[str]:
    """All groups of all stages, in order of appearance."""
    return list(dict.fromkeys(group for stage in run.evaluated.values() for group in groups_of(stage)))


def comparisons(run: RunFolder) -> list[Row]:
    """The paired comparisons of metrics.json."""
    return [c for c in run.metrics.get("comparisons") or [] if isinstance(c, dict)]


def figure(run: RunFolder, stage: str, group: str) -> Row:
    """`{"n", "accuracy", "ci95", "chance"}` of a group at a stage, empty if it was not measured."""
    return groups_of(run.evaluated.get(stage, {})).get(group, {})


def tone(stage: str) -> str:
    """Colour class of a stage."""
    return stage if stage in TONES else "other-1"


def results_table(run: RunFolder) -> str:
    """Group x stage: accuracy, 95 % interval, chance level; the headline group first."""
    lead = headline_group(run)
    if lead is None:
        return note("No evaluation yet: there is nothing to compare.")
    rows = []
    for group in sorted(group_names(run), key=lambda name: name != lead):
        figures = {stage: figure(run, stage, group) for stage in run.evaluated}
        sizes = dict.fromkeys(str(f["n"]) for f in figures.values() if "n" in f)
        chance = next((c for f in figures.values() if (c := number(f.get("chance"))) is not None), None)
        cells = [_cell(f, tone(stage)) for stage, f in figures.items()]
        rows.append([text(group), *cells, percent(chance), text(" / ".join(sizes)) or NOTHING])
    stages = [text(run.label(stage)) for stage in run.evaluated]
    return table("Accuracy in percent, by group and stage", ["Group", *stages, "Chance", "n"], rows)


def comparison_table(run: RunFolder) -> str:
    """Paired differences over the same items, in percentage points."""
    rows = [
        [
            f"{text(run.label(str(c.get('a'))))} − {text(run.label(str(c.get('b'))))}",
            f'<span class="value">{points(c.get("difference"))}</span>',
            interval(c.get("ci95"), points_=True) or NOTHING,
            text(p_value(c.get("p_mcnemar"))),
            text(c.get("group", NOTHING)),
            text(c.get("n", NOTHING)),
        ]
        for c in comparisons(run)
    ]
    if not rows:
        return note("No paired comparison in metrics.json.")
    header = ["Stages", "Difference, points", "95\u00a0% interval", "McNemar p", "Group", "n"]
    return table("Paired comparisons on the same items", header, rows)


def format_table(run: RunFolder) -> str:
    """Valid format, accuracy where it is valid (a gain in form is not one in substance), and length."""
    rows = []
    for stage, measured in run.evaluated.items():
        predictions = list(run.predictions.get(stage, {}).values())
        scores = [number(row.get("answer_score")) for row in predictions if row.get("format_ok")]
        valid = [score for score in scores if score is not None]
        faults = Counter(str(row.get("format_reason")) for row in predictions if not row.get("format_ok"))
        commonest = ", ".join(f"{reason} {count}×" for reason, count in faults.most_common(2))
        shape = {"accuracy": measured.get("format_rate"), "ci95": measured.get("format_ci95")}
        given = f"{percent(sum(valid) / len(valid))} <span>of {len(valid)}</span>" if valid else NOTHING
        tokens = number(measured.get("mean_tokens"))
        length = NOTHING if tokens is None else f"{tokens:.0f}"
        rows.append([text(run.label(stage)), _cell(shape, tone(stage)), given, length, text(commonest) or NOTHING])
    header = ["Stage", "Valid format, %", "Accuracy if valid, %", "Mean tokens", "Commonest faults"]
    return table("Format and length, all test rows", header, rows) if rows else ""


def ablation_tables(run: RunFolder) -> str:
    """One table a stage that was tested with media taken away: variant x group."""
    tables = []
    for stage, measured in run.evaluated.items():
        variants = measured.get("variants")
        if not isinstance(variants, dict) or not variants:
            continue
        by_variant = {FULL: groups_of(measured)}
        by_variant |= {name: groups_of(v) if "groups" in v else v for name, v in variants.items() if name != FULL}
        groups = list(by_variant[FULL])
        rows = []
        for name in sorted(by_variant, key=lambda v: (list(VARIANTS).index(v) if v in VARIANTS else 99, v)):
            label = text(VARIANTS.get(name, name.replace("_", " ")))
            rows.append([label, *(_cell(by_variant[name].get(group, {}), tone(stage)) for group in groups)])
        caption = f"{run.label(stage)}, accuracy in percent"
        tables.append(table(caption, ["Media", *map(text, groups)], rows))
    return "".join(tables) or note("No evaluation with media taken away in this run.")


def groups_of(measured: Any) -> dict[str, Row]:
    """Figures by group, empty where there are none."""
    groups = measured.get("groups") if isinstance(measured, dict) else None
    return groups if isinstance(groups, dict) else {}


def _cell(found: Row, tone_: str) -> str:
    if number(found.get("accuracy")) is None:
        return NOTHING
    ci95, accuracy = found.get("ci95"), found["accuracy"]
    glyph = interval_glyph(accuracy, ci95, found.get("chance"), tone_)
    return f'<span class="value">{percent(accuracy)}</span> <span class="ci">{interval(ci95)}</span>{glyph}'
