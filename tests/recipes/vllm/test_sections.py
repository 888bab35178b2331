# SPDX-License-Identifier: Apache-2.0
"""Sections enforced in vLLM: well-formed, in budget, and scored as they were sampled."""

from __future__ import annotations

import pytest
from peft import LoraConfig

from omni_grpo.model.loading import language_model_targets
from omni_rewards import parse_sections
from vllm_runs import watched

pytestmark = pytest.mark.vllm
STRICT = {"constrained_decoding": "strict", "max_completion_length": 64, "freeze_vision": True, "freeze_audio": True}


@pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
def test_sections_within_budgets(rows, tmp_path, adapted):
    targets = language_model_targets(["q_proj", "gate_proj"])
    config = LoraConfig(r=4, lora_alpha=16, target_modules=targets) if adapted else None
    trainer = watched(tmp_path, rows, peft_config=config, section_budgets=[20, 24, 16], **STRICT)
    trainer.train()
    assert len(trainer.sampler.differences) == 3 and max(trainer.sampler.differences) < 1e-5
    tokenizer, schema = trainer.processing_class.tokenizer, trainer.schema
    for sampled in trainer.sampler.sampled:
        assert 0 in {c for row in sampled.chosen for c in row} and 1 in {c for row in sampled.chosen for c in row}
        for ids, logprobs, chosen in zip(sampled.completion_ids, sampled.logprobs, sampled.chosen, strict=True):
            assert parse_sections(tokenizer.decode(ids, skip_special_tokens=True), schema).ok
            assert all(value == 0.0 for value, was_chosen in zip(logprobs, chosen, strict=True) if not was_chosen)


def test_tags_alone(rows, tmp_path):
    trainer = watched(tmp_path, rows, **{**STRICT, "constrained_decoding": "force_tags", "max_completion_length": 24})
    trainer.train()
    assert max(trainer.sampler.differences) < 1e-5
