# SPDX-License-Identifier: Apache-2.0
"""How many times faster, from pairs of times that were taken in turns."""

from __future__ import annotations

from statistics import median
from typing import Any

import numpy as np


def ratio(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    """Geometric mean of paired ratios first : second, its 95 % bootstrap interval, and both medians in seconds."""
    logs = np.log([a / b for a, b in pairs])
    rng = np.random.default_rng(0)
    means = rng.choice(logs, (2000, len(logs))).mean(axis=1)
    low, high = np.exp(np.quantile(means, [0.025, 0.975]))
    return {
        "ratio": float(np.exp(logs.mean())),
        "ci95": [float(low), float(high)],
        "baseline_s": median(a for a, _ in pairs),
        "ours_s": median(b for _, b in pairs),
        "n": len(pairs),
    }


def cell(figure: dict[str, Any]) -> str:
    low, high = figure["ci95"]
    return f"{figure['ratio']:.2f} [{low:.2f}, {high:.2f}]"
