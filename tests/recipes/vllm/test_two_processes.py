# SPDX-License-Identifier: Apache-2.0
"""vLLM within each of two processes, their policy sharded by DeepSpeed: each samples from the whole, newest weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import mixed_rows
from script_runs import GRPO, GRPO_FIELDS, start, write_config

pytestmark = [pytest.mark.vllm, pytest.mark.xdist_group("processes")]

BASE = Path(__file__).parents[3] / "recipes/checkpoints/demo_base"


@pytest.mark.parametrize("shards", ["zero2", "zero3"])
def test_what_is_sampled_is_what_is_scored(clips, tmp_path, shards):
    """
    By the run's own meter, at every step, on mixed rows. Mutants: weights sent once; a shard sent for the whole; a tower
    that runs on one rank alone (which hangs).
    """
    rows = tmp_path / "mixed.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in mixed_rows(clips, 16)))
    fields = {
        **GRPO_FIELDS,
        "model_name_or_path": str(BASE),
        "train_file": str(rows),
        "media_root": str(clips),
        "use_vllm": True,
        "vllm_max_model_length": 320,
        "num_iterations": 1,
        "steps_per_generation": 1,
        "beta": 0.0,
        "max_completion_length": 12,
        "max_steps": 4,
        "learning_rate": 1e-2,
    }
    start(GRPO, *write_config(tmp_path / "run", fields), accelerate=shards, timeout=900)
    logged = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    apart = [line["agreement/max"] for line in logged if "agreement/max" in line]
    assert len(apart) == 4 and 0 < max(apart) <= 1e-5, apart
    assert all(line["grad_norm"] > 0 for line in logged if "loss" in line)
