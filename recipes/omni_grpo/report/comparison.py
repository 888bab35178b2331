# SPDX-License-Identifier: Apache-2.0
"""Several runs on one page: curves over one another, and paired differences from the first run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omni_grpo.evaluation.statistics import mcnemar, paired_bootstrap
from omni_grpo.report.curves import Curve, build_curves
from omni_grpo.report.drawing import interval_glyph, line_chart
from omni_grpo.report.markup import NOTHING, interval, note, number, p_value, percent, points, table, text
from omni_grpo.report.resources import fill_page, resource
from omni_grpo.report.run_folder import FULL, RunFolder, in_order, read_run
from omni_grpo.report.shortcuts import in_group, variant_label, variants_of
from omni_grpo.report.tables import figure, group_names

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
    style = resource("page.css")
    return fill_page(
        "comparison.html",
        style=style,
        title=text("omni-grpo: " + " against ".join(runs)),
        summary=text(f"{len(runs)} runs; the first, {next(iter(runs))}, is what the others are compared with."),
        notes="".join(note(f"{name}: {remark}") for name, run in runs.items() for remark in run.notes),
        first=text(next(iter(runs))),
        differences=_differences(runs),
        accuracy=_accuracy(runs),
        ablation=_ablation(runs),
        curves="".join(map(line_chart, overlaid(runs))) or note("No training log in these runs."),
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


def _differences(runs: dict[str, RunFolder]) -> str:
    (first, reference), *others = runs.items()
    rows = []
    for name, run in others:
        for stage in reference.predictions:
            ours, theirs = run.predictions.get(stage, {}), reference.predictions[stage]
            for group in dict.fromkeys([*group_names(reference), "all"]):
                pairs = [
                    (a, b)
                    for key, row in ours.items()
                    if key in theirs
                    and in_group(row, group)
                    and (a := number(row.get("answer_score"))) is not None
                    and (b := number(theirs[key].get("answer_score"))) is not None
                ]
                if not pairs:
                    continue
                a, b = zip(*pairs, strict=True)
                paired = paired_bootstrap(a, b)
                is_binary = {*a, *b} <= {0.0, 1.0}
                rows.append(
                    [
                        f"{text(name)} − {text(first)}",
                        text(run.label(stage)),
                        text(group),
                        f'<span class="value">{points(paired.difference)}</span>',
                        interval(list(paired.ci95), points_=True),
                        text(p_value(mcnemar(a, b))) if is_binary else NOTHING,
                        str(paired.n),
                    ]
                )
    if not rows:
        return note("No stage was evaluated on the same items in two of these runs.")
    header = ["Runs", "Stage", "Group", "Difference, points", "95\u00a0% interval", "McNemar p", "n"]
    return table("Paired differences on the same items", header, rows)


def _accuracy(runs: dict[str, RunFolder]) -> str:
    groups = list(dict.fromkeys(group for run in runs.values() for group in group_names(run)))
    rows = []
    for stage in in_order({stage for run in runs.values() for stage in run.evaluated}):
        for place, (name, run) in enumerate(runs.items()):
            if stage in run.evaluated:
                figures = [figure(run, stage, group) for group in groups]
                rows.append([f"{text(run.label(stage))}, {text(name)}", *(_cell(f, place) for f in figures)])
    return (
        table("Accuracy in percent", ["Stage and run", *map(text, groups)], rows) if rows else note("No evaluation.")
    )


def _ablation(runs: dict[str, RunFolder]) -> str:
    groups = list(dict.fromkeys(group for run in runs.values() for group in group_names(run)))
    rows = []
    for place, (name, run) in enumerate(runs.items()):
        for stage in run.evaluated:
            for variant, figures in variants_of(run, stage).items():
                if variant != FULL:
                    where = f"{text(run.label(stage))}, {text(name)}, {text(variant_label(variant))}"
                    rows.append([where, *(_cell(figures.get(group, {}), place) for group in groups)])
    caption = "Accuracy in percent with media taken away"
    return table(caption, ["Stage, run, media", *map(text, groups)], rows) if rows else note("Not tested so.")


def _cell(found: dict, place: int) -> str:
    value, ci95 = number(found.get("accuracy")), found.get("ci95")
    if value is None:
        return NOTHING
    glyph = interval_glyph(value, ci95, found.get("chance"), RUN_TONES[place])
    return f'<span class="value">{percent(value)}</span> <span class="ci">{interval(ci95)}</span>{glyph}'
