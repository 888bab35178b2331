# SPDX-License-Identifier: Apache-2.0
"""Intervals against their defining equations, exact coverage, and relations that hold for any scores."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_grpo.evaluation import statistics
from omni_grpo.evaluation.statistics import (
    accuracy_interval,
    bootstrap_interval,
    intervals,
    mcnemar,
    paired,
    paired_bootstrap,
    pooled_bootstrap,
    pooled_paired_bootstrap,
    resampling,
    wilson_interval,
)

Z95 = 1.959963984540054
counts = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
binary = st.lists(st.integers(0, 1), min_size=1, max_size=40)
binary_pairs = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40)


@pytest.mark.parametrize("module", [intervals, paired, resampling], ids=lambda module: module.__name__)
def test_docstring_examples_hold(module):
    assert doctest.testmod(module).failed == 0


class TestWilson:
    @given(counts)
    def test_ends_solve_the_defining_quadratic(self, case):
        """At both ends n (p̂ - p)² = z² p (1 - p). Catches the Wald interval and a lost z²/4n²."""
        k, n = case
        for end in wilson_interval(k, n):
            assert n * (k / n - end) ** 2 == pytest.approx(Z95**2 * end * (1 - end), abs=1e-9)

    @given(counts)
    def test_right_and_wrong_mirror_each_other(self, case):
        k, n = case
        low, high = wilson_interval(k, n)
        mirrored_low, mirrored_high = wilson_interval(n - k, n)
        assert (low, high) == pytest.approx((1 - mirrored_high, 1 - mirrored_low), abs=1e-12)

    @given(counts)
    def test_contains_the_proportion_and_has_a_width(self, case):
        k, n = case
        low, high = wilson_interval(k, n)
        assert 0 <= low <= k / n <= high <= 1
        assert high - low > 0

    @pytest.mark.parametrize("p", [0.2, 0.5, 0.85])
    @pytest.mark.parametrize("n", [30, 120])
    def test_exact_coverage(self, n, p):
        """The probability, summed over all outcomes, that the interval holds the true p."""
        covered = 0.0
        for k in range(n + 1):
            low, high = wilson_interval(k, n)
            covered += math.comb(n, k) * p**k * (1 - p) ** (n - k) * (low <= p <= high)
        assert 0.92 <= covered <= 0.98

    def test_more_confidence_is_wider(self):
        narrow, wide = wilson_interval(7, 20, confidence=0.8), wilson_interval(7, 20, confidence=0.99)
        assert wide[0] < narrow[0] < narrow[1] < wide[1]

    @pytest.mark.parametrize(("k", "n"), [(0, 0), (-1, 5), (6, 5)])
    def test_impossible_counts_are_refused(self, k, n):
        with pytest.raises(ValueError, match=r"successes|at least 1"):
            wilson_interval(k, n)


class TestBootstrap:
    def test_two_values_have_a_known_distribution(self):
        """Resamples of {0, 1} average 0, 1/2, 1 with chances 1/4, 1/2, 1/4."""
        assert bootstrap_interval([0.0, 1.0]) == (0.0, 1.0)
        assert bootstrap_interval([0.0, 1.0], confidence=0.4) == (0.5, 0.5)

    def test_agrees_with_the_normal_interval_of_a_large_sample(self):
        values = np.random.default_rng(0).normal(3.0, 2.0, size=2_000)
        half = Z95 * values.std() / math.sqrt(len(values))
        low, high = bootstrap_interval(values)
        assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.08 * half)

    def test_coverage_in_simulation(self):
        rng = np.random.default_rng(1)
        samples = rng.exponential(size=(300, 60))
        hits = sum(low <= 1.0 <= high for low, high in (bootstrap_interval(x, n_resamples=400) for x in samples))
        assert 0.88 <= hits / len(samples) <= 0.98

    @pytest.mark.parametrize(("n", "p"), [(200, 0.5), (200, 0.25), (400, 0.8)])
    def test_accuracy_intervals_hold_the_truth_in_93_to_97_of_100_simulated_runs(self, n, p):
        """1,000 runs each. Mutants: the 90 % quantiles, an interval of the items' spread in place of the mean's."""
        runs = np.random.default_rng(4).random((1_000, n)) < p
        ends = [bootstrap_interval(run, n_resamples=600, seed=i) for i, run in enumerate(runs)]
        low, high = np.array(ends).T
        assert 0.93 <= np.mean((low <= p) & (p <= high)) <= 0.97

    def test_the_seed_decides(self):
        values = np.random.default_rng(2).random(50)
        assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
        assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)

    def test_chunks_cover_every_resample(self, monkeypatch):
        """Small chunks give an interval of the same distribution. Catches a dropped last chunk."""
        values, sizes = np.random.default_rng(2).random(50), []
        monkeypatch.setattr(resampling, "_CHUNK", 50 * 300)
        chunked = bootstrap_interval(values, statistic=lambda x, axis: sizes.append(len(x)) or x.mean(axis=axis))
        assert sum(sizes) == 10_000 and max(sizes) == 300
        monkeypatch.undo()
        assert chunked == pytest.approx(bootstrap_interval(values), abs=0.01)

    def test_other_statistics(self):
        low, high = bootstrap_interval(np.arange(101.0), statistic=np.median)
        assert 30 < low < 50 < high < 70

    @pytest.mark.parametrize("values", [[], [[1.0]], [1.0, math.nan]])
    def test_what_is_not_a_sample_is_refused(self, values):
        with pytest.raises(ValueError, match="values must be"):
            bootstrap_interval(values)


class TestAccuracy:
    @given(binary)
    def test_small_binary_samples_take_wilson(self, scores):
        assert accuracy_interval(scores) == wilson_interval(sum(scores), len(scores))

    def test_large_or_partial_scores_take_the_bootstrap(self):
        large, partial = [0, 1, 1] * 100, [0.5, 1.0, 0.0, 0.25]
        assert accuracy_interval(large) == bootstrap_interval(large)
        assert accuracy_interval(partial) == bootstrap_interval(partial)

    def test_all_right_is_not_certainty(self):
        """Catches the bootstrap of a constant, which is [1, 1] at any size."""
        low, high = accuracy_interval([1] * 500)
        assert 0.98 < low < high == 1.0


class TestPaired:
    @settings(max_examples=25)
    @given(binary_pairs)
    def test_swapping_turns_the_sign(self, pairs):
        a, b = zip(*pairs, strict=True)
        forward, backward = paired_bootstrap(a, b, n_resamples=200), paired_bootstrap(b, a, n_resamples=200)
        assert forward.difference == -backward.difference
        assert forward.ci95 == pytest.approx((-backward.ci95[1], -backward.ci95[0]))

    def test_pairing_removes_what_the_items_share(self):
        """Two models that move together: the paired interval is far narrower than that of the two means."""
        rng = np.random.default_rng(0)
        hardness = rng.normal(0, 10, size=200)
        a, b = hardness + 1 + rng.normal(0, 1, 200), hardness + rng.normal(0, 1, 200)
        low, high = paired_bootstrap(a, b, n_resamples=1_000).ci95
        a_low, a_high = bootstrap_interval(a, n_resamples=1_000)
        assert high - low < 0.2 * (a_high - a_low)
        assert low < 1 < high

    @pytest.mark.parametrize("compare", [paired_bootstrap, mcnemar])
    def test_unequal_lengths_are_refused(self, compare):
        with pytest.raises(ValueError, match="same items, got 3 and 2"):
            compare([1, 0, 1], [1, 0])


class TestMcNemar:
    @pytest.mark.parametrize(
        ("wins", "losses", "p"), [(0, 0, 1.0), (5, 0, 2 / 32), (3, 1, 2 * 5 / 16), (2, 2, 1.0), (9, 1, 2 * 11 / 1024)]
    )
    def test_closed_forms(self, wins, losses, p):
        a = [1] * wins + [0] * losses + [1, 0] * 7
        b = [0] * wins + [1] * losses + [1, 0] * 7
        assert mcnemar(a, b) == pytest.approx(p)

    @given(binary_pairs)
    def test_symmetric_and_blind_to_ties(self, pairs):
        a, b = zip(*pairs, strict=True)
        assert mcnemar(a, b) == mcnemar(b, a) == mcnemar((*a, 1, 0), (*b, 1, 0))
        assert 0 < mcnemar(a, b) <= 1

    def test_false_alarms_stay_below_the_level(self):
        rng = np.random.default_rng(5)
        p = [mcnemar(rng.integers(0, 2, 80), rng.integers(0, 2, 80)) for _ in range(400)]
        assert np.mean(np.array(p) < 0.05) < 0.075

    def test_thousands_of_items_neither_overflow_nor_round_to_nan(self):
        assert 0 < mcnemar([1] * 1_000 + [0] * 1_400, [0] * 1_000 + [1] * 1_400) < 1e-12

    def test_partial_scores_are_refused(self):
        with pytest.raises(ValueError, match="b must hold only 0 and 1"):
            mcnemar([1, 0], [0.5, 1])


class TestPooled:
    rng = np.random.default_rng(7)
    a, b = rng.integers(0, 2, 120), rng.integers(0, 2, 120)

    def test_copies_of_one_seed_bring_no_information(self):
        """Ten times the same answers must not narrow the interval. Catches pooling by concatenation."""

        def width(result: statistics.Difference) -> float:
            return result.ci95[1] - result.ci95[0]

        one = paired_bootstrap(self.a, self.b)
        copies = pooled_paired_bootstrap([(self.a, self.b)] * 10)
        concatenated = paired_bootstrap(np.tile(self.a, 10), np.tile(self.b, 10))
        assert copies.difference == pytest.approx(one.difference)
        assert width(copies) == pytest.approx(width(one), rel=0.06)
        assert width(concatenated) < 0.4 * width(one)

    def test_seeds_that_disagree_widen_it(self):
        """One seed gains 1 on every item, one loses 1: the truth is unknown. Catches resampling items alone."""
        ones, zeros = np.ones(120), np.zeros(120)
        assert pooled_paired_bootstrap([(ones, zeros), (zeros, ones)]).ci95 == pytest.approx((-1.0, 1.0), abs=1e-12)

    def test_independent_seeds_narrow_it(self):
        rng = np.random.default_rng(3)
        pairs = [(rng.random(100) < 0.7, rng.random(100) < 0.6) for _ in range(8)]
        pooled, single = pooled_paired_bootstrap(pairs).ci95, paired_bootstrap(*pairs[0]).ci95
        assert pooled[1] - pooled[0] < 0.8 * (single[1] - single[0])

    def test_the_order_of_seeds_changes_nothing_but_noise(self):
        pairs = [(np.roll(self.a, k), self.b) for k in range(3)]
        forward, backward = pooled_paired_bootstrap(pairs), pooled_paired_bootstrap(pairs[::-1])
        assert forward.difference == pytest.approx(backward.difference)
        assert forward.ci95 == pytest.approx(backward.ci95, abs=0.02)

    @pytest.mark.parametrize("pairs", [[], [([1, 0], [0, 0]), ([1], [0])]])
    def test_different_items_are_refused(self, pairs):
        with pytest.raises(ValueError, match=r"at least one|same items"):
            pooled_paired_bootstrap(pairs)

    def test_pooled_means_are_pooled_differences_from_nothing(self):
        """The same resamples, so the same interval to the last digit."""
        seeds = [np.roll(self.a, k) for k in range(3)]
        assert pooled_bootstrap(seeds) == tuple(pooled_paired_bootstrap([(s, np.zeros(120)) for s in seeds]))

    def test_seeds_that_disagree_widen_the_mean(self):
        """Catches the bootstrap over items of the seeds' average, which has no width here."""
        mean, (low, high), n = pooled_bootstrap([np.ones(50), np.zeros(50)])
        assert (mean, n) == (0.5, 50) and low == pytest.approx(0) and high == pytest.approx(1)

    @pytest.mark.parametrize("scores", [[], [[1, 0], [1]]])
    def test_pooled_means_need_the_same_items(self, scores):
        with pytest.raises(ValueError, match=r"at least one|same items"):
            pooled_bootstrap(scores)
