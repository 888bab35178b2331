# SPDX-License-Identifier: Apache-2.0
"""
A prompt computed once, however many completions are drawn from it.

`generate` is given every prompt as often as it is to be answered and would compute each. Here distinct prompts go
through the model without their last token, their cache is repeated, and `generate` goes on from it: with the same ids,
mask and positions, so that in float32 the same tokens are sampled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from omni_grpo.data.encoding.inputs import EncodedPrompt
from omni_grpo.families import base_of

# What `generate` is asked for, and what each must be for each prompt, its media with it, to be seen once and whole.
ONCE = {
    "num_beams": (None, 1),
    "num_return_sequences": (None, 1),
    "use_cache": (None, True),
    "prefill_chunk_size": (None,),
    "guidance_scale": (None, 1),
}
# And for the cache to be repeated by us.
PLAIN = {
    **ONCE,
    "cache_implementation": (None, "dynamic"),
    "past_key_values": (None,),
    "inputs_embeds": (None,),
    "position_ids": (None,),
    "assistant_model": (None,),
    "custom_generate": (None,),
}


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


def obstacle(model: Any, asked: Mapping[str, Any]) -> str | None:
    """Why the prompt's cache cannot be repeated for what `generate` is asked; the same on every process."""
    configs = (asked.get("generation_config"), model.generation_config)
    for name, plain in PLAIN.items():
        values = (asked.get(name), *(getattr(config, name, None) for config in configs))
        if (value := next((v for v in values if v is not None), None)) not in plain:
            return f"{name} is {value if isinstance(value, (int, str)) else 'given'}"
    if any(isinstance(value, torch.Tensor) for value in asked.values()):
        return "inputs beside the prompts and their media are given"
    if drops_out(model):
        return "dropout is on, and would be drawn once for all completions of a prompt"
    return None


def drops_out(model: nn.Module) -> bool:
    """Whether two passes of the model on the same inputs differ."""
    return any(isinstance(m, nn.Dropout) and m.p > 0 and m.training for m in model.modules())


def prefill(
    model: Any, inputs: Mapping[str, torch.Tensor], media: Mapping[str, torch.Tensor], index: Sequence[int]
) -> dict[str, Any] | None:
    """
    What `generate` goes on from, one a row: cache and positions; `None` if the model's cache cannot be repeated.

    Args:
        model (`PreTrainedModel`): Model.
        inputs (`Mapping[str, Tensor]`): `input_ids`, `attention_mask` and the like `(D, P)` of the distinct prompts.
        media (`Mapping[str, Tensor]`): Their media.
        index (sequence of `int`): The place of each row's prompt.
    """
    rows = torch.tensor(index, device=inputs["input_ids"].device)
    positions = model._prepare_position_ids_for_generation(inputs["input_ids"], {**inputs, **media})  # (…, D, P)
    width = inputs["input_ids"].size(1)
    end = width - 1 if width > 1 else width  # a prompt of one token is computed all the same: other processes wait
    shortened = {name: values[:, :end] for name, values in inputs.items()}
    with last_position_alone(model):
        output = model(**shortened, **media, position_ids=positions[..., :end], use_cache=True)
    cache: Any = getattr(output, "past_key_values", None)
    if not hasattr(cache, "reorder_cache"):
        return None
    base = base_of(model)
    if getattr(base, "rope_deltas", None) is not None:
        base.rope_deltas = base.rope_deltas[rows]
    repeated: dict[str, Any] = {"position_ids": positions.index_select(-2, rows)}
    if end < width:
        cache.reorder_cache(rows)
        repeated["past_key_values"] = cache
    return repeated


@contextmanager
def last_position_alone(model: Any) -> Iterator[None]:
    """Within: the head is given one position of each row; the model would make the prompts' logits, `(B, P, V)`, too."""
    cut = model.get_output_embeddings().register_forward_pre_hook(lambda _, given: (given[0][:, -1:], *given[1:]))
    try:
        yield
    finally:
        cut.remove()


def is_token_by_token(asked: Mapping[str, Any]) -> bool:
    """Whether `generate` reads the last position alone; a drafted continuation is checked at several."""
    config = asked.get("generation_config")
    names = ("assistant_model", "custom_generate", "prompt_lookup_num_tokens")
    return all(asked.get(name) is None and getattr(config, name, None) is None for name in names)
