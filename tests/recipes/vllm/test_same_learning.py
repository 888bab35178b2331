# SPDX-License-Identifier: Apache-2.0
"""A run that samples by vLLM learns what a run of `generate` would from the same completions, and draws as it would."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from omni_grpo.families import base_of, family_of_processor, head_of
from omni_grpo.model.loading import load_model
from omni_grpo.rollout.sampler import Sampled
from vllm_runs import BASE, watched

pytestmark = pytest.mark.vllm
FROZEN = {"freeze_vision": True, "freeze_audio": True}


class Replayed:
    """Gives what another run has sampled, step by step."""

    constraint = None

    def __init__(self, sampled):
        self.sampled = iter(sampled)

    def __call__(self, model, prompts, **asked):
        return Sampled(next(self.sampled).completion_ids)


def weights(trainer):
    return [p.detach().clone() for p in trainer.model.parameters()]


def test_the_same_completions_teach_the_same(rows, tmp_path):
    """To rounding. Mutants: vLLM's log-probabilities taken for the policy's old ones; a correction that weighs tokens."""
    fields = {"max_steps": 4, "learning_rate": 1e-3, "optim": "sgd", **FROZEN}
    fast = watched(tmp_path / "vllm", rows, **fields)
    before = weights(fast)
    fast.train()
    plain = watched(tmp_path / "generate", rows, use_vllm=False, **fields)
    plain.sampler = Replayed(fast.sampler.sampled)
    plain.train()
    moved = sum(float((a - b).square().sum()) for a, b in zip(weights(fast), before, strict=True))
    apart = sum(float((a - b).square().sum()) for a, b in zip(weights(fast), weights(plain), strict=True))
    assert moved > 0 and apart < 1e-6 * moved


@torch.no_grad()
def surprise(trainer, prompt, completion):
    """
    Sum over a completion of each token's log-probability and its entropy at that place, and the variance of that: where
    tokens are drawn as the policy gives them, its mean is zero.
    """
    forbidden = family_of_processor(trainer.processing_class).control_ids(trainer.processing_class)
    ids, row = torch.tensor([[*prompt.input_ids, *completion]]), replace(prompt, features={})
    types = trainer.media_embedder.family.types(base_of(trainer.model), ids)
    with trainer.media_embedder.expecting([row]):
        logits = head_of(trainer.model)(
            input_ids=ids, attention_mask=torch.ones_like(ids), **prompt.media, **types
        ).logits
    logits = logits[0, len(prompt.input_ids) - 1 : -1].double()
    logits[:, forbidden] = -torch.inf
    logs = logits.log_softmax(-1)
    shares = logs.exp()
    logs = logs.masked_fill(shares == 0, 0.0)
    entropy = -(shares * logs).sum(-1)
    drawn = logs.gather(-1, torch.tensor(completion)[:, None])[:, 0]
    return float((drawn + entropy).sum()), float(((shares * logs.square()).sum(-1) - entropy.square()).sum())


def test_tokens_are_drawn_as_the_policy_gives_them(rows, tmp_path):
    """Mutants: a temperature of 0.9; the twenty likeliest tokens alone; one seed for all requests of a step."""
    one_draw = {"per_device_train_batch_size": 12, "steps_per_generation": 1, "gradient_accumulation_steps": 1}
    unsure: Any = load_model(str(BASE), dtype="float32")
    unsure.lm_head.weight.data *= 0.4
    trainer = watched(tmp_path, rows, unsure, learning_rate=0.0, max_steps=8, **one_draw, **FROZEN)
    found, own = [], trainer.sampler

    class Looked:
        constraint = None

        def __call__(self, model, prompts, **asked):
            sampled = own.sampler(model, prompts, **asked)
            pairs = zip(prompts, sampled.completion_ids, strict=True)
            found.extend(surprise(trainer, prompt, ids) for prompt, ids in pairs)
            texts.append({tuple(ids) for ids in sampled.completion_ids})
            return sampled

    texts: list = []
    trainer.sampler = Looked()
    trainer.model.eval()
    trainer.train()
    score = sum(s for s, _ in found) / math.sqrt(sum(v for _, v in found))
    assert len(found) >= 96 and abs(score) < 4, score
    assert len(set().union(*texts)) > 0.8 * len(found), "completions are drawn one by one"
