# SPDX-License-Identifier: Apache-2.0
"""The page: what was run, the headline, tables, curves, clips, and the machine, put into `page.html`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from omni_grpo.report.clips import clip_cards
from omni_grpo.report.confusion import confusion_tables
from omni_grpo.report.curves import build_curves
from omni_grpo.report.drawing import interval_glyph, line_chart
from omni_grpo.report.length import length_tables
from omni_grpo.report.markup import NOTHING, duration, interval, note, number, p_value, percent, points, text
from omni_grpo.report.plots import save_plots
from omni_grpo.report.resources import fill_page, resource
from omni_grpo.report.rollouts import Group, read_rollouts
from omni_grpo.report.run_folder import RunFolder, read_run
from omni_grpo.report.shortcuts import shortcut_charts
from omni_grpo.report.tables import (
    ablation_tables,
    comparison_table,
    comparisons,
    figure,
    format_table,
    headline_group,
    results_table,
    tone,
)

_VIEWER_LINK = (
    '<p class="lead">Every completion of the training, with filters: <a href="{}">the rollout viewer</a>.</p>'
)


def write_report(run: Path, output: Path | None = None, num_clips: int = 12, viewer: Path | None = None) -> Path:
    """
    Writes a run folder as one self-contained HTML page, and its curves as PNG files into `<run>/plots/`.

    Parts of the run that do not exist are left out and named on the page.

    Args:
        run (`Path`):
            Folder with any of `<stage>/log.jsonl`, `eval/<stage>/predictions.jsonl`, `eval/<stage>/metrics.json` and
            `metrics.json`.
        output (`Path`, *optional*):
            Where the page goes; `<run>/report.html` by default. Missing folders are made.
        num_clips (`int`, *optional*, defaults to `12`):
            Test rows shown with their media, which are embedded (files above 8 MB are only named).
        viewer (`Path`, *optional*):
            The run's rollout viewer, which the page then links.

    Returns:
        `Path`: the page.

    Raises:
        FileNotFoundError: if the folder holds neither logs nor an evaluation.
        ValueError: if `num_clips` is negative or a metrics.json is not a JSON object.
        ImportError: if matplotlib is missing.
    """
    folder = read_run(Path(run))
    output = Path(output or folder.path / "report.html")
    link = quote(os.path.relpath(viewer.resolve(), output.resolve().parent)) if viewer else ""
    page = render_page(folder, num_clips, read_rollouts(folder.path), link)
    save_plots(build_curves(folder), folder.path / "plots")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")
    return output


def render_page(run: RunFolder, num_clips: int = 12, groups: Sequence[Group] = (), viewer: str = "") -> str:
    """The page as one string of HTML, without writing anything. See [`write_report`]."""
    if num_clips < 0:
        raise ValueError(f"num_clips must not be negative, got {num_clips}")
    style, script = resource("page.css"), resource("page.js")
    return fill_page(
        "page.html",
        media="data:",
        style=style,
        script=script,
        title=text(run.metrics.get("title") or f"omni-grpo: {run.path.resolve().name}"),
        summary=text(run.metrics.get("summary") or _summary(run)),
        notes="".join(map(note, run.notes)),
        headline=_headline(run),
        results=results_table(run) + comparison_table(run) + format_table(run),
        ablation=shortcut_charts(run) + ablation_tables(run),
        confusion=confusion_tables(run),
        length=length_tables(run, groups),
        viewer=_VIEWER_LINK.format(text(viewer)) if viewer else "",
        curves="".join(map(line_chart, build_curves(run))) or note("No training log in this run."),
        clips=clip_cards(run, num_clips),
        machine=_facts(run),
    )


def _summary(run: RunFolder) -> str:
    trained = [run.label(stage) for stage in run.logs if stage != "control"]
    steps = f"was trained ({', then '.join(trained)})" if trained else "was evaluated"
    first = next(iter(run.evaluated.values()), {})
    sentence = f"{_short_name(first.get('model')) or 'The model'} {steps}"
    if first:
        size = f"{first['n']} examples" if "n" in first else "the examples"
        sentence += f", and every stage was tested on {size} of {_short_name(first.get('data')) or 'the test set'}"
    machine = run.metrics.get("machine")
    parts = [machine.get(name) for name in ("accelerator", "processor")] if isinstance(machine, dict) else []
    where = next((part for part in parts if part and part != "none"), None)
    return f"{sentence}{f', on {where}' if where else ''}."


def _short_name(value: Any) -> str:
    """A hub or relative name, at most two parts; of an absolute path the last, which tells no home folder."""
    path = Path(str(value or ""))
    return path.name if path.is_absolute() else "/".join(path.parts[-2:])


def _headline(run: RunFolder) -> str:
    group, stages = headline_group(run), list(run.evaluated)
    tiles = []
    if group is not None:
        last = "rl" if "rl" in stages else stages[-1]
        # RL is measured from its start; a base that was never taught sections would flatter it.
        first = "sft" if "sft" in stages and last == "rl" else stages[0]
        before, after = (figure(run, stage, group).get("accuracy") for stage in (first, last))
        change = _arrow(before, after, first != last)
        rows = "".join(_accuracy_row(run, stage, group) for stage in stages)
        tiles.append(
            f'<div class="tile wide"><h3>Accuracy on {text(group)}</h3><p class="big">{change}</p>'
            f'<ul class="forest">{rows}</ul>'
            '<p class="fine">Dot: accuracy. Band: 95\u00a0% interval. Tick: chance.</p></div>'
        )
        before, after = (run.evaluated[stage].get("format_rate") for stage in (first, last))
        spread = interval(run.evaluated[last].get("format_ci95"))
        details = f"95\u00a0% interval {spread}" if spread else ""
        tiles.append(_tile("Valid format", _arrow(before, after, first != last), details))
    for c in comparisons(run)[:1]:
        names = f"{run.label(str(c.get('a')))} over {run.label(str(c.get('b')))}"
        spread = interval(c.get("ci95"), points_=True) or NOTHING
        details = (
            f"On {c.get('group')}, same items. 95\u00a0% interval {spread}; McNemar p {p_value(c.get('p_mcnemar'))}."
        )
        value = f'{points(c.get("difference"))} <span class="unit">points</span>'
        tiles.append(_tile(names, value, details))
    seconds = run.metrics.get("seconds")
    parts = {k: s for k, v in seconds.items() if (s := number(v)) is not None} if isinstance(seconds, dict) else {}
    if parts:
        details = " · ".join(f"{run.label(stage)} {duration(s)}" for stage, s in parts.items())
        tiles.append(_tile("Wall time", duration(sum(parts.values())), details))
    return "".join(tiles) or note("No evaluation yet: the curves below are all there is.")


def _arrow(before: Any, after: Any, both: bool) -> str:
    unit = '<span class="unit">\u00a0%</span>'
    return f'{percent(before)} <span class="unit">→</span> {percent(after)}{unit}' if both else percent(after) + unit


def _accuracy_row(run: RunFolder, stage: str, group: str) -> str:
    found = figure(run, stage, group)
    glyph = interval_glyph(found.get("accuracy"), found.get("ci95"), found.get("chance"), tone(stage))
    value = f'<b>{percent(found.get("accuracy"))}</b> <span class="ci">{interval(found.get("ci95"))}</span>'
    return f"<li><span>{text(run.label(stage))}</span>{glyph or '<span></span>'}<span>{value}</span></li>"


def _tile(title: str, value: str, details: str) -> str:
    return (
        f'<div class="tile"><h3>{text(title)}</h3><p class="big">{value}</p><p class="fine">{text(details)}</p></div>'
    )


def _facts(run: RunFolder) -> str:
    machine = run.metrics.get("machine")
    facts = machine if isinstance(machine, dict) else {}
    created = {run.label(stage): m["created"] for stage, m in run.evaluated.items() if m.get("created")}
    lists = (
        f"{f'<h3>{_words(name)}</h3>' if name else ''}{_definitions(block)}"
        for name, block in {"": facts, "evaluated": created}.items()
        if block
    )
    return "".join(lists) or note("metrics.json says nothing about the machine.")


def _definitions(facts: dict[str, Any]) -> str:
    def shown(value: Any) -> str:
        return text(", ".join(map(str, value)) if isinstance(value, list) else value)

    return f"<dl>{''.join(f'<div><dt>{_words(k)}</dt><dd>{shown(v)}</dd></div>' for k, v in facts.items())}</dl>"


def _words(name: str) -> str:
    return text(name.replace("_", " "))
