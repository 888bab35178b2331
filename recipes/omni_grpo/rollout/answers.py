# SPDX-License-Identifier: Apache-2.0
"""Answers with their text and time, for evaluation, for `ask_omni.py` and for SFT's validation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from omni_grpo.data.encoding.inputs import EncodedPrompt
from omni_grpo.families import family_of_processor, tokenizer_of
from omni_grpo.model.towers import MediaEmbedder
from omni_grpo.rollout.sampler import GenerateSampler, Sampler

BACKENDS = ("generate", "vllm")  # what answers: see `GenerateSampler` and `omni_grpo.rollout.vllm.answering`
# Decoding that leaves the model's distribution as it is; what is not named is off.
GREEDY: dict[str, Any] = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
PLAIN_SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "typical_p": 1.0}


@dataclass(frozen=True)
class Completion:
    """Text of one completion, its length in tokens (end token included), its share of the batch's seconds, its tokens."""

    text: str
    num_tokens: int
    seconds: float
    truncated: bool
    token_ids: Sequence[int] = ()


def decoding_settings(max_new_tokens: int, **asked: Any) -> dict[str, Any]:
    """
    All that decides how [`generate`] decodes: greedy, or what is `asked`, which is neutral where it says nothing.

    >>> decoding_settings(8, do_sample=True, temperature=0.7)["top_k"]
    0
    """
    neutral = {**GREEDY, **PLAIN_SAMPLING} if asked.get("do_sample") else GREEDY
    return {**neutral, "max_new_tokens": max_new_tokens, **asked}


def end_tokens(model: Any, processor: Any) -> set[int]:
    """Tokens that end a completion."""
    ends = model.generation_config.eos_token_id
    return {*(ends if isinstance(ends, list) else [ends]), tokenizer_of(processor).eos_token_id} - {None}


@torch.no_grad()
def generate(
    model: Any,
    processor: Any,
    embedder: MediaEmbedder,
    rows: Sequence[EncodedPrompt],
    max_new_tokens: int,
    engine: Sampler | None = None,
    **generation_kwargs: Any,
) -> list[Completion]:
    """
    Complete a batch of prompts by [`decoding_settings`]: greedy unless `generation_kwargs` says otherwise, whatever the
    checkpoint's own `generation_config.json` says.

    Args:
        model (`PreTrainedModel`): In evaluation mode.
        processor (`ProcessorMixin`): Its processor.
        embedder ([`MediaEmbedder`]): The one attached to `model`; the pass is held to the media of `rows`.
        rows (sequence of [`EncodedPrompt`]): Prompts.
        max_new_tokens (`int`): Longest completion, in tokens.
        engine ([`Sampler`], *optional*): What samples; the model's own `generate` by default.
        **generation_kwargs: As of transformers' `generate`.
    """
    tokenizer, ends = tokenizer_of(processor), end_tokens(model, processor)
    sampler = engine or GenerateSampler(
        embedder, tokenizer.pad_token_id, ends, family_of_processor(processor).control_ids(processor)
    )
    start = time.perf_counter()
    asked = {"disable_compile": True, **decoding_settings(max_new_tokens, **generation_kwargs)}
    sampled = sampler(model, embedder.encode(model, rows, model.device), **asked)
    seconds = (time.perf_counter() - start) / len(rows)
    texts = tokenizer.batch_decode(sampled.completion_ids, skip_special_tokens=True)
    return [
        Completion(text, len(ids), seconds, ids[-1] not in ends, ids)
        for text, ids in zip(texts, sampled.completion_ids, strict=True)
    ]
