# SPDX-License-Identifier: Apache-2.0
"""
The policy's weights under vLLM's names, adapters added on the way.

TRL merges adapters into the base, sends it, and takes them out again: in bfloat16 each time another rounding error stays
in the base, and in the reference, which is the base. Here W + ΔW is computed beside W, which is never written to.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from peft.tuners.lora import Embedding, Linear
from peft.tuners.tuners_utils import BaseTunerLayer

from omni_grpo.families import head_of


def renamed(
    weights: Iterable[tuple[str, torch.Tensor]], names: Mapping[str, str]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Those whose names begin as `names` says, under the names that it gives; the towers' are left out."""
    for name, tensor in weights:
        for here, there in names.items():
            if name.startswith(here):
                yield there + name.removeprefix(here), tensor
                break


def check_weights(model: Any) -> None:
    """
    Raises:
        `NotImplementedError`: W + ΔW is not all that an adapter does, W is quantised, or experts are routed.
    """
    if getattr(head_of(model).config.get_text_config(), "num_experts", None):
        raise NotImplementedError(
            "use_vllm: routed experts arrived changed in vLLM 0.32 when they were sent; set `use_vllm: false`"
        )
    for name, layer in model.named_modules():
        if isinstance(layer, BaseTunerLayer):
            lora: Any = layer
            if type(layer) not in (Linear, Embedding) or any(lora.use_dora.values()) or any(lora.lora_bias.values()):
                raise NotImplementedError(
                    f"use_vllm: the adapter at {name} is no plain LoRA on a layer that is not quantised; set "
                    "`use_vllm: false`"
                )


def merged(model: Any, gather: Callable[[list[Any]], Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """
    Names and weights of the model without its adapters, each with what they add to it.

    Args:
        model (`PeftModel`): With LoRA that [`check_weights`] accepts.
        gather (`Callable`): Makes parameters whole within a context, on all processes together (ZeRO-3).
    """
    layers = {id(m.get_base_layer().weight): m for m in model.modules() if isinstance(m, BaseTunerLayer)}
    for name, parameter in model.named_parameters():
        if model.prefix in name or "original_module" in name:
            continue
        layer: Any = layers.get(id(parameter))
        adapters = [p for n, p in layer.named_parameters() if model.prefix in n] if layer else []
        with gather([parameter, *adapters]), torch.no_grad():
            tensor: Any = parameter.data
            if layer is not None:
                deltas = (layer.get_delta_weight(adapter).float() for adapter in layer.active_adapters)
                tensor = functools.reduce(torch.add, deltas, tensor.float()).to(tensor.dtype)
            bare = name.removeprefix("base_model.model.").replace(".base_layer", "")
            yield bare.replace("modules_to_save.default.", ""), tensor
