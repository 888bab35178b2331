# SPDX-License-Identifier: Apache-2.0
"""The figure of `make bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

COLOURS = ("#0b5394", "#b45f06", "#38761d")  # of the ratios P : C


def plot(results: dict[str, Any], works: list[str], path: Path) -> None:
    """Speed-up of the update over G, a line for each ratio, with its token bound."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    ratios = sorted({row["ratio"] for row in results["rows"]}, reverse=True)
    names = [name for name in works if any(row["work"] == name for row in results["rows"])]
    figure, axes = plt.subplots(1, len(names), figsize=(5 * len(names), 3.6), squeeze=False, sharey=True)
    for axis, name in zip(axes[0], names, strict=True):
        for colour, times in zip(COLOURS, ratios, strict=False):
            rows = [row for row in results["rows"] if row["work"] == name and row["ratio"] == times]
            groups = [row["group"] for row in rows]
            values = [row["update"]["ratio"] for row in rows]
            spread = np.array([row["update"]["ci95"] for row in rows]).T
            axis.errorbar(groups, values, np.abs(spread - values), color=colour, marker="o", capsize=3)
            axis.plot(groups, [row["token_bound"] for row in rows], color=colour, linestyle=":")
            axis.annotate(
                f"P : C = {times} : 1", (groups[-1], values[-1]), (6, 0), textcoords="offset points", color=colour
            )
        axis.set(title=name, xlabel="completions of a prompt, G", xticks=groups, xlim=(3, 23))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("update, times faster (dotted: token bound)")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
