# SPDX-License-Identifier: Apache-2.0
"""Shortcuts: what accuracy is left when a channel is taken away, blanked, swapped or shuffled; the shortcut index."""

from __future__ import annotations

from typing import Any

from omni_grpo.data.rows.kinds import kind_of
from omni_grpo.evaluation.statistics import paired_bootstrap
from omni_grpo.report.drawing import interval_glyph
from omni_grpo.report.markup import NOTHING, interval, note, number, percent, points, table, text
from omni_grpo.report.run_folder import FULL, Row, RunFolder, read_rows
from omni_grpo.report.tables import VARIANTS, groups_of, headline_group, tone

MAX_CHARTS = 8  # a stage; the table has every group
_SENSES = {"audio": "Audio", "video": "Picture"}
_WRITTEN = ("answers", "contexts")
_LEFT, _WIDTH, _ROW = 128, 440, 24  # user units


def shortcut_charts(run: RunFolder) -> str:
    """
    For each stage that was tested so: charts, the points lost, the shortcut index and what did not change, where
    `metrics.json` has them; empty if none was.
    """
    charts, tables = [], []
    lead = headline_group(run)
    for stage in run.evaluated:
        by_variant = variants_of(run, stage)
        if len(by_variant) < 2:
            continue
        groups = sorted(by_variant[FULL], key=lambda name: name != lead)
        charts += [_chart(run.label(stage), group, by_variant, tone(stage)) for group in groups[:MAX_CHARTS]]
        tables += [_lost_table(run, stage, groups, by_variant), _index_table(run, stage), _unchanged_table(run, stage)]
        tables.append(_left_out(run, stage))
    return f'<div class="charts">{"".join(charts)}</div>{"".join(tables)}' if charts else ""


def variants_of(run: RunFolder, stage: str) -> dict[str, dict[str, Row]]:
    """Variant -> group -> figures, all media first, then in the order of [`VARIANTS`], others alphabetically."""
    measured = run.evaluated.get(stage, {})
    variants = measured.get("variants")
    found = {FULL: groups_of(measured)}
    if isinstance(variants, dict):
        found |= {n: groups_of(v) if "groups" in v else v for n, v in variants.items() if n != FULL}
    known = list(VARIANTS)
    return {n: found[n] for n in sorted(found, key=lambda n: (known.index(n) if n in known else len(known), n))}


def variant_label(name: str) -> str:
    """A variant's name on the page."""
    return VARIANTS.get(name, name.replace("_", " ").capitalize())


def _chart(stage: str, group: str, by_variant: dict[str, dict[str, Row]], tone_: str) -> str:
    def x(share: float) -> str:
        return f"{_LEFT + 8 + (_WIDTH - _LEFT - 20) * min(1.0, max(0.0, share)):.1f}"

    rows = [(name, figures[group]) for name, figures in by_variant.items() if group in figures]
    height = _ROW * len(rows) + 26
    parts, words = [], []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<path class="grid" d="M{x(share)},4V{height - 22}"/>')
        parts.append(f'<text x="{x(share)}" y="{height - 6}" text-anchor="middle">{100 * share:.0f}</text>')
    full, chance = number(rows[0][1].get("accuracy")), number(rows[0][1].get("chance"))
    for share, kind in ((full, "whole"), (chance, "guess")):
        if share is not None:
            parts.append(f'<path class="{kind}" d="M{x(share)},4V{height - 22}"/>')
    for place, (name, figures) in enumerate(rows):
        y = 4 + _ROW * (place + 0.5)
        value, ci95 = number(figures.get("accuracy")), figures.get("ci95")
        parts.append(f'<text x="{_LEFT}" y="{y + 4:.1f}" text-anchor="end">{text(variant_label(name))}</text>')
        if value is None:
            continue
        if ci95 is not None and interval(ci95):
            parts.append(f'<path class="band" d="M{x(ci95[0])},{y:.1f}H{x(ci95[1])}"/>')
        parts.append(f'<circle cx="{x(value)}" cy="{y:.1f}" r="4"/>')
        words.append(f"{variant_label(name)} {percent(value)}")
    label = f"{stage}, {group}, accuracy in percent: {'; '.join(words)}."
    return (
        f'<figure class="chart shortcut tone-{tone_}"><h3>{text(stage)}: {text(group)}</h3>'
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{text(label)}">{"".join(parts)}</svg></figure>\n'
    )


def _lost_table(run: RunFolder, stage: str, groups: list[str], by_variant: dict[str, dict[str, Row]]) -> str:
    whole = run.predictions.get(stage, {})
    rows = []
    for name in by_variant:
        if name == FULL:
            continue
        file = run.path / "eval" / stage / f"predictions.{name}.jsonl"
        altered = {str(row.get("id")): row for row in read_rows(file)} if file.is_file() else {}
        cells = [_lost(by_variant, name, group, whole, altered) for group in groups]
        rows.append([text(variant_label(name)), *cells])
    caption = f"{run.label(stage)}, points of accuracy lost against all media"
    return table(caption, ["Media", *map(text, groups)], rows)


def _index_table(run: RunFolder, stage: str) -> str:
    """Group x sense: the part of the score that is left when that sense is another row's; empty if not measured."""
    groups = _shortcuts(run, stage)
    rows = []
    for group, found in groups.items():
        index = _record(found, "index")
        cells = [_share_cell(_record(index, sense), "value", tone(stage)) for sense in _SENSES]
        if set(cells) != {NOTHING}:
            rows.append([text(group), *cells])
    caption = (
        f"{run.label(stage)}, shortcut index, in percent: the part of the score that is left under another row's …"
    )
    return table(caption, ["Group", *map(text, _SENSES.values())], rows) if rows else ""


def _unchanged_table(run: RunFolder, stage: str) -> str:
    """Variant x answers and contexts: the share that is the same as with all media; empty if not measured."""
    variants = _record(_shortcuts(run, stage).get("all"), "variants")
    rows = [
        [text(variant_label(name)), *(_share_cell(_record(changed, what), "share", tone(stage)) for what in _WRITTEN)]
        for name, changed in variants.items()
    ]
    caption = f"{run.label(stage)}, percent that do not change when the evidence does, all groups"
    return table(caption, ["Media", *(what.capitalize() for what in _WRITTEN)], rows) if rows else ""


def _share_cell(found: Row, key: str, tone_: str) -> str:
    if (value := number(found.get(key))) is None:
        return NOTHING
    ci95 = found.get("ci95")
    glyph = interval_glyph(value, ci95, None, tone_)
    return f'<span class="value">{percent(value)}</span> <span class="ci">{interval(ci95)}</span>{glyph}'


def _left_out(run: RunFolder, stage: str) -> str:
    """A note for each reason for which a variant did not ask some rows."""
    notes = []
    for name, measured in _record(run.evaluated.get(stage), "variants").items():
        for reason, ids in _record(measured, "left_out").items():
            if isinstance(ids, list) and ids:
                some = ", ".join(map(str, ids[:5])) + (", …" if len(ids) > 5 else "")
                notes.append(note(f"{variant_label(name)}: {len(ids)} rows are left out, for each {reason} ({some})."))
    return "".join(notes)


def _shortcuts(run: RunFolder, stage: str) -> Row:
    return _record(run.evaluated.get(stage), "shortcuts")


def _record(found: Any, key: str) -> Row:
    """An object in an object of metrics.json, empty where there is none: runs of earlier versions lack some."""
    inner = found.get(key) if isinstance(found, dict) else None
    return inner if isinstance(inner, dict) else {}


def _lost(
    by_variant: dict[str, dict[str, Row]], name: str, group: str, whole: dict[str, Row], altered: dict[str, Row]
) -> str:
    """Over the rows that both answered where the predictions are there, with their interval; else of the figures."""
    pairs = [
        (a, b)
        for key, row in altered.items()
        if key in whole
        and in_group(row, group)
        and (a := number(whole[key].get("answer_score"))) is not None
        and (b := number(row.get("answer_score"))) is not None
    ]
    if pairs:
        whole_scores, altered_scores = zip(*pairs, strict=True)
        paired = paired_bootstrap(whole_scores, altered_scores)
        spread = interval(list(paired.ci95), points_=True)
        return f'<span class="value">{points(paired.difference)}</span> <span class="ci">{spread}</span>'
    full, left = (number(by_variant[v].get(group, {}).get("accuracy")) for v in (FULL, name))
    return NOTHING if full is None or left is None else f'<span class="value">{points(full - left)}</span>'


def in_group(row: Row, group: str) -> bool:
    """Whether a row counts for a group: its own, one of several joined by `+`, or `all`."""
    return group == "all" or kind_of(row) in group.split("+")
