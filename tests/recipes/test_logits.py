# SPDX-License-Identifier: Apache-2.0
"""Nowhere are logits of all positions made, `(B, T, V)`: not while sampling, not in a scoring pass, not in SFT."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, OmniSFTConfig, OmniSFTTrainer, PromptEncoder
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.rollout import sampler
from omni_grpo.rollout.answers import generate
from small_runs import SMALL_RUN, length_reward

HIDDEN, TILE = 32, 16  # the head's own weight has as many rows of the vocabulary as the model is wide


class Rows(TorchDispatchMode):
    """The most rows of `vocabulary` entries that any operation returns, backward passes included."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.most = vocabulary, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor) and tensor.ndim > 1 and tensor.size(-1) == self.vocabulary:
                self.most = max(self.most, tensor.numel() // self.vocabulary)
        return output


@pytest.fixture
def watched(tiny, settings, tmp_path):
    """Model, encoder, fields of a run, and the watch; TRL's head works in small tiles here."""
    model = load_model(tiny)
    fields = {**SMALL_RUN, "output_dir": str(tmp_path), "per_device_train_batch_size": 24, "max_steps": 1}
    with mock.patch("trl.kernels.chunked_logprob.TOKEN_CHUNK_SIZE", TILE):
        yield model, PromptEncoder(load_processor(tiny), settings), fields, Rows(model.lm_head.out_features)


@pytest.mark.parametrize("share_prompt", ["auto", "off"])
def test_grpo_makes_no_logits_of_all_positions(watched, mixed, share_prompt):
    """24 rows of 12 tokens and prompts of 40 to 80. Mutants: scoring through the model's `logits`; a whole prefill."""
    model, encoder, fields, rows = watched
    args = OmniGRPOConfig(**fields, num_generations=4, max_completion_length=12, beta=0.1, share_prompt=share_prompt)
    trainer = OmniGRPOTrainer(model, [length_reward], args, mixed, encoder=encoder)
    with rows:
        trainer.train()
    assert 24 <= rows.most <= HIDDEN, "a row of each completion while sampling, a tile while scoring"


def test_sft_and_evaluation_make_none(watched, mixed):
    model, encoder, fields, rows = watched
    trainer = OmniSFTTrainer(
        model, OmniSFTConfig(**fields | {"per_device_train_batch_size": 8}), mixed, encoder=encoder
    )
    with rows:
        trainer.train()
    assert 0 < rows.most <= HIDDEN
    model.eval()
    prompts = [encoder(row["prompt"], row["id"]) for row in mixed][:6]  # all different: prefilled by `generate` itself
    with rows:
        generate(model, encoder.processor, trainer.media_embedder, prompts, 2)
    assert rows.most <= HIDDEN
    with rows, mock.patch.object(sampler, "is_token_by_token", lambda _: False):
        generate(model, encoder.processor, trainer.media_embedder, prompts, 2)
    assert rows.most > 6 * HIDDEN, "the watch sees what the thinker would make of the prompts"
