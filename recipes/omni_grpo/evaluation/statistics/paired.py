# SPDX-License-Identifier: Apache-2.0
"""Two runs over the same items: paired bootstrap, McNemar's test, and several training seeds pooled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from omni_grpo.evaluation.statistics.intervals import bootstrap_interval
from omni_grpo.evaluation.statistics.resampling import checked_scores, differences, is_binary, percentiles


class Difference(NamedTuple):
    """Mean of `a` minus mean of `b`, its 95 % interval, and the number of items; positive means that `a` is better."""

    difference: float
    ci95: tuple[float, float]
    n: int


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
    difference = differences(a, b)
    ci95 = bootstrap_interval(difference, n_resamples=n_resamples, seed=seed)
    return Difference(float(difference.mean()), ci95, len(difference))


def mcnemar(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    r"""
    Exact two-sided p-value of McNemar's test: small when `a` and `b` differ in accuracy on the same items.

    Of the $m$ items that exactly one of the two gets right, `a` wins $k \sim \mathrm{Binomial}(m, 1/2)$ if neither is
    better: $p = \min(1, 2 P(K \le \min(k, m-k)))$, and 1 when $m = 0$.

    Raises:
        ValueError: if the lengths differ, or either is empty or holds something else than 0 and 1.

    Source: Q. McNemar (1947), "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12; the exact form is the sign test.

    >>> mcnemar([1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0])
    0.0625
    """
    difference = differences(a, b)
    for name, scores in (("a", a), ("b", b)):
        if not is_binary(np.asarray(scores, dtype=float)):
            raise ValueError(f"{name} must hold only 0 and 1")
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


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
    return Difference(*_pooled([differences(a, b) for a, b in pairs], n_resamples, seed))


def pooled_bootstrap(
    scores: Sequence[Sequence[float] | np.ndarray], n_resamples: int = 10_000, seed: int = 0
) -> tuple[float, tuple[float, float], int]:
    """
    Mean score over several training seeds on the same items, its 95 % interval, and the number of items.

    Items and seeds are both resampled, as in [`pooled_paired_bootstrap`], with the same limits.

    Args:
        scores (`Sequence[Sequence[float]]`): One sequence a seed; all of one length, in the same order of items.

    Raises:
        ValueError: if `scores` is empty, lengths differ, or a score is not finite.

    Source: A. B. Owen (2007), "The pigeonhole bootstrap", Annals of Applied Statistics 1.

    >>> pooled_bootstrap([[1, 1], [1, 1]])
    (1.0, (1.0, 1.0), 2)
    """
    if not scores:
        raise ValueError("scores must hold at least one seed")
    return _pooled([checked_scores(row, "scores") for row in scores], n_resamples, seed)


def _pooled(rows: Sequence[np.ndarray], n_resamples: int, seed: int) -> tuple[float, tuple[float, float], int]:
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"all seeds must score the same items, got lengths {[len(row) for row in rows]}")
    values = np.stack(rows)  # (S, n)
    num_seeds, n = values.shape

    def resample(rng: np.random.Generator, size: int) -> np.ndarray:
        seeds = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=size) / num_seeds  # (r, S)
        items = rng.multinomial(n, np.full(n, 1 / n), size=size) / n  # (r, n)
        return ((seeds @ values) * items).sum(axis=1)

    return float(values.mean()), percentiles(resample, n, n_resamples, seed, 0.95), n
