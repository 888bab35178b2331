# SPDX-License-Identifier: Apache-2.0
"""How far bfloat16 puts log-probabilities off on a CPU, packed and plain: packing may not make it worse."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from family_oracle import Oracle, random_batch
from omni_grpo.scoring import packed_attention
from omni_grpo.scoring.packing import pack_rows

SEEDS, GROUP, TOKENS = 3, 4, 16
ALLOWED = 1.5  # times the plain error


@pytest.fixture(params=["qwen2_5_omni", "qwen3_omni"])
def oracle(request, make):
    """With weights larger than drawn, so that attention matters and tokens differ in probability; as it was afterwards."""
    found: Oracle = make(request.param)
    model = found.trainer.model
    kept = [value.clone() for value in (*model.parameters(), *model.buffers())]  # a state leaves rotary buffers out
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "language_model.layers" in name:
                parameter.mul_(3)
            if "lm_head" in name:
                parameter.mul_(10)
    yield found
    model.float()
    with torch.no_grad():
        for value, before in zip((*model.parameters(), *model.buffers()), kept, strict=True):
            value.copy_(before)


@torch.no_grad()
def errors(oracle: Oracle, seeds: int, during_packed: Any = None) -> list[dict[str, float]]:
    """Mean distance of log-probabilities from those of float32, in nats a token, for each seed of the completions."""
    scorer, model = oracle.trainer.scorer, oracle.trainer.model
    prompts = [prompt for prompt in oracle.batch.prompts[::2] for _ in range(GROUP)]
    lengths = [TOKENS] * len(prompts)
    processor = oracle.trainer.encoder.processor
    batches = [random_batch(prompts, processor, lengths, torch.Generator().manual_seed(seed)) for seed in range(seeds)]
    exact = [scorer.score(model.float(), batch).logps for batch in batches]
    model.bfloat16()
    plain = [scorer.score(model, batch).logps for batch in batches]
    if during_packed:
        during_packed()
    packed = [scorer.score(model, batch, pack_rows(model, *batch)).logps for batch in batches]
    mean = [[(a.float() - b).abs().mean().item() for a, b in zip(way, exact, strict=True)] for way in (plain, packed)]
    return [{"plain": a, "packed": b} for a, b in zip(*mean, strict=True)]


def test_packing_adds_nothing_to_the_error_of_bfloat16(oracle):
    for seed, error in enumerate(errors(oracle, SEEDS)):
        print(f"seed {seed}: plain {error['plain']:.4f}, packed {error['packed']:.4f} nats a token")
        assert error["plain"] > 1e-3, "rounding is seen"
        assert error["packed"] <= ALLOWED * error["plain"]


def test_packed_attention_with_fewer_bits_is_found(oracle, monkeypatch):
    """Power: attention over blocks that keeps three bits of its output where bfloat16 has seven."""

    def rounded(*args, attend=packed_attention.sdpa_attention_forward, **kwargs):
        states, weights = attend(*args, **kwargs)
        return states.to(torch.float8_e4m3fn).to(states.dtype), weights

    (error,) = errors(oracle, 1, lambda: monkeypatch.setattr(packed_attention, "sdpa_attention_forward", rounded))
    assert error["packed"] > ALLOWED * error["plain"]
