# SPDX-License-Identifier: Apache-2.0
"""Intervals of one mean: Wilson's and the bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from omni_grpo.evaluation.statistics.resampling import checked_confidence, checked_scores, is_binary, percentiles

_SMALL_SAMPLE = 200  # below it 0/1 scores take Wilson's interval


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    r"""
    Wilson's score interval of a proportion: all $p$ that a normal test at this confidence does not reject.

    $$\frac{\hat p + z^2/2n \pm z\sqrt{\hat p(1-\hat p)/n + z^2/4n^2}}{1 + z^2/n}, \quad \hat p = k/n$$

    It stays within `[0, 1]`, contains $\hat p$, and has a width also for 0 or n successes.

    Args:
        successes (`int`):
            $k$, from 0 to `n`.
        n (`int`):
            Number of items, at least 1.
        confidence (`float`, *optional*, defaults to `0.95`):
            Coverage aimed at, strictly between 0 and 1.

    Raises:
        ValueError: if `n` is below 1, `successes` is outside `[0, n]`, or `confidence` is outside `(0, 1)`.

    Source: E. B. Wilson (1927), "Probable inference, the law of succession, and statistical inference", JASA 22.

    >>> low, high = wilson_interval(8, 10)
    >>> round(low, 3), round(high, 3)
    (0.49, 0.943)
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be from 0 to n={n}, got {successes}")
    ends = binomtest(successes, n).proportion_ci(checked_confidence(confidence), "wilson")
    # Rounding may miss the proportion at the exact ends 0 and 1 by 1e-17.
    return min(successes / n, float(ends.low)), max(successes / n, float(ends.high))


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    statistic: Callable[..., Any] = np.mean,
    n_resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float]:
    r"""
    Percentile bootstrap interval: quantiles $\alpha/2$ and $1-\alpha/2$ of `statistic` over resamples of the items.

    It needs no distribution, but has no width when all values are equal, and is too narrow for a handful of items.

    Args:
        values (`Sequence[float]`):
            One number an item, shape `(n,)`.
        statistic (`Callable`, *optional*, defaults to `np.mean`):
            A NumPy reduction, called as `statistic(resamples, axis=1)` on shape `(r, n)`, giving shape `(r,)`.
        n_resamples (`int`, *optional*, defaults to `10_000`):
            Number of resamples.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the generator.
        confidence (`float`, *optional*, defaults to `0.95`):
            Coverage aimed at, strictly between 0 and 1.

    Raises:
        ValueError: if `values` is empty, not one-dimensional or not finite, or a number is out of range.

    Source: B. Efron and R. J. Tibshirani (1993), "An Introduction to the Bootstrap", chapter 13.

    >>> bootstrap_interval([2.0, 2.0, 2.0])
    (2.0, 2.0)
    """
    items = checked_scores(values, "values")

    def resample(rng: np.random.Generator, rows: int) -> np.ndarray:
        return np.asarray(statistic(items[rng.integers(0, len(items), size=(rows, len(items)))], axis=1))

    return percentiles(resample, len(items), n_resamples, seed, confidence)


def accuracy_interval(
    scores: Sequence[float] | np.ndarray, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """
    Interval of the mean score: Wilson's for fewer than 200 scores of 0 or 1, otherwise the percentile bootstrap.

    0/1 scores that are all equal take Wilson's at any size: the bootstrap of a constant has no width, and 300 right
    answers of 300 do not prove that the accuracy is 1.

    Args:
        scores (`Sequence[float]`):
            One score an item, shape `(n,)`.
        confidence (`float`, *optional*, defaults to `0.95`):
            Coverage aimed at, strictly between 0 and 1.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the bootstrap.

    Raises:
        ValueError: if `scores` is empty, not one-dimensional or not finite, or `confidence` is outside `(0, 1)`.

    >>> accuracy_interval([1, 0, 1, 1]) == wilson_interval(3, 4)
    True
    """
    items = checked_scores(scores, "scores")
    constant = bool((items == items[0]).all())
    if is_binary(items) and (len(items) < _SMALL_SAMPLE or constant):
        return wilson_interval(int(items.sum()), len(items), confidence)
    return bootstrap_interval(items, seed=seed, confidence=confidence)
