# SPDX-License-Identifier: Apache-2.0
"""What intervals and tests share: resamples in chunks, their quantiles, and the checks of scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

_CHUNK = 2_000_000  # numbers held at once while resampling: 16 MB of float64


def percentiles(
    resample: Callable[[np.random.Generator, int], np.ndarray], n: int, n_resamples: int, seed: int, confidence: float
) -> tuple[float, float]:
    """Quantiles of the statistics that `resample(generator, rows)` gives, shape `(rows,)`, over `n_resamples` rows."""
    tail = (1 - checked_confidence(confidence)) / 2
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1, got {n_resamples}")
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // n)
    sizes = [min(step, n_resamples - start) for start in range(0, n_resamples, step)]
    low, high = np.quantile(np.concatenate([resample(rng, size) for size in sizes]), [tail, 1 - tail])
    return float(low), float(high)


def differences(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> np.ndarray:
    """`a - b`, shape `(n,)`; refused if they do not score the same items."""
    first, second = checked_scores(a, "a"), checked_scores(b, "b")
    if len(first) != len(second):
        raise ValueError(f"a and b must score the same items, got {len(first)} and {len(second)}")
    return first - second


def checked_scores(values: Sequence[float] | np.ndarray, name: str) -> np.ndarray:
    """`values` as an array of shape `(n,)`; refused if empty, of another shape or not finite."""
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a non-empty one-dimensional sequence, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite")
    return array


def is_binary(scores: np.ndarray) -> bool:
    """Whether every score is 0 or 1."""
    return bool(np.isin(scores, (0.0, 1.0)).all())


def checked_confidence(confidence: float) -> float:
    """`confidence`; refused outside `(0, 1)`."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    return confidence
