# SPDX-License-Identifier: Apache-2.0
"""What `benchmarks/long_run.py` calls growth, and its page."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import long_run
import pytest

from omni_rewards import sections

RESULTS = Path(long_run.__file__).parent / "results" / "long_run.md"


@pytest.mark.parametrize("leak", [0.0, 1.0])
def test_a_leak_shows_and_noise_does_not(leak):
    """Mutants: a slope by sample and not by step; an interval that noise alone leaves."""
    noise = random.Random(0)
    found = long_run.growth([1000 + leak * step / 1000 + noise.gauss(0, 0.1) for step in range(0, 2000, 20)], every=20)
    assert found["ci95"][0] < leak < found["ci95"][1]
    assert long_run.grows(found) == bool(leak)


def test_the_texts_that_are_remembered_take_their_last_room_within_the_warm_up():
    """As CPython's table of so many grows when the oldest goes for each new one. Mutant: as many steps as fill it."""
    most, table, sizes = sections._read_and_remember.cache_parameters()["maxsize"], {}, []
    for text in range(20 * most):
        table.pop(text - most, None)
        table[text] = None
        sizes.append(sys.getsizeof(table))
    last = sizes.index(max(sizes)) + 1
    assert most < last < long_run.WARM_UP * long_run.TEXTS_A_STEP, "fewer, as some texts come twice"
    assert f"the {last:,}rd text" in RESULTS.read_text()


def test_a_log_event_is_what_it_holds_alone():
    """Mutants: a list's own bytes; keys that all events share counted for each."""
    one = [{"loss": 1.5}]
    assert long_run.log_event_bytes(one) == sum(map(sys.getsizeof, (one[0], "loss", 1.5)))
    assert long_run.log_event_bytes(one * 4) == long_run.log_event_bytes(one) / 4


def test_the_page_shows_its_figures():
    assert long_run.table(json.loads(RESULTS.with_suffix(".json").read_text())) == RESULTS.read_text()
