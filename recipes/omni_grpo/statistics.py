# SPDX-License-Identifier: Apache-2.0
"""Intervals and paired tests for evaluation scores. NumPy only; the same seed gives the same numbers.

All intervals are two-sided and 95 % unless `confidence` says otherwise. A score is one number an item, larger is
better; a 0/1 score is 1 for a right answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "Difference",
    "accuracy_interval",
    "bootstrap_interval",
    "mcnemar",
    "paired_bootstrap",
    "pooled_paired_bootstrap",
    "wilson_interval",
]

_CHUNK = 2_000_000  # numbers held at once while resampling: 16 MB of float64
_SMALL_SAMPLE = 200  # below it 0/1 scores take Wilson's interval


class Difference(NamedTuple):
    """Mean of `a` minus mean of `b`, its 95 % interval, and the number of items; positive means that `a` is better."""

    difference: float
    ci95: tuple[float, float]
    n: int


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
    z = NormalDist().inv_cdf(0.5 + _checked_confidence(confidence) / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # Rounding may miss the exact ends 0 and 1 by 1e-17.
    return min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half))


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
    items = _scores(values, "values")

    def resample(rng: np.random.Generator, rows: int) -> np.ndarray:
        return np.asarray(statistic(items[rng.integers(0, len(items), size=(rows, len(items)))], axis=1))

    return _percentiles(resample, len(items), n_resamples, seed, confidence)


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
    items = _scores(scores, "scores")
    constant = bool((items == items[0]).all())
    if _is_binary(items) and (len(items) < _SMALL_SAMPLE or constant):
        return wilson_interval(int(items.sum()), len(items), confidence)
    return bootstrap_interval(items, seed=seed, confidence=confidence)


def paired_bootstrap(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, n_resamples: int = 10_000, seed: int = 0
) -> Difference:
    """
    Mean of `a - b` over the same items in the same order, with the percentile bootstrap over items.

    Items are resampled with both their scores, so what makes an item hard for both does not widen the interval.

    Raises:
        ValueError: if the lengths differ, or either is empty, not one-dimensional or not finite.

    Source: Efron and Tibshirani (1993), chapters 8 and 13.

    >>> paired_bootstrap([1, 1, 1], [0, 0, 0])
    Difference(difference=1.0, ci95=(1.0, 1.0), n=3)
    """
    difference = _differences(a, b)
    ci95 = bootstrap_interval(difference, n_resamples=n_resamples, seed=seed)
    return Difference(float(difference.mean()), ci95, len(difference))


def mcnemar(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    r"""
    Exact two-sided p-value of McNemar's test: small when `a` and `b` differ in accuracy on the same items.

    Of the $m$ items that exactly one of the two gets right, `a` wins $k \sim \mathrm{Binomial}(m, 1/2)$ if neither is
    better: $p = \min(1, 2 P(K \le \min(k, m-k)))$, and 1 when $m = 0$. Computed in integers, without rounding.

    Raises:
        ValueError: if the lengths differ, or either is empty or holds something else than 0 and 1.

    Source: Q. McNemar (1947), "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12; the exact form is the sign test.

    >>> mcnemar([1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0])
    0.0625
    """
    difference = _differences(a, b)
    for name, scores in (("a", a), ("b", b)):
        if not _is_binary(np.asarray(scores, dtype=float)):
            raise ValueError(f"{name} must hold only 0 and 1")
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    tail = sum(math.comb(wins + losses, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2 ** (wins + losses))


def pooled_paired_bootstrap(
    pairs: Sequence[tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]],
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    r"""
    Mean of `a - b` over several training seeds scored on the same items, with items and seeds both resampled.

    With $D$ of shape `(S, n)`, one row of differences a seed, each resample draws $n$ items (shared by all seeds, so
    the answers of S models to one item are not taken for S items) and $S$ seeds, and averages the crossed cells. With
    one seed it is the paired bootstrap. It errs on the wide side for the items and, with very few seeds, on the narrow
    side for the spread between seeds (by $(S-1)/S$ in variance): report the seeds beside it.

    Args:
        pairs (`Sequence[tuple[Sequence[float], Sequence[float]]]`):
            One `(a, b)` a seed; all of one length, in the same order of items.

    Raises:
        ValueError: if `pairs` is empty, lengths differ, or a score is not finite.

    Source: A. B. Owen (2007), "The pigeonhole bootstrap", Annals of Applied Statistics 1.

    >>> pooled_paired_bootstrap([([1, 1], [0, 0]), ([1, 1], [0, 0])])
    Difference(difference=1.0, ci95=(1.0, 1.0), n=2)
    """
    if not pairs:
        raise ValueError("pairs must hold at least one (a, b)")
    rows = [_differences(a, b) for a, b in pairs]
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"all seeds must score the same items, got lengths {[len(row) for row in rows]}")
    differences = np.stack(rows)  # (S, n)
    num_seeds, n = differences.shape

    def resample(rng: np.random.Generator, size: int) -> np.ndarray:
        seeds = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=size) / num_seeds  # (r, S)
        items = rng.multinomial(n, np.full(n, 1 / n), size=size) / n  # (r, n)
        return ((seeds @ differences) * items).sum(axis=1)

    ci95 = _percentiles(resample, n, n_resamples, seed, 0.95)
    return Difference(float(differences.mean()), ci95, n)


def _percentiles(
    resample: Callable[[np.random.Generator, int], np.ndarray], n: int, n_resamples: int, seed: int, confidence: float
) -> tuple[float, float]:
    tail = (1 - _checked_confidence(confidence)) / 2
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1, got {n_resamples}")
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // n)
    sizes = [min(step, n_resamples - start) for start in range(0, n_resamples, step)]
    low, high = np.quantile(np.concatenate([resample(rng, size) for size in sizes]), [tail, 1 - tail])
    return float(low), float(high)


def _differences(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> np.ndarray:
    first, second = _scores(a, "a"), _scores(b, "b")
    if len(first) != len(second):
        raise ValueError(f"a and b must score the same items, got {len(first)} and {len(second)}")
    return first - second


def _scores(values: Sequence[float] | np.ndarray, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a non-empty one-dimensional sequence, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite")
    return array


def _is_binary(scores: np.ndarray) -> bool:
    return bool(np.isin(scores, (0.0, 1.0)).all())


def _checked_confidence(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    return confidence
