# SPDX-License-Identifier: Apache-2.0
"""A prompt with its features as a request of vLLM's, past vLLM's own processing of media."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from omni_grpo.data.encoding.inputs import EncodedPrompt
from omni_grpo.data.media.settings import MediaError
from omni_grpo.rollout.vllm.installed import from_vllm

LONGEST = 1024  # placeholders of an item; vLLM has room for so many as it computes in a step, 4096 in TRL


@dataclass(frozen=True)
class Request:
    """
    What stands where TRL hands on images.

    Args:
        prompt (`Any`): vLLM's input, from [`engine_input`].
        name (`str`): The row's, for errors.
        seed (`int`): Of what is sampled.
    """

    prompt: Any
    name: str
    seed: int = 0


def runs(ids: Sequence[int], placeholders: Mapping[str, int]) -> Iterator[tuple[str, int, int]]:
    """(modality, start, end) of each run of one placeholder, in order, cut to [`LONGEST`]; interleaved sound has many."""
    modality_of = {token: modality for modality, token in placeholders.items()}
    start = 0
    for end in range(1, len(ids) + 1):
        if end == len(ids) or ids[end] != ids[start] or end - start == LONGEST:
            if ids[start] in modality_of:
                yield modality_of[ids[start]], start, end
            start = end


def engine_input(prompt: EncodedPrompt, positions: torch.Tensor | None, placeholders: Mapping[str, int]) -> Any:
    """
    What vLLM's processor would have made of a prompt: an item for each of its runs of placeholders.

    An item is known by its features and, for the first, by the positions of all media: vLLM can take neither a feature
    of older weights nor a prefix whose positions were others for the same.

    Args:
        prompt ([`EncodedPrompt`]): With `features`.
        positions (`Tensor` `(3, P)`, *optional*): Of its tokens; needed where it has media.
        placeholders (`Mapping[str, int]`): Token id by modality.

    Raises:
        `MediaError`: The features of a modality are not as many as its placeholders; the row is named.
    """
    used = dict.fromkeys(placeholders, 0)
    parts: dict[str, list[tuple[Any, str, Any]]] = {}
    found = list(runs(prompt.input_ids, placeholders))
    for modality, start, end in found:
        rows = prompt.features.get(modality)
        part = torch.empty(0) if rows is None else rows[used[modality] :][: end - start]
        used[modality] += end - start
        part = part.detach().flatten(1).cpu().contiguous() if part.ndim > 1 else part
        data, seen = {"features": _field(part)}, [part]
        if not parts and positions is not None:  # kept on the CPU: others are taken away where the prefix is known
            data["positions"] = _field(positions, keep_on_cpu=True)
            seen.append(positions[:, : found[-1][2]].contiguous())
        digest = hashlib.blake2b(digest_size=16)
        for tensor in seen:
            digest.update(tensor.view(torch.uint8).numpy().tobytes())
        item = from_vllm("multimodal.inputs:MultiModalKwargsItem")(data)
        place = from_vllm("multimodal.inputs:PlaceholderRange")(start, end - start)
        parts.setdefault(modality, []).append((item, digest.hexdigest(), place))
    brought = {m: len(rows) for m in placeholders if (rows := prompt.features.get(m)) is not None}
    if {m: n for m, n in used.items() if n} != brought:
        raise MediaError(f"row {prompt.name!r}: placeholders {used} for vLLM, features {brought}")
    ids = list(prompt.input_ids)
    if not parts:
        return from_vllm("inputs.engine:tokens_input")(ids)
    items, hashes, places = ({m: [part[i] for part in own] for m, own in parts.items()} for i in range(3))
    kwargs = from_vllm("multimodal.inputs:MultiModalKwargsItems")(items)
    return from_vllm("inputs.engine:mm_input")(ids, kwargs, hashes, places)


def _field(data: torch.Tensor, keep_on_cpu: bool = False) -> Any:
    batched = from_vllm("multimodal.inputs:MultiModalBatchedField")(keep_on_cpu=keep_on_cpu)
    return from_vllm("multimodal.inputs:MultiModalFieldElem")(data=data, field=batched)
