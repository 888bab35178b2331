# SPDX-License-Identifier: Apache-2.0
"""What `benchmarks/long_run.py` calls growth, and its page."""

from __future__ import annotations

import json
import random
from pathlib import Path

import long_run
import pytest

RESULTS = Path(long_run.__file__).parent / "results" / "long_run.md"


@pytest.mark.parametrize("leak", [0.0, 1.0])
def test_a_leak_shows_and_noise_does_not(leak):
    """Mutants: a slope by sample and not by step; an interval that noise alone leaves."""
    noise = random.Random(0)
    found = long_run.growth([1000 + leak * step / 1000 + noise.gauss(0, 0.1) for step in range(0, 2000, 20)], every=20)
    assert found["ci95"][0] < leak < found["ci95"][1]
    assert long_run.grows(found) == bool(leak)


def test_the_page_shows_its_figures():
    assert long_run.table(json.loads(RESULTS.with_suffix(".json").read_text())) == RESULTS.read_text()
