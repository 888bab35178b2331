# SPDX-License-Identifier: Apache-2.0
"""Curves as PNG files, for papers and chats."""

from __future__ import annotations

from pathlib import Path

from omni_grpo.report.curves import TONES, Curve


def save_plots(curves: list[Curve], folder: Path) -> list[Path]:
    """Writes one PNG a curve (900 x 480 px, light paper) into `folder` and returns the paths.

    Raises:
        ImportError: if matplotlib is missing; it comes with `omni-grpo[train]`.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'omni-grpo[train]'") from error
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for curve in curves:
        figure = Figure(figsize=(6, 3.2), dpi=150, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)  # no window system, whatever the user's backend
        axes = figure.add_subplot()
        for line in curve.series:
            colour = TONES[line.tone]
            if line.held_out:
                axes.plot(line.steps, line.values, "o--", color=colour, markersize=4, linewidth=1, label=line.label)
                continue
            if line.window > 1:
                axes.plot(line.steps, line.values, color=colour, alpha=0.25, linewidth=0.8)
                low, high = zip(*line.band(), strict=True)
                axes.fill_between(line.steps, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(line.steps, line.smooth(), color=colour, linewidth=1.8, label=line.label)
        axes.set_title(curve.title, loc="left", fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if curve.share:
            axes.set_ylim(-0.02, 1.02)
        figure.legend(loc="outside lower left", ncols=4, frameon=False, fontsize=8)
        paths.append(folder / f"{curve.name}.png")
        figure.savefig(paths[-1], metadata={"Software": None})
    return paths
