# SPDX-License-Identifier: Apache-2.0
"""Answers with their text and time, for evaluation, for `ask_omni.py` and for SFT's validation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from omni_grpo.encoding.inputs import EncodedPrompt
from omni_grpo.families import family_of_processor
from omni_grpo.model.towers import MediaEmbedder
from omni_grpo.rollout.sampler import GenerateSampler


@dataclass(frozen=True)
class Completion:
    """Text of one completion, its length in tokens (end token included) and its share of the batch's seconds."""

    text: str
    num_tokens: int
    seconds: float
    truncated: bool


@torch.no_grad()
def generate(
    model: Any,
    processor: Any,
    embedder: MediaEmbedder,
    rows: Sequence[EncodedPrompt],
    max_new_tokens: int,
    **generation_kwargs: Any,
) -> list[Completion]:
    """
    Complete a batch of prompts; greedy unless `generation_kwargs` says otherwise.

    Args:
        model (`PreTrainedModel`): In evaluation mode.
        processor (`ProcessorMixin`): Its processor.
        embedder ([`MediaEmbedder`]): The one attached to `model`; the pass is held to the media of `rows`.
        rows (sequence of [`EncodedPrompt`]): Prompts.
        max_new_tokens (`int`): Longest completion, in tokens.
    """
    tokenizer, ends = processor.tokenizer, model.generation_config.eos_token_id
    ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id}
    sampler = GenerateSampler(
        embedder, tokenizer.pad_token_id, ends, family_of_processor(processor).control_ids(processor)
    )
    start = time.perf_counter()
    asked = {"do_sample": False, "max_new_tokens": max_new_tokens, "disable_compile": True, **generation_kwargs}
    sampled = sampler(model, embedder.encode(model, rows, model.device), **asked)
    seconds = (time.perf_counter() - start) / len(rows)
    texts = tokenizer.batch_decode(sampled.completion_ids, skip_special_tokens=True)
    return [
        Completion(text, len(ids), seconds, ids[-1] not in ends)
        for text, ids in zip(texts, sampled.completion_ids, strict=True)
    ]
