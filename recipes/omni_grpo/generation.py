# SPDX-License-Identifier: Apache-2.0
"""Batched generation for evaluation and for `ask_omni.py`; the prompts are RL's, token for token."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel

from omni_grpo.encoding.inputs import EncodedPrompt, media_control_ids
from omni_grpo.model.loading import token_ids_alone
from omni_grpo.model.towers import MediaEmbedder
from omni_grpo.sharing.prefill import shared_prefill

# Decoding that leaves the model's distribution as it is; what is not named is off.
GREEDY: dict[str, Any] = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
PLAIN_SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "typical_p": 1.0}


@dataclass(frozen=True)
class Completion:
    """Text of one completion, its length in tokens (end token included) and its share of the batch's seconds."""

    text: str
    num_tokens: int
    seconds: float
    truncated: bool


@contextmanager
def cpu_threads(number: int | None) -> Iterator[None]:
    """Within: torch computes with so many threads; `None` leaves them as they are. What is sampled may differ by rounding."""
    before = torch.get_num_threads()
    try:
        if number is not None:
            torch.set_num_threads(number)
        yield
    finally:
        torch.set_num_threads(before)


def decoding_settings(max_new_tokens: int, **asked: Any) -> dict[str, Any]:
    """
    All that decides how [`generate`] decodes: greedy, or what is `asked`, which is neutral where it says nothing.

    >>> decoding_settings(8, do_sample=True, temperature=0.7)["top_k"]
    0
    """
    neutral = {**GREEDY, **PLAIN_SAMPLING} if asked.get("do_sample") else GREEDY
    return {**neutral, "max_new_tokens": max_new_tokens, **asked}


@contextmanager
def explicit_decoding(model: Any) -> Iterator[None]:
    """
    Within: `model.generate` decodes by what it is given alone. A checkpoint's `generation_config.json` would fill in
    all that is not given (penalties, `min_p`, beams, …), unseen; here it says which tokens end and pad, and no more.
    """
    model = model.get_base_model() if isinstance(model, PeftModel) else model
    own = model.generation_config
    model.generation_config = token_ids_alone(own)
    try:
        yield
    finally:
        model.generation_config = own


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
    Complete a batch of prompts by [`decoding_settings`]: greedy unless `generation_kwargs` says otherwise, whatever the
    checkpoint's own `generation_config.json` says.

    Args:
        model (`PreTrainedModel`): Thinker in evaluation mode.
        processor (`ProcessorMixin`): Its processor.
        embedder ([`MediaEmbedder`]): The one attached to `model`; the pass is held to the media of `rows`.
        rows (sequence of [`EncodedPrompt`]): Prompts.
        max_new_tokens (`int`): Longest completion, in tokens.
        **generation_kwargs: As of transformers' `generate`.
    """
    tokenizer = processor.tokenizer
    longest = max(len(row.input_ids) for row in rows)
    ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):  # left padding
        ids[i, longest - len(row.input_ids) :] = torch.tensor(row.input_ids)
        mask[i, longest - len(row.input_ids) :] = 1
    ends = model.generation_config.eos_token_id
    ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None}
    start = time.perf_counter()
    with explicit_decoding(model), shared_prefill(model, embedder, rows):
        output = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            suppress_tokens=media_control_ids(processor),
            eos_token_id=sorted(ends),
            pad_token_id=tokenizer.pad_token_id,
            disable_compile=True,
            **decoding_settings(max_new_tokens, **generation_kwargs),
        )
    seconds = (time.perf_counter() - start) / len(rows)
    completions = []
    for new in output[:, longest:].tolist():
        stop = next((i for i, token in enumerate(new) if token in ends), None)
        kept = new if stop is None else new[: stop + 1]
        text = tokenizer.decode(kept, skip_special_tokens=True)
        completions.append(Completion(text, len(kept), seconds, stop is None))
    return completions
