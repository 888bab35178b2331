# SPDX-License-Identifier: Apache-2.0
"""Gemma 4: image, video and sound; layers with a window, and pictures whose tokens see each other."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import torch

from omni_grpo.families.family import Family

LONGEST_SOUND = 480_000  # samples, at which its feature extractor cuts by default


@dataclass(frozen=True)
class Gemma4(Family):
    """The processor brings each picture to a budget of tokens, so that a frame and an image take as many whatever their size."""

    def processor_kwargs(self, loaded, rates, sized, video_of_sound):
        # A tokenizer that was saved after use may bring a length of its own, which would reach the sounds.
        sounds = {"max_length": LONGEST_SOUND, "truncation": True, "padding": "longest"}
        return {**super().processor_kwargs(loaded, rates, False, video_of_sound), "audio_kwargs": sounds}

    def longest_sound(self, processor):
        return LONGEST_SOUND

    def pixel_multiple(self, processor):
        return processor.image_processor.patch_size * processor.image_processor.pooling_kernel_size

    def sizes(self, media, modality):
        return media["num_frames_per_video"].tolist() if modality == "video" else super().sizes(media, modality)

    def encode(self, base, modality, media):
        if modality != "audio":
            return super().encode(base, modality, media)
        given = {name: media[name] for name in self.inputs["audio"]}
        output = type(base).get_audio_features(base, **given, return_dict=True)
        return output.pooler_output[output.attention_mask.bool()]

    def encoded(self, base, modality, rows):
        if modality != "audio":
            return super().encoded(base, modality, rows)
        heard = torch.ones(1, len(rows), dtype=torch.bool, device=rows.device)
        return SimpleNamespace(pooler_output=rows[None], attention_mask=heard)

    def smallest(self, base, modality):
        parameter = self.like_weights(base, modality)
        features, beside, *frames = self.inputs[modality]
        if modality == "audio":
            heard = torch.ones(1, 16, dtype=torch.bool, device=parameter.device)
            return {features: parameter.new_zeros(1, 16, 128), beside: heard}
        vision = base.config.vision_config
        at = torch.cartesian_prod(*[torch.arange(vision.pooling_kernel_size, device=parameter.device)] * 2)[None]
        patches = parameter.new_zeros(1, at.size(1), 3 * vision.patch_size**2)
        return {features: patches, beside: at, **{name: torch.ones_like(at[:, 0, 0]) for name in frames}}


GEMMA4 = Gemma4(
    model_types=("gemma4",),
    model_class="Gemma4ForConditionalGeneration",
    processors=("Gemma4Processor",),
    inputs={
        "audio": ("input_features", "input_features_mask"),
        "image": ("pixel_values", "image_position_ids"),
        "video": ("pixel_values_videos", "video_position_ids", "num_frames_per_video"),
    },
    towers={
        "audio": ("audio_tower", "embed_audio"),
        "image": ("vision_tower", "embed_vision"),
        "video": ("vision_tower", "embed_vision"),
    },
    token_types=True,
    marks=("boi_token", "eoi_token", "boa_token", "eoa_token"),
)
