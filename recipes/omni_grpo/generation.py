# SPDX-License-Identifier: Apache-2.0
"""Batched generation for evaluation and for `ask_omni.py`; the prompts are RL's, token for token."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from omni_grpo.encoding.inputs import EncodedPrompt, media_control_ids
from omni_grpo.model.towers import MediaEmbedder
from omni_grpo.sharing.prefill import shared_prefill


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
        model (`PreTrainedModel`): Thinker in evaluation mode.
        processor (`ProcessorMixin`): Its processor.
        embedder ([`MediaEmbedder`]): The one attached to `model`; the pass is held to the media of `rows`.
        rows (sequence of [`EncodedPrompt`]): Prompts.
        max_new_tokens (`int`): Longest completion, in tokens.
    """
    tokenizer = processor.tokenizer
    longest = max(len(row.input_ids) for row in rows)
    ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):  # left padding
        ids[i, longest - len(row.input_ids) :] = torch.tensor(row.input_ids)
        mask[i, longest - len(row.input_ids) :] = 1
    start = time.perf_counter()
    with shared_prefill(model, embedder, rows):
        output = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=max_new_tokens,
            suppress_tokens=media_control_ids(processor),
            disable_compile=True,
            **{"do_sample": False, **generation_kwargs},
        )
    seconds = (time.perf_counter() - start) / len(rows)
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
    completions = []
    for new in output[:, longest:].tolist():
        stop = next((i for i, token in enumerate(new) if token in ends), None)
        kept = new if stop is None else new[: stop + 1]
        text = tokenizer.decode(kept, skip_special_tokens=True)
        completions.append(Completion(text, len(kept), seconds, stop is None))
    return completions
