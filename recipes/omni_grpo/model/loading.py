# SPDX-License-Identifier: Apache-2.0
"""Load a model and its processor, freeze towers, and keep LoRA out of them."""

from __future__ import annotations

import copy
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from torch import nn
from transformers import AutoConfig, AutoProcessor, GenerationConfig, PreTrainedModel, ProcessorMixin
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl.trainer import grpo_trainer

from omni_grpo.families import Family, base_of, family_of, family_of_config, tokenizer_of
from omni_grpo.model.run_record import refuse_unfinished

logger = logging.getLogger(__name__)

LANGUAGE_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def load_model(name_or_path: str, keep_adapter: bool = False, **model_init_kwargs: Any) -> PreTrainedModel:
    """
    A model of a family, see [`~omni_grpo.families.FAMILIES`]: its own directory, a full omni checkpoint whose talker and
    vocoder are left out, or a LoRA adapter's directory, merged into the model that it was trained on.

    Under `attn_implementation="flex_attention"`, a model with towers has it in its language model. The towers keep what
    transformers gives them, since they attend within an item or a window alone.

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
    family = family_of_checkpoint(name_or_path, **hub_kwargs(model_init_kwargs))
    # transformers offers it for a few of the classes whose attention takes any.
    flexible = family.modalities and model_init_kwargs.get("attn_implementation") == "flex_attention"
    if flexible:
        del model_init_kwargs["attn_implementation"]
    model_class = getattr(transformers, family.model_class)
    model, loading = model_class.from_pretrained(name_or_path, output_loading_info=True, **model_init_kwargs)
    if flexible:
        base_of(model).config.get_text_config()._attn_implementation = "flex_attention"
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(f"{name_or_path} lacks {len(missing)} of the model's weights: {', '.join(missing[:5])}, …")
    # Loading under ZeRO-3 notes renamings that no weight needed, and saving would undo them all: names that no loader
    # knows ("thinker.model.thinker.…").
    model._weight_conversions = [c for c in getattr(model, "_weight_conversions", None) or [] if c.was_used()]
    try:
        model.generation_config.validate(strict=True)
    except ValueError as error:  # transformers would refuse to save it, after training
        logger.warning("%s: of generation_config.json the token ids alone are kept: %s", name_or_path, error)
        model.generation_config = token_ids_alone(model.generation_config)
    return model


def family_of_checkpoint(name_or_path: str, **kwargs: Any) -> Family:
    """The family of a checkpoint, of an adapter that of its base. Raises as [`load_model`] does."""
    adapter = Path(name_or_path) / "adapter_config.json"
    if adapter.is_file():
        return family_of_checkpoint(json.loads(adapter.read_text())["base_model_name_or_path"])
    with _named(name_or_path):
        return family_of_config(AutoConfig.from_pretrained(name_or_path, **kwargs), name_or_path)


@contextmanager
def _named(name_or_path: str) -> Iterator[None]:
    """Within: what transformers cannot find or fetch is named, as its own error does not always do."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{name_or_path} is no folder with a checkpoint here, and the hub gave none: {error}") from error


def hub_kwargs(model_init_kwargs: Any) -> dict[str, Any]:
    """Of the arguments of a model those that its configuration and its processor are found by, too."""
    return {k: v for k, v in model_init_kwargs.items() if k in ("revision", "trust_remote_code")}


def token_ids_alone(config: GenerationConfig) -> GenerationConfig:
    """Which tokens begin, end and pad, without anything that shapes what is generated."""
    return GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )


def load_processor(name_or_path: str, **kwargs: Any) -> ProcessorMixin:
    """The checkpoint's processor or tokenizer, padding on the left as generation needs, with its end where it has no pad."""
    refuse_unfinished(name_or_path)
    with _named(name_or_path):
        processor = AutoProcessor.from_pretrained(name_or_path, **kwargs)
    tokenizer = tokenizer_of(processor)
    tokenizer.padding_side = "left"  # as an argument above it would reach the sounds as well
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor


def freeze_towers(model: nn.Module, vision: bool, audio: bool) -> None:
    """Take the vision tower, the audio tower, or both (projectors included) out of training."""
    family, base = family_of(model), base_of(model)
    for modality in family.modalities:
        if audio if modality == "audio" else vision:
            for part in family.tower(base, modality):
                part.requires_grad_(False)


def language_model_targets(names: str | list[str] | None, layers: str = Family.language_layers) -> str | list[str]:
    """
    LoRA targets that stay inside the language model.

    `"all-linear"`, and plain names such as `q_proj`, also match the audio tower's layers. A list of plain names (or
    nothing, or `"all-linear"`) becomes a regular expression for the language model alone; a regular expression or
    dotted names are taken as written. `layers` are the family's; where it has none, there are no towers to keep out
    of, and names are PEFT's own.

    >>> language_model_targets(["q_proj", "v_proj"])
    '.*\\\\blanguage_model\\\\.layers\\\\.\\\\d+\\\\.(self_attn|mlp)\\\\.(q_proj|v_proj)'
    >>> language_model_targets(["audio_tower.layers.0.self_attn.q_proj"])
    ['audio_tower.layers.0.self_attn.q_proj']
    """
    if not layers:
        return names or "all-linear"
    if names is None or names in ("all-linear", ["all-linear"]):
        names = list(LANGUAGE_LINEARS)
    if isinstance(names, str):
        names = [names]
    if all(re.fullmatch(r"\w+", name) for name in names):
        return layers.format(names="|".join(names))
    return names if len(names) > 1 or re.fullmatch(r"[\w.]+", names[0]) else names[0]


def written_out(config: Any, model: nn.Module) -> Any:
    """
    A PEFT configuration, or `None`, whose regular expression is written out as the linear layers that it names. PEFT
    would make plain names of it where experts are routed, and `q_proj` is the audio tower's, too. Routed experts are no
    linear layers, and get no adapters.
    """
    expression = getattr(config, "target_modules", None)
    if not isinstance(expression, str) or not getattr(base_of(model).config.get_text_config(), "num_experts", None):
        return config
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    config = copy.copy(config)
    config.target_modules = {name for name in linears if re.fullmatch(expression, name)}
    return config


@contextmanager
def reference_copied_from(policy: PreTrainedModel) -> Iterator[None]:
    """
    Within: TRL's trainer takes a copy of the policy for its reference.

    TRL has no seam here: it rebuilds the reference from the checkpoint's name, by a function of its module, which is
    replaced in this place alone (`tests/recipes/test_seams.py` holds the call).
    """
    original = grpo_trainer.create_model_from_path
    grpo_trainer.create_model_from_path = lambda *_, **__: copy_weights(policy)
    try:
        yield
    finally:
        grpo_trainer.create_model_from_path = original


@contextmanager
def image_token_named(model: Any) -> Iterator[None]:
    """
    Within: a model that takes no images names the token that TRL looks up to forbid it, another medium's. What is
    sampled is forbidden all of them, see [`~omni_grpo.rollout.sampler.GenerateSampler`].
    """
    lacks = not hasattr(model.config, "image_token_id") and hasattr(model.config, "audio_token_id")
    if lacks:
        model.config.image_token_id = model.config.audio_token_id
    try:
        yield
    finally:
        if lacks:
            del model.config.image_token_id


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
