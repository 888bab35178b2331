# SPDX-License-Identifier: Apache-2.0
"""Curves drawn with matplotlib: SVG inside the page in both of its themes, PNG files for papers and chats."""

from __future__ import annotations

import base64
import re
from functools import cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from omni_grpo.report.curves import Curve, Series
from omni_grpo.report.figures import short

MAX_POINTS = 400  # of a line; the running mean is taken before thinning
DASHES: tuple[Any, ...] = ("-", (0, (7, 4)), (0, (2, 4)), (0, (9, 3, 2, 3)), (0, (12, 5)), (0, (4, 2, 4, 6)))


@cache
def palettes() -> list[dict[str, str]]:
    """Name -> colour of the light and of the dark theme, from page.css."""
    css = files("omni_grpo.report").joinpath("page.css").read_text(encoding="utf-8")
    return [dict(re.findall(r"--([\w-]+): (#\w{6})", root)) for root in re.findall(r":root \{(.*?)\}", css, re.DOTALL)]


def draw(curve: Curve, width: float, height: float) -> Any:
    """
    A `matplotlib.figure.Figure` of a curve, `width` x `height` inches, on light paper, without title and legend.

    Raises:
        ImportError: if matplotlib is missing; it comes with `omni-grpo[train]`.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("curves need matplotlib: pip install 'omni-grpo[train]'") from error
    colours = palettes()[0]
    figure = Figure(figsize=(width, height), dpi=150)
    axes = figure.add_subplot()
    for line in curve.series:
        style: dict[str, Any] = {"color": colours[line.tone], "label": line.label, "markersize": 3.5}
        if line.held_out:
            axes.plot(line.steps, line.values, "o:", linewidth=1, **style)
            continue
        kept = _kept(line)
        if line.window > 1:
            axes.plot(np.take(line.steps, kept), np.take(line.values, kept), color=style["color"], alpha=0.3, lw=0.7)
        style |= {"linestyle": DASHES[line.dash], "marker": "o" if len(line.steps) == 1 else None}
        axes.plot(np.take(line.steps, kept), line.smooth[kept], linewidth=1.5, **style)
    low, high = axes.get_ylim()  # of the lines: a wide band at an end does not flatten them
    for line in (line for line in curve.series if line.window > 1):
        kept = _kept(line)
        edges = (line.smooth - line.reach)[kept], (line.smooth + line.reach)[kept]
        axes.fill_between(np.take(line.steps, kept), *edges, color=colours[line.tone], alpha=0.16, linewidth=0)
    axes.set_ylim((-0.02, 1.02) if curve.share else (min(0.0, low), max(0.0, high)))
    axes.grid(axis="y", color=colours["rule"], linewidth=0.7)
    axes.tick_params(colors=colours["muted"], labelsize=9, length=0)
    axes.spines[:].set_visible(False)
    return figure


def _kept(line: Series) -> np.ndarray:
    """Places of at most `MAX_POINTS` events, the last among them."""
    return np.unique(np.linspace(0, len(line.steps) - 1, MAX_POINTS).round().astype(int))


def addresses(curve: Curve) -> list[str]:
    """A curve as SVG on transparent ground, for the light and the dark theme, as `data:` addresses."""
    import matplotlib

    drawn = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": curve.name, "svg.fonttype": "none"}):
        figure = draw(curve, 4.4, 2.3)
        figure.subplots_adjust(left=0.1, right=0.98, top=0.94, bottom=0.12)
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = re.sub(r"(?<![>\d−])(\d+\.\d\d)\d+", r"\1", drawn.getvalue().decode())  # of places, not of labels
    light, dark = palettes()
    darker = {colour: dark[name] for name, colour in light.items()}
    themes = (svg, re.sub(r"#\w{6}", lambda found: darker.get(found[0], found[0]), svg))
    return ["data:image/svg+xml;base64," + base64.b64encode(theme.encode()).decode() for theme in themes]


def save_plots(curves: list[Curve], folder: Path) -> list[Path]:
    """Writes one PNG a curve (900 x 480 px, light paper) into `folder` and returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for curve in curves:
        figure = draw(curve, 6, 3.2)
        figure.set_layout_engine("constrained")
        figure.axes[0].set_title(curve.title, loc="left", fontsize=10)
        figure.axes[0].set_xlabel("step", fontsize=9)
        figure.legend(loc="outside lower left", ncols=4, frameon=False, fontsize=8)
        paths.append(folder / f"{curve.name}.png")
        figure.savefig(paths[-1], metadata={"Software": None})
    return paths


def in_words(curve: Curve) -> str:
    """A curve for those who cannot see it."""

    def words(line: Series) -> str:
        first, last = short(line.values[0]), short(line.values[-1])
        return f"{line.label} goes from {first} at step {line.steps[0]:g} to {last} at step {line.steps[-1]:g}"

    return f"Line chart. {curve.title}: " + "; ".join(map(words, curve.series)) + "."
