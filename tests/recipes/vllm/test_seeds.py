# SPDX-License-Identifier: Apache-2.0
"""What is drawn follows from the run's seed, the step, the process and the mode, and from nothing else."""

from __future__ import annotations

import pytest
import torch

from omni_grpo.rollout.vllm.generation import FeatureGeneration
from vllm_runs import watched

pytestmark = pytest.mark.vllm
FROZEN = {"freeze_vision": True, "freeze_audio": True}


def drawn(trainer, **asked):
    trainer.train(**asked)
    return [sampled.completion_ids for sampled in trainer.sampler.sampled]


def weights(trainer):
    return [p.detach().clone() for p in trainer.model.parameters()]


def test_two_runs_of_a_seed_are_one_and_of_two_seeds_are_not(rows, tmp_path):
    a = watched(tmp_path / "a", rows, **FROZEN)
    first = drawn(a)
    b = watched(tmp_path / "b", rows, **FROZEN)  # its start sets the global seed, so it stands behind the first run
    assert drawn(b) == first and all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))
    assert drawn(watched(tmp_path / "c", rows, seed=7, **FROZEN)) != first
    assert any(row != other for step in first for row, other in zip(step[::2], step[1::2], strict=True))


def test_a_cut_run_goes_on_as_if_it_had_not_been(rows, tmp_path):
    saved = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, **FROZEN}
    whole = watched(tmp_path / "whole", rows, **saved)
    steps = drawn(whole)
    cut = watched(tmp_path / "whole", rows, **saved)
    assert drawn(cut, resume_from_checkpoint=str(tmp_path / "whole/checkpoint-2")) == steps[2:]
    assert all(torch.equal(x, y) for x, y in zip(weights(whole), weights(cut), strict=True))


def test_the_engine_leaves_the_global_seed_as_it_was(rows, tmp_path, monkeypatch):
    """vLLM's start sets it to the process's number."""
    seen, start = [], FeatureGeneration._init_vllm

    def watch(self):
        seen.append(torch.get_rng_state())
        start(self)
        seen.append(torch.get_rng_state())

    monkeypatch.setattr(FeatureGeneration, "_init_vllm", watch)
    watched(tmp_path, rows, **FROZEN)
    assert torch.equal(*seen)
