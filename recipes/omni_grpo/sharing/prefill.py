# SPDX-License-Identifier: Apache-2.0
"""
Sampling that computes a prompt once, however many completions are drawn from it.

`generate` is given every prompt as often as it is to be answered and would compute each. Here distinct prompts go
through the model without their last token, their cache is repeated, and `generate` goes on from it: with the same ids,
mask and positions, so that in float32 the same tokens are sampled.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import nn
from transformers import DynamicCache

from omni_grpo.encoding.inputs import EncodedPrompt
from omni_grpo.model.tower_calls import find_thinker
from omni_grpo.model.towers import MediaEmbedder

logger = logging.getLogger(__name__)

# What `generate` is asked for, and what each must be for the cache to be repeated by us.
PLAIN = {
    "num_beams": (None, 1),
    "num_return_sequences": (None, 1),
    "use_cache": (None, True),
    "cache_implementation": (None, "dynamic"),
    "prefill_chunk_size": (None,),
    "past_key_values": (None,),
    "inputs_embeds": (None,),
    "position_ids": (None,),
    "assistant_model": (None,),
    "custom_generate": (None,),
}


@contextmanager
def shared_prefill(
    model: Any, embedder: MediaEmbedder, rows: Sequence[EncodedPrompt], share: bool = True
) -> Iterator[None]:
    """
    Within: `model.generate(input_ids=…, attention_mask=…)` is given the media of `rows`, each distinct prompt once.

    Where that cannot be done (beams, a cache that cannot be repeated, dropout that is on), `generate` is called with
    every prompt, and the log says why. With several processes all go one way, also those with no prompt twice: under
    ZeRO-3 they run each forward together.

    Args:
        model (`PreTrainedModel` or `PeftModel`): Its `generate` is replaced.
        embedder ([`MediaEmbedder`]): The one attached to `model`; held to the media of `rows`.
        rows (sequence of [`EncodedPrompt`]): One a row of `input_ids`, padded there on the left.
        share (`bool`, defaults to `True`): Whether to share at all.
    """
    generate = model.generate

    @functools.wraps(generate)
    def wrapped(*, input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any):
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        firsts, index = distinct_prompts(rows)
        if share and (len(firsts) < len(rows) or several_processes()):
            if (reason := _obstacle(model, kwargs)) is None:
                distinct, chosen = [rows[i] for i in firsts], torch.tensor(firsts, device=input_ids.device)
                counted = embedder.placed.copy()
                with embedder.expecting(distinct):
                    media = embedder.inputs(model, distinct, input_ids.device)
                    prefilled = _prefill(model, {k: v[chosen] for k, v in inputs.items()}, media, index)
                if prefilled is not None:
                    embedder.repeat(distinct, index)
                    return generate(**inputs, **prefilled, **kwargs)
                embedder.placed = counted  # the prompts are computed again
                reason = "the model's cache cannot be repeated"
            notice(reason)
        expected = embedder.expecting(rows) if any(row.media for row in rows) else nullcontext()  # beams add rows
        with expected, last_position_alone(model) if _is_token_by_token(kwargs) else nullcontext():
            return generate(**inputs, **embedder.inputs(model, rows, input_ids.device), **kwargs)

    with mock.patch.object(model, "generate", wrapped):
        yield


def several_processes() -> bool:
    """Whether other processes run the model's passes together with this one."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def distinct_prompts(rows: Sequence[EncodedPrompt]) -> tuple[list[int], list[int]]:
    """
    The first row of each distinct prompt, and for every row the place of its own among those.

    Prompts are equal if their tokens and their media are; their groups may be ragged, and need not lie together.
    """
    places: dict[Any, int] = {}
    firsts: list[int] = []
    index = []
    for i, row in enumerate(rows):
        if row.identity not in places:
            places[row.identity] = len(firsts)
            firsts.append(i)
        index.append(places[row.identity])
    return firsts, index


def _obstacle(model: Any, kwargs: dict[str, Any]) -> str | None:
    """Why the prompt's cache cannot be repeated; the same on every process."""
    configs = (kwargs.get("generation_config"), model.generation_config)
    for name, plain in PLAIN.items():
        values = (kwargs.get(name), *(getattr(config, name, None) for config in configs))
        if (value := next((v for v in values if v is not None), None)) not in plain:
            return f"{name} is {value if isinstance(value, (int, str)) else 'given'}"
    if any(isinstance(value, torch.Tensor) for value in kwargs.values()):
        return "inputs beside the prompts and their media are given"
    if any(isinstance(m, nn.Dropout) and m.p > 0 and m.training for m in model.modules()):
        return "dropout is on, and would be drawn once for all completions of a prompt"
    return None


def _prefill(
    model: Any, inputs: dict[str, torch.Tensor], media: dict[str, torch.Tensor], index: Sequence[int]
) -> dict[str, Any] | None:
    """
    What `generate` goes on from: cache and positions, one a row.

    Args:
        model (`PreTrainedModel`): Model.
        inputs (`dict[str, Tensor]`): `input_ids` and `attention_mask` `(D, P)` of the distinct prompts.
        media (`dict[str, Tensor]`): Their media.
        index (sequence of `int`): The place of each row's prompt.
    """
    rows = torch.tensor(index, device=inputs["input_ids"].device)
    positions = model._prepare_position_ids_for_generation(inputs["input_ids"], {**inputs, **media})  # (…, D, P)
    width = inputs["input_ids"].size(1)
    end = width - 1 if width > 1 else width  # a prompt of one token is computed all the same: other processes wait
    shortened = {name: values[:, :end] for name, values in inputs.items()}
    with last_position_alone(model):
        cache = model(**shortened, **media, position_ids=positions[..., :end], use_cache=True).past_key_values
    if not isinstance(cache, DynamicCache) or not all(hasattr(la, "batch_select_indices") for la in cache.layers):
        return None
    thinker = find_thinker(model)
    thinker.rope_deltas = thinker.rope_deltas[rows]
    repeated: dict[str, Any] = {"position_ids": positions.index_select(-2, rows)}
    if end < width:
        cache.batch_select_indices(rows)
        repeated["past_key_values"] = cache
    return repeated


@contextmanager
def last_position_alone(model: Any) -> Iterator[None]:
    """Within: the head is given one position of each row; the thinker would make the prompts' logits, `(B, P, V)`, too."""
    cut = model.get_output_embeddings().register_forward_pre_hook(lambda _, given: (given[0][:, -1:], *given[1:]))
    try:
        yield
    finally:
        cut.remove()


def _is_token_by_token(kwargs: dict[str, Any]) -> bool:
    """Whether `generate` reads the last position alone; a drafted continuation is checked at several."""
    config = kwargs.get("generation_config")
    names = ("assistant_model", "custom_generate", "prompt_lookup_num_tokens")
    return all(kwargs.get(name) is None and getattr(config, name, None) is None for name in names)


@functools.cache
def notice(reason: str) -> None:
    logger.warning("share_prompt: sampling computes every prompt as often as it is answered: %s", reason)
