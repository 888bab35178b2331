# SPDX-License-Identifier: Apache-2.0
"""What is particular to an architecture: one object a family. The rest of the package asks it."""

from __future__ import annotations

from typing import Any

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from omni_grpo.families.family import MODALITIES, Family, tokenizer_of
from omni_grpo.families.gemma import GEMMA4
from omni_grpo.families.qwen_audio import QWEN2_AUDIO
from omni_grpo.families.qwen_omni import QWEN2_5_OMNI, QWEN3_OMNI
from omni_grpo.families.qwen_vl import QWEN2_5_VL, QWEN3_5, QWEN3_VL, QWEN3_VL_MOE
from omni_grpo.families.text import TEXT

__all__ = [
    "FAMILIES",
    "MODALITIES",
    "Family",
    "base_of",
    "family_of",
    "family_of_config",
    "family_of_processor",
    "head_of",
    "tokenizer_of",
]

FAMILIES: tuple[Family, ...] = (
    QWEN2_5_OMNI,
    QWEN3_OMNI,
    QWEN2_5_VL,
    QWEN3_VL,
    QWEN3_VL_MOE,
    QWEN3_5,
    GEMMA4,
    QWEN2_AUDIO,
    TEXT,  # last: known by what it lacks
)


def family_of_config(config: Any, name: str = "the model") -> Family:
    """
    The family of a checkpoint's configuration.

    Raises:
        `ValueError`: The model type belongs to none; the message lists those that do.
    """
    for family in FAMILIES:
        if family.has_config(config):
            return family
    known = ", ".join(known for family in FAMILIES for known in family.model_types)
    raise ValueError(f"{name} is a {config.model_type!r} checkpoint; supported are {known}")


def family_of_processor(processor: Any) -> Family:
    """
    The family of a processor.

    Raises:
        `ValueError`: Its class belongs to none.
    """
    for family in FAMILIES:
        if family.has_processor(processor):
            return family
    known = ", ".join(known for family in FAMILIES for known in family.processors)
    raise ValueError(f"{type(processor).__name__} is no processor of a supported model; supported are {known}")


def family_of(model: nn.Module) -> Family:
    """
    The family of a model in memory, through any PEFT or engine wrapping.

    Raises:
        `ValueError`: It is a model of another architecture.
    """
    within = model.get_base_model() if isinstance(model, PeftModel) else model
    found = next((module for module in within.modules() if isinstance(module, PreTrainedModel)), within)
    for family in FAMILIES:
        if family.has_model(found):
            return family
    known = ", ".join(f"`{family.model_class}`" for family in FAMILIES)
    raise ValueError(
        f"the model is a {type(found).__name__}; supported are {known}, from `load_model`, or as the `thinker` of a full "
        "omni model"
    )


def head_of(model: nn.Module) -> Any:
    """The model with its language head, through any PEFT or engine wrapping."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and module.get_output_embeddings() is not None:
            return module
    raise ValueError(f"{type(model).__name__} holds no language model with a head")


def base_of(model: Any) -> Any:
    """The submodule that holds the towers and the language model, without the head."""
    return head_of(model).base_model
