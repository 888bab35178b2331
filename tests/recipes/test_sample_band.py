# SPDX-License-Identifier: Apache-2.0
"""What `benchmarks/sample_band.py` takes for noise, and its page."""

from __future__ import annotations

import json
import random
from itertools import product
from math import prod
from pathlib import Path

import pytest
import sample_band

RESULTS = Path(sample_band.__file__).parent / "results" / "sample_band.md"


def in_band(k: int) -> bool:
    return 1 <= k <= 5


def test_the_expected_leaves_are_those_of_every_way_to_draw_them():
    """Of three rows with four draws each time, counted one by one. Mutant: the second time drawn after the first."""
    narrow, pairs, count = (lambda k: 1 <= k <= 2), [(1, 3), (2, 2), (0, 3)], 4
    chances = []
    for k, other in pairs:
        ways = [draws for draws in product((0, 1), repeat=2 * count) if sum(draws) == k + other]
        left = [draws for draws in ways if narrow(sum(draws[:count])) and not narrow(sum(draws[count:]))]
        chances.append(len(left) / len(ways))
    law = dict.fromkeys(range(4), 0.0)
    for which in product((0, 1), repeat=3):
        law[sum(which)] += prod(c if leaves else 1 - c for c, leaves in zip(chances, which, strict=True))
    found = sample_band.leaves(pairs, count, narrow)
    assert found["expected"] == pytest.approx(sum(chances)) and found["left"] == 1 and found["in_band"] == 2
    assert found["p"] == pytest.approx(law[1] + law[2] + law[3])


def drawn(seed: int, drift: float) -> dict:
    """Two hundred rows of any difficulty, whose chance of being right moves by up to `drift` from one time to the next."""
    noise, pairs = random.Random(seed), []
    for _ in range(200):
        chance = noise.random()
        chances = [chance, min(max(chance + noise.choice((-drift, drift)), 0), 1)]
        pairs.append(tuple(sum(noise.random() < c for _ in range(8)) for c in chances))
    return sample_band.leaves(pairs, 8, in_band)


def test_noise_alone_is_not_unlikely_and_a_change_is():
    """Mutants: the spread of one draw in place of two; leaving counted both ways."""
    honest = [drawn(seed, 0.0) for seed in range(40)]
    assert sum(f["p"] < 0.05 for f in honest) <= 5 and sum(f["p"] > 0.5 for f in honest) >= 10
    apart = sum(f["left"] - f["expected"] for f in honest) / sum(f["sd"] ** 2 for f in honest) ** 0.5
    assert abs(apart) < 3
    assert all(drawn(seed, 0.5)["p"] < sample_band.UNLIKELY for seed in range(5))


def test_the_page_shows_its_figures_and_holds_its_bars():
    """Mutant: figures of another run than the page's."""
    results = json.loads(RESULTS.with_suffix(".json").read_text())
    assert sample_band.table(results) == RESULTS.read_text()
    assert results["leaves"]["p"] >= sample_band.UNLIKELY
    assert max(results["processor_seconds"]) / 2 < 8 * 60, "two quiet cores"
