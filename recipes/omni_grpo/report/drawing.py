# SPDX-License-Identifier: Apache-2.0
"""Inline SVG: line charts and interval glyphs. Colours come from the page's style by class, in both themes."""

from __future__ import annotations

import math
from typing import Any

from omni_grpo.report.curves import Curve, Series
from omni_grpo.report.markup import number, text

WIDTH, HEIGHT = 440, 230  # user units; the page scales the drawing to its column
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 30
_MAX_BAND_POINTS = 100
_MAX_POINTS = 400  # of the thin line; the running mean is taken before thinning


def line_chart(curve: Curve) -> str:
    """A figure with the curve's chart, a legend, and the same in words for those who cannot see it."""
    steps = [step for line in curve.series for step in line.steps]
    values = [value for line in curve.series for value in line.values]
    x_ticks = ticks(min(steps), max(steps), 6)
    y_ticks = ticks(0.0, 1.0, 5) if curve.share else ticks(min(0.0, *values), max(values), 5)
    x_low, x_high = min(steps), max(max(steps), min(steps) + 1)
    y_low, y_high = min(0.0, *values), max(0.0, *values)
    if curve.share:
        y_low, y_high = min(0.0, y_low), max(1.0, y_high)
    elif y_low == y_high:
        y_high = y_ticks[-1]
    y_high += 0.04 * (y_high - y_low)  # air above the line; the lowest tick stands on the axis

    def x(step: float) -> float:
        return _LEFT + (step - x_low) / (x_high - x_low) * (WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - _TOP - _BOTTOM)

    def path(xs: tuple[float, ...], ys: tuple[float, ...]) -> str:
        every = math.ceil(len(xs) / _MAX_POINTS)
        kept = [*range(0, len(xs) - 1, every), len(xs) - 1]  # the last point always
        return "M" + "L".join(f"{x(xs[i]):.1f},{y(ys[i]):.1f}" for i in kept)

    def spread(line: Series) -> str:
        """The band around the running mean, cut off at the edges of the drawing."""
        every = math.ceil(len(line.steps) / _MAX_BAND_POINTS)
        kept = [*range(0, len(line.steps) - 1, every), len(line.steps) - 1]
        band = line.band()
        edges = [[(x(line.steps[i]), y(min(y_high, max(y_low, band[i][side])))) for i in kept] for side in (0, 1)]
        return "M" + "L".join(f"{a:.1f},{b:.1f}" for a, b in [*edges[0], *reversed(edges[1])]) + "Z"

    parts = []
    for tick in y_ticks:
        if not y_low <= tick <= y_high:
            continue
        parts.append(f'<path class="grid" d="M{_LEFT},{y(tick):.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 7}" y="{y(tick) + 4:.1f}" text-anchor="end">{_tick_label(tick)}</text>')
    for tick in x_ticks:
        if x_low <= tick <= x_high:
            parts.append(
                f'<text x="{x(tick):.1f}" y="{HEIGHT - _BOTTOM + 17}" text-anchor="middle">{_tick_label(tick)}</text>'
            )
    for line in curve.series:
        shape = []
        if line.held_out:
            shape.append(f'<path class="dashed" d="{path(line.steps, line.values)}"/>')
            shape += [
                f'<circle cx="{x(step):.1f}" cy="{y(value):.1f}" r="3"/>'
                for step, value in zip(line.steps, line.values, strict=True)
            ]
        else:
            if line.window > 1:
                shape.append(f'<path class="thin" d="{path(line.steps, line.values)}"/>')
                shape.append(f'<path class="spread" d="{spread(line)}"/>')
            shape.append(f'<path class="thick{dash(line)}" d="{path(line.steps, line.smooth())}"/>')
            if len(line.steps) == 1:
                shape.append(f'<circle cx="{x(line.steps[0]):.1f}" cy="{y(line.values[0]):.1f}" r="3"/>')
        parts.append(f'<g class="tone-{line.tone}">{"".join(shape)}</g>')
    legend = "".join(
        f'<li class="tone-{line.tone}"><span class="swatch{" dots" if line.held_out else ""}{dash(line)}"></span>'
        f"{text(line.label)} <b>{_short(line.smooth()[-1] if not line.held_out else line.values[-1])}</b></li>"
        for line in curve.series
    )
    remark = f"<p>{text(curve.remark)}</p>" if curve.remark else ""
    return (
        f'<figure class="chart"><h3>{text(curve.title)}</h3>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(_in_words(curve))}">{"".join(parts)}</svg>'
        f'<figcaption><ul class="legend">{legend}</ul>{remark}</figcaption></figure>\n'
    )


def dash(line: Series) -> str:
    """The class of a line's pattern, with a space before it; none for a line without gaps."""
    return f" dash-{line.dash}" if line.dash else ""


def interval_glyph(accuracy: Any, ci95: Any, chance: Any, tone: str) -> str:
    """A bar from 0 to 100 %: the interval as a band, the value as a dot, chance as a tick. Empty without a value.

    It repeats numbers that stand beside it, so screen readers skip it.
    """
    value = number(accuracy)
    if value is None:
        return ""

    def x(share: float) -> str:
        return f"{4 + 152 * min(1.0, max(0.0, share)):.1f}"

    parts = ['<path class="track" d="M4,8H156"/>']
    at_chance = number(chance)
    if at_chance is not None:
        parts.append(f'<path class="chance" d="M{x(at_chance)},2V14"/>')
    if isinstance(ci95, list | tuple) and len(ci95) == 2:
        low, high = number(ci95[0]), number(ci95[1])
        if low is not None and high is not None:
            parts.append(f'<path class="band" d="M{x(low)},8H{x(high)}"/>')
    parts.append(f'<circle cx="{x(value)}" cy="8" r="4"/>')
    return f'<svg class="glyph tone-{tone}" viewBox="0 0 160 16" aria-hidden="true">{"".join(parts)}</svg>'


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) that enclose `low` and `high`.

    >>> ticks(0, 0.83, 5)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step)) + 1)
    return [round(i * step, digits) for i in range(first, last + 1)]


def _tick_label(value: float) -> str:
    if value and abs(value) < 0.001:
        return _minus(f"{value:.0e}".replace("e-0", "e-"))
    return _minus(f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}")


def _short(value: float) -> str:
    return _minus(f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}")


def _minus(digits: str) -> str:
    return digits.replace("-", "−")


def _in_words(curve: Curve) -> str:
    def words(line: Series) -> str:
        first, last = _short(line.values[0]), _short(line.values[-1])
        return f"{line.label} goes from {first} at step {line.steps[0]:g} to {last} at step {line.steps[-1]:g}"

    return f"Line chart. {curve.title}: " + "; ".join(words(line) for line in curve.series) + "."
