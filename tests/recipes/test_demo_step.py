# SPDX-License-Identifier: Apache-2.0
"""`make bench-demo` on a tiny model: both paths, their times and their learning curves."""

from __future__ import annotations

import json

import demo_step
import pytest
from step_clock import StepTimes


def test_both_paths_are_run_and_their_curves_agree(tiny, mixed_file, tmp_path, capsys):
    """Mutants: one path run twice; steps of one round paired with those of another."""
    results = tmp_path / "demo_step.md"
    fields = {
        "model_name_or_path": tiny,
        "train_file": mixed_file,
        "reward_funcs": "small_runs.length_reward",
        "reward_weights": "1.0",
        "credit_map": "uniform",
        "per_device_train_batch_size": "8",
        "num_generations": "4",
        "max_completion_length": "8",
        "num_frames": "2",
        "min_pixels": "3136",
        "max_pixels": "3136",
        "log_completions": "false",
    }
    overrides = [part for name, value in fields.items() for part in (f"--{name}", str(value))]
    demo_step.main(["--steps", "3", "--rounds", "1", "--results", str(results), *overrides])
    found = json.loads(results.with_suffix(".json").read_text())
    assert results.read_text() in capsys.readouterr().out
    assert [len(found["curves"][path]) for path in ("plain", "fast")] == [3, 3]
    assert found["curves"]["plain"][0]["grad_norm"] > 0
    assert found["sampled_apart_at"] == [None] and found["repeats_itself"]
    assert found["largest_difference"] == found["largest_difference_before"]
    apart = found["largest_difference"]
    assert apart["grad_norm"]["relative"] < 1e-4 and apart["reward"]["difference"] == 0.0
    assert apart["loss"]["difference"] < 1e-6, "of completions of one length, whose advantages cancel out"
    assert all(found["encoded_items"]["plain"][m] >= 8 * n for m, n in found["encoded_items"]["fast"].items())
    step = found["step"]
    assert step["n"] == 2 and step["baseline_s"] > 0
    parts = [found[part]["baseline_s"] for part in StepTimes._fields]
    assert parts[0] == pytest.approx(sum(parts[1:]), rel=0.05), "medians of two are means"


def turn(plain: list[float], fast: list[float], sampled: str = "abc") -> dict:
    def run(seconds, sampled):
        times = [StepTimes(s, s / 2, s / 4, s / 4) for s in seconds]
        curves = [{"loss": float(ord(c)), "reward": 0.0} for c in sampled]
        return {"times": times, "sampled": list(sampled), "curves": curves, "encoded": {}}

    return {"plain": run(plain, "abc"), "fast": run(fast, sampled)}


def test_the_first_step_is_left_out_of_the_ratios_alone():
    found = demo_step.summary([turn([9, 4, 4], [9, 2, 2]), turn([9, 4, 4], [9, 2, 2])])
    assert found["step"]["ratio"] == pytest.approx(2.0) and found["step"]["n"] == 4
    assert found["all_steps"] == pytest.approx(34 / 26)
    assert found["sampled_apart_at"] == [None, None] and found["repeats_itself"]


def test_curves_that_come_apart_say_from_which_step():
    found = demo_step.summary([turn([1, 1, 1], [1, 1, 1], "abz")])
    assert found["sampled_apart_at"] == [3]
    assert [row["difference"] for row in found["largest_difference_before"].values()] == [0.0, 0.0]
    assert found["largest_difference"]["loss"]["relative"] == pytest.approx((ord("z") - ord("c")) / ord("c"))
    at_once = demo_step.summary([turn([1, 1, 1], [1, 1, 1], "zbc")])
    assert at_once["sampled_apart_at"] == [1] and not at_once["largest_difference_before"]
