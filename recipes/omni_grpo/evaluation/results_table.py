# SPDX-License-Identifier: Apache-2.0
"""The combined metrics as aligned text, for the terminal and for files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omni_grpo.evaluation.records import FULL, Comparison, Interval, RunMetrics, Shortcuts, Summary

MOST_LINES = 20
_SHOWN_WORDS = 5  # answers that are none of the labels


def table(summary: RunMetrics) -> str:
    """One line a model, variant and group; then labels, perception and shortcuts; then the comparisons. In percent."""
    stages = {
        (name, variant): part
        for name, metrics in summary["stages"].items()
        for variant, part in {FULL: metrics, **metrics["variants"]}.items()
    }
    widest = max([18, *(len(group) for part in stages.values() for group in part["groups"])])
    wide = max([9, *(len(variant) for _, variant in stages)])
    lines = [
        f"{'model':10} {'variant':{wide}} {'group':{widest}} {'accuracy % [95 %]':24} {'chance':>6} {'commonest':>9} {'n':>5}"
    ]
    for (name, variant), part in stages.items():
        for group, cells in _rows(part):
            lines.append(f"{name:10} {variant:{wide}} {group:{widest}} {cells}")
    for (name, variant), part in stages.items():
        lines += [f"{name} {variant}: {note}" for note in _notes(part)]
    for name, metrics in summary["stages"].items():
        lines += [f"{name}: {note}" for note in _shortcuts(metrics["shortcuts"])]
    return "\n".join([*lines, *map(comparison_line, summary["comparisons"])])


def headline(summary: RunMetrics) -> str:
    """[`table`] in at most 20 lines: combined groups and all rows of each model, one group a variant, the comparisons."""
    stages: dict[str, Any] = {}
    for name, metrics in summary["stages"].items():
        groups = {g: f for g, f in metrics["groups"].items() if "+" in g or g == "all"}
        first = next(iter(groups))
        parts = {v: p["groups"] for v, p in metrics["variants"].items() if first in p["groups"]}
        variants = {v: {"groups": {first: g[first]}, "perception": {}} for v, g in parts.items()}
        left_out: dict[str, Any] = {"perception": {}, "shortcuts": {}, "sufficiency": {}}
        stages[name] = {**metrics, "groups": groups, "variants": variants, **left_out}
    lines = table({**summary, "stages": stages}).split("\n")
    more = f"… {len(lines) - MOST_LINES + 1} more lines in metrics.txt and in the report"
    return "\n".join(lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], more])


def comparison_line(comparison: Comparison) -> str:
    """A difference of two runs in points, with its interval, McNemar's p where there is one, and n."""
    low, high = comparison["ci95"]
    p = comparison["p_mcnemar"]
    return (
        f"{comparison['a']} − {comparison['b']} on {comparison['group']}: {100 * comparison['difference']:+.1f} points "
        f"[{100 * low:+.1f}, {100 * high:+.1f}]"
        + ("" if p is None else f", McNemar p = {p:.2g}")
        + f", n = {comparison['n']}"
    )


def _rows(part: Summary) -> Iterator[tuple[str, str]]:
    for group, figures in part["groups"].items():
        tail = f"{_percent(figures['chance']):>6} {_percent(figures['majority']):>9} {figures['n']:5}"
        yield group, f"{_interval(figures['accuracy'], figures['ci95']):24} {tail}"
        if "uar" in figures and "uar_ci95" in figures:
            yield f"{group}, UAR", f"{_interval(figures['uar'], figures['uar_ci95']):24} {'':16} {figures['n']:5}"
    if "format_rate" in part:
        yield "valid format", f"{_interval(part['format_rate'], part['format_ci95']):24} {'':16} {part['n']:5}"


def _notes(part: Summary) -> Iterator[str]:
    if "out_of_vocabulary" in part and "unanswered" in part:
        words = part["out_of_vocabulary"]
        shown = ", ".join(f"{word} {count}×" for word, count in list(words.items())[:_SHOWN_WORDS])
        more = f", and {len(words) - _SHOWN_WORDS} more" if len(words) > _SHOWN_WORDS else ""
        yield (
            f"{sum(words.values())} of {part['n']} answers are none of the labels"
            + (f" ({shown}{more})" if words else "")
            + f"; {part['unanswered']} gave no label"
        )
    figures = {name.replace("_", " "): figure for name, figure in part["perception"].items()}
    figures |= {f"context sufficient on {group}": mean for group, mean in part.get("sufficiency", {}).items()}
    for name, figure in figures.items():
        unavailable = figure.get("unavailable", 0)
        if figure["mean"] is None or figure["ci95"] is None:
            yield f"{name}: the judge gave no score (n = {unavailable})"
            continue
        lost = f", {unavailable} without a score" if unavailable else ""
        value = _interval(figure["mean"], figure["ci95"]).strip()
        yield f"{name} {value}, n = {figure['n']}{lost}"


def _shortcuts(groups: Mapping[str, Shortcuts]) -> Iterator[str]:
    for group, found in groups.items():
        for sense, index in found["index"].items():
            yield f"shortcut index of {sense} on {group} {_interval(index['value'], index['ci95'])}, n = {index['n']}"
    for variant, changed in groups["all"]["variants"].items() if "all" in groups else ():
        shares = [
            f"{_interval(share['share'], share['ci95']).strip()} of {name}, n = {share['n']}"
            for name in ("answers", "contexts")
            if (share := changed[name]) is not None
        ]
        yield f"unchanged under {variant}: {'; '.join(shares)}"


def _interval(value: float, ci95: Interval) -> str:
    return f"{100 * value:5.1f} [{100 * ci95[0]:.1f}, {100 * ci95[1]:.1f}]"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
