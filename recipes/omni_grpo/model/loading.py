# SPDX-License-Identifier: Apache-2.0
"""Load a thinker and its processor, freeze towers, and keep LoRA out of them."""

from __future__ import annotations

import copy
import json
import logging
import re
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import (
    AutoConfig,
    AutoProcessor,
    GenerationConfig,
    PreTrainedModel,
    ProcessorMixin,
    Qwen2_5OmniThinkerForConditionalGeneration,
)
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from omni_grpo.model.towers import find_thinker
from omni_grpo.run_record import refuse_unfinished

logger = logging.getLogger(__name__)

SUPPORTED = ("qwen2_5_omni", "qwen2_5_omni_thinker")
LANGUAGE_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# In one nn.Linear name order: PEFT matches a string target as a full regular expression on module names.
LANGUAGE_ONLY = r".*\blanguage_model\.layers\.\d+\.(self_attn|mlp)\.({names})"


def load_model(name_or_path: str, keep_adapter: bool = False, **model_init_kwargs: Any) -> PreTrainedModel:
    """
    The thinker of a Qwen2.5-Omni checkpoint: a thinker's own directory, a full Omni checkpoint whose talker and
    vocoder are left out, or a LoRA adapter's directory, merged into the model that it was trained on.

    Args:
        name_or_path (`str`): Directory or hub name.
        keep_adapter (`bool`, defaults to `False`): Leave an adapter on its base and train it on; nothing is merged.
        **model_init_kwargs: Passed to `from_pretrained` (`dtype`, `attn_implementation`, …).

    Raises:
        `ValueError`: The checkpoint is of another architecture, or lacks weights (transformers would draw new ones), or
            is the folder of a run that did not finish.
    """
    refuse_unfinished(name_or_path)
    adapter = Path(name_or_path) / "adapter_config.json"
    if adapter.is_file():
        base = load_model(json.loads(adapter.read_text())["base_model_name_or_path"], **model_init_kwargs)
        mixed = not is_deepspeed_zero3_enabled()  # which gathers parameters of one type alone
        adapted: Any = PeftModel.from_pretrained(
            base, name_or_path, is_trainable=keep_adapter, autocast_adapter_dtype=mixed
        )
        if keep_adapter:
            return adapted
        merged = adapted.merge_and_unload()
        for parameter in merged.parameters():  # the adapter had frozen them
            parameter.requires_grad_(parameter.is_floating_point())
        merged.config._name_or_path = name_or_path
        return merged
    config = AutoConfig.from_pretrained(name_or_path, revision=model_init_kwargs.get("revision"))
    if config.model_type not in SUPPORTED:
        raise ValueError(f"{name_or_path} is a {config.model_type!r} checkpoint; supported are {', '.join(SUPPORTED)}")
    loaded: Any = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        name_or_path, output_loading_info=True, **model_init_kwargs
    )
    model, loading = loaded
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(f"{name_or_path} lacks {len(missing)} of the thinker's weights: {', '.join(missing[:5])}, …")
    # Loading under ZeRO-3 notes renamings that no weight needed, and saving would undo them all: names that no loader
    # knows ("thinker.model.thinker.…").
    model._weight_conversions = [c for c in getattr(model, "_weight_conversions", None) or [] if c.was_used()]
    try:
        model.generation_config.validate(strict=True)
    except ValueError as error:  # transformers would refuse to save it, after training
        logger.warning("%s: of generation_config.json the token ids alone are kept: %s", name_or_path, error)
        model.generation_config = token_ids_alone(model.generation_config)
    return model


def token_ids_alone(config: GenerationConfig) -> GenerationConfig:
    """Which tokens begin, end and pad, without anything that shapes what is generated."""
    return GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )


def load_processor(name_or_path: str, **kwargs: Any) -> ProcessorMixin:
    """The checkpoint's processor, its tokenizer padding on the left as generation needs."""
    refuse_unfinished(name_or_path)
    processor = AutoProcessor.from_pretrained(name_or_path, **kwargs)
    processor.tokenizer.padding_side = "left"  # as an argument above it would reach the sounds as well
    return processor


def model_to_train(model: Any, args: Any, quantization_config: Any = None) -> Any:
    """
    What a trainer was given as its model: loaded if it is a name, its towers frozen as the configuration says.

    Args:
        model (`str`, `PreTrainedModel` or `PeftModel`): Name, directory or model.
        args (`TrainingArguments`): The trainer's, with [`~omni_grpo.config.TowerArguments`].
        quantization_config (`BitsAndBytesConfig`, *optional*): Of a model that is loaded here.

    Raises:
        `ValueError`: The model is of another architecture, or was loaded before its quantisation was asked for.
    """
    if isinstance(model, str):
        asked = {"quantization_config": quantization_config} if quantization_config is not None else {}
        model = load_model(model, **dict(args.model_init_kwargs or {}), **asked)
        args.model_init_kwargs = None
    elif quantization_config is not None:
        raise ValueError("quantization_config: the model is loaded already; give it to `load_model`, or a name here")
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(base, Qwen2_5OmniThinkerForConditionalGeneration):
        raise ValueError(
            f"the model is a {type(base).__name__}; supported is `Qwen2_5OmniThinkerForConditionalGeneration`, from "
            "`load_model`, or as the `thinker` of a full Qwen2.5-Omni model"
        )
    freeze_towers(model, args.freeze_vision, args.freeze_audio)
    return model


def freeze_towers(model: nn.Module, vision: bool, audio: bool) -> None:
    """Take the vision tower, the audio tower, or both (projectors included) out of training."""
    thinker = find_thinker(model)
    for tower, frozen in ((thinker.visual, vision), (thinker.audio_tower, audio)):
        if frozen:
            tower.requires_grad_(False)


def language_model_targets(names: str | list[str] | None) -> str | list[str]:
    """
    LoRA targets that stay inside the language model.

    `"all-linear"`, and plain names such as `q_proj`, also match the audio tower's layers. A list of plain names (or
    nothing, or `"all-linear"`) becomes a regular expression for the language model alone; a regular expression or
    dotted names are taken as written.

    >>> language_model_targets(["q_proj", "v_proj"])
    '.*\\\\blanguage_model\\\\.layers\\\\.\\\\d+\\\\.(self_attn|mlp)\\\\.(q_proj|v_proj)'
    >>> language_model_targets(["audio_tower.layers.0.self_attn.q_proj"])
    ['audio_tower.layers.0.self_attn.q_proj']
    """
    if names is None or names in ("all-linear", ["all-linear"]):
        names = list(LANGUAGE_LINEARS)
    if isinstance(names, str):
        names = [names]
    if all(re.fullmatch(r"\w+", name) for name in names):
        return LANGUAGE_ONLY.format(names="|".join(names))
    return names if len(names) > 1 or re.fullmatch(r"[\w.]+", names[0]) else names[0]


def copy_weights(model: PreTrainedModel) -> PreTrainedModel:
    """
    An independent copy of a model as it stands, also where ZeRO-3 has scattered its parameters.

    The reference policy is made by this, not from the checkpoint's name: a thinker taken out of a full Omni
    checkpoint cannot be rebuilt from the name, and a model in memory may have none.
    """
    if not any(hasattr(p, "ds_id") for p in model.parameters()):
        return copy.deepcopy(model)
    import deepspeed

    twin = type(model)._from_config(copy.deepcopy(model.config), dtype=model.dtype)  # scattered likewise
    pairs = list(zip(twin.parameters(), model.parameters(), strict=True))
    for target, source in pairs:
        with deepspeed.zero.GatheredParameters([target, source], modifier_rank=0), torch.no_grad():
            if torch.distributed.get_rank() == 0:
                target.data.copy_(source.data)
    for target, source in zip(twin.buffers(), model.buffers(), strict=True):
        target.data.copy_(source.data)
    return twin
