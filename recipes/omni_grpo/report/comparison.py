# SPDX-License-Identifier: Apache-2.0
"""Several runs on one page: curves over one another, and paired differences from the first run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omni_grpo.evaluation.records import FULL, Comparison
from omni_grpo.evaluation.scoring import compare, members
from omni_grpo.report.curves import Curve, build_curves
from omni_grpo.report.figures import Table, accuracy
from omni_grpo.report.rendering import render
from omni_grpo.report.run_folder import RunFolder, in_order, read_run, stage_label
from omni_grpo.report.shortcuts import variant_label, variants_of
from omni_grpo.report.tables import differences_table

RUN_TONES = ("rl", "think", "other-1", "context", "control", "other-3")


def write_comparison(runs: Sequence[Path], output: Path) -> Path:
    """
    Writes two to six run folders as one self-contained HTML page, without scripts.

    Args:
        runs (`Sequence[Path]`):
            Run folders as of [`write_report`]; the first is what the others are compared with.
        output (`Path`):
            Where the page goes. Missing folders are made.

    Returns:
        `Path`: the page.

    Raises:
        FileNotFoundError: if a folder holds neither logs nor an evaluation.
        ValueError: if there are fewer than two runs, more than six, or one twice.
    """
    if not 2 <= len(runs) <= len(RUN_TONES) or len({Path(run).resolve() for run in runs}) < len(runs):
        raise ValueError(f"a comparison takes 2 to {len(RUN_TONES)} different runs, got {[str(run) for run in runs]}")
    folders = dict(zip(run_names(runs), (read_run(Path(run)) for run in runs), strict=True))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render_comparison(folders), encoding="utf-8")
    return output


def run_names(runs: Sequence[Path]) -> list[str]:
    """The shortest ends of the runs' paths, at least the folder's name, that differ."""
    parts = [Path(run).resolve().parts[1:] for run in runs]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-count:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    return [str(run) for run in runs]


def render_comparison(runs: dict[str, RunFolder]) -> str:
    """The page as one string of HTML. See [`write_comparison`]."""
    groups = list(dict.fromkeys(group for run in runs.values() for group in run.groups))
    return render(
        "comparison.html.j2",
        styles=["page.css"],
        title="omni-grpo: " + " against ".join(runs),
        runs=runs,
        first=next(iter(runs)),
        differences=_differences(runs),
        accuracy=_accuracy(runs, groups),
        variants=_variants(runs, groups),
        curves=overlaid(runs),
    )


def overlaid(runs: dict[str, RunFolder]) -> list[Curve]:
    """The curves of all runs by name and line, one chart a line of the first run's curves, a tone and a dash a run."""
    charts: dict[tuple[str, str], Curve] = {}
    for place, (name, run) in enumerate(runs.items()):
        for curve in build_curves(run):
            for line in curve.series:
                title = curve.title if line.label == "training" else f"{curve.title}: {line.label}"
                shown = replace(line, label=name, tone=RUN_TONES[place], dash=place)
                key = (curve.name, line.label)
                before = charts.get(key, replace(curve, title=title, series=()))
                charts[key] = replace(before, series=(*before.series, shown))
    return list(charts.values())


def _differences(runs: dict[str, RunFolder]) -> Table | str:
    """Each run minus the first, stage against the same stage, on the items that both answered."""
    (first, reference), *others = runs.items()
    rows: list[tuple[str, Comparison]] = []
    for name, run in others:
        for stage, theirs in reference.predictions.items():
            both = [key for key in theirs if key in run.predictions.get(stage, {})]
            sides = [[rows[key] for key in both] for rows in (run.predictions.get(stage, {}), theirs)]
            for group in dict.fromkeys([*reference.groups, "all"]):
                if members(sides[0], group):
                    found = compare(sides[0], sides[1], (name, first), group)
                    rows.append((f"{name} − {first}, {stage_label(stage)}", found))
    if not rows:
        return "No stage was evaluated on the same items in two of these runs."
    return differences_table("Paired differences on the same items", "Runs and stage", rows)


def _accuracy(runs: dict[str, RunFolder], groups: list[str]) -> Table | str:
    rows = [
        [f"{stage_label(stage)}, {name}", *(accuracy(run.figures(stage, g), colour) for g in groups)]
        for stage in in_order({stage for run in runs.values() for stage in run.evaluated})
        for (name, run), colour in zip(runs.items(), RUN_TONES, strict=False)
        if stage in run.evaluated
    ]
    return Table("Accuracy in percent", ["Stage and run", *groups], rows) if rows else "No evaluation."


def _variants(runs: dict[str, RunFolder], groups: list[str]) -> Table | str:
    rows = [
        [f"{stage_label(stage)}, {name}, {variant_label(v)}", *(accuracy(figures.get(g), colour) for g in groups)]
        for (name, run), colour in zip(runs.items(), RUN_TONES, strict=False)
        for stage, measured in run.evaluated.items()
        for v, figures in variants_of(measured).items()
        if v != FULL
    ]
    caption = "Accuracy in percent with media taken away"
    return Table(caption, ["Stage, run, media", *groups], rows) if rows else "Not tested so."
