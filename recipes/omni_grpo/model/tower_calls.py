# SPDX-License-Identifier: Apache-2.0
"""The towers of a thinker: where they are, what is fixed in them, and one call of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from omni_grpo.encoding.inputs import feature_rows
from omni_grpo.media.settings import MediaError
from omni_grpo.model.encoded_media import FEATURE_KEYS, Item


def find_thinker(model: nn.Module) -> Any:
    """The submodule that holds the towers and the language model, through any PEFT or engine wrapping."""
    for module in model.modules():
        if all(hasattr(module, name) for name in ("audio_tower", "visual", "language_model")):
            return module
    raise ValueError(
        f"{type(model).__name__} has no audio tower, vision tower and language model side by side; "
        "supported: Qwen2.5-Omni's thinker (`Qwen2_5OmniThinkerForConditionalGeneration`)"
    )


def tower_of(thinker: Any, modality: str) -> nn.Module:
    """The encoder of a modality."""
    return thinker.audio_tower if modality == "audio" else thinker.visual


def has_adapters(tower: nn.Module) -> bool:
    """Whether adapters stand in a tower, which are turned off for the reference's passes."""
    return any(isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)) for module in tower.modules())


def is_frozen(tower: nn.Module) -> bool:
    """Whether a tower gives the same features in every pass of a run."""
    return not any(p.requires_grad for p in tower.parameters()) and not has_adapters(tower)


def run_tower(thinker: Any, modality: str, media: Mapping[str, Any]) -> torch.Tensor:
    """Encoder output `(rows, width)` for model inputs of one modality."""
    features = media[FEATURE_KEYS[modality]]
    if modality == "audio":
        return thinker.get_audio_features(
            features, media.get("feature_attention_mask"), return_dict=True
        ).last_hidden_state
    encode = thinker.get_image_features if modality == "image" else thinker.get_video_features
    return torch.cat(encode(features, media[f"{modality}_grid_thw"], return_dict=True).pooler_output)


def by_item(thinker: Any, modality: str, items: Sequence[Item], encoded: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Encoder output `(rows, width)` cut into that of each item."""
    merge_size = thinker.config.vision_config.spatial_merge_size
    counts = [feature_rows(item, merge_size)[modality] for item in items]
    if sum(counts) != encoded.shape[0]:
        raise MediaError(f"{len(items)} {modality} items gave {encoded.shape[0]} rows, not {sum(counts)}")
    return encoded.split(counts)


def run_on_dummy(thinker: Any, modality: str) -> torch.Tensor:
    """
    Encoder output for the smallest item that the tower takes.

    Parameters are looked at through `parameters()` alone: under ZeRO-3 a name such as `conv1.weight` gathers the
    weight from all ranks, and only those that need a dummy come here.
    """
    if modality == "audio":
        parameter = next(thinker.audio_tower.parameters())
        bins = thinker.config.audio_config.num_mel_bins
        mel = torch.zeros(1, bins, 4, device=parameter.device, dtype=parameter.dtype)
        mask = torch.ones(1, 4, dtype=torch.long, device=parameter.device)
        return thinker.get_audio_features(mel, mask, return_dict=True).last_hidden_state
    vision = thinker.config.vision_config
    side = vision.spatial_merge_size
    dim = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    parameter = next(thinker.visual.parameters())
    patches = torch.zeros(side * side, dim, device=parameter.device, dtype=parameter.dtype)
    grid = torch.tensor([[1, side, side]], device=parameter.device)
    encode = thinker.get_image_features if modality == "image" else thinker.get_video_features
    return torch.cat(encode(patches, grid, return_dict=True).pooler_output)
