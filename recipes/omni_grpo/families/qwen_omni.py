# SPDX-License-Identifier: Apache-2.0
"""Qwen's omni thinkers: image, video and sound, the sound of a video interleaved with its frames if asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import Qwen2_5OmniConfig

from omni_grpo.families.family import Engine, Family


@dataclass(frozen=True)
class QwenOmni(Family):
    """Whisper's features come padded to the longest sound that the model knows; a video's seconds go to its positions."""

    def processor_kwargs(self, loaded, rates, sized, video_of_sound):
        interleaved = any(video is not None for video in video_of_sound)
        videos: dict[str, Any] = {"do_sample_frames": False, "cap_pixels_per_frame": True}
        images: dict[str, Any] = {}
        if sized:
            videos["do_resize"] = images["do_resize"] = False
        if interleaved:
            videos["fps"] = rates[0]
        return {
            "videos_kwargs": videos,
            "images_kwargs": images,
            "load_audio_from_video": interleaved,
            "audio_from_video_indices": list(video_of_sound),
        }

    def finish(self, media, rates, processor):
        if rates:
            patch = processor.video_processor.temporal_patch_size
            media["video_second_per_grid"] = torch.tensor([patch / rate for rate in rates])
        if "input_features" in media:  # keep what is heard, not the padding to the longest sound the model knows
            media.update(_trim_sounds(media["input_features"], media["feature_attention_mask"].bool()))
        return media

    def encode(self, base, modality, media):
        if modality != "audio":
            return super().encode(base, modality, media)
        mel, mask = (media.get(name) for name in self.inputs["audio"])
        return type(base).get_audio_features(base, mel, mask, return_dict=True).last_hidden_state

    def engine_config(self, config):
        return Qwen2_5OmniConfig(thinker_config=config.to_dict(), enable_audio_output=False)


def _trim_sounds(features: torch.Tensor, heard: torch.Tensor) -> dict[str, torch.Tensor]:
    """Sounds `(N, mel, T)` cut to what `heard` `(N, T)` marks, whichever side was padded, padded anew on the right."""
    sounds = [f[:, mask].T for f, mask in zip(features, heard, strict=True)]
    pad = torch.nn.utils.rnn.pad_sequence
    mask = pad([torch.ones(len(s), dtype=torch.long) for s in sounds], batch_first=True)
    return {"input_features": pad(sounds, batch_first=True).transpose(1, 2), "feature_attention_mask": mask}


QWEN2_5_OMNI = QwenOmni(
    model_types=("qwen2_5_omni", "qwen2_5_omni_thinker"),
    model_class="Qwen2_5OmniThinkerForConditionalGeneration",
    processors=("Qwen2_5OmniProcessor",),
    inputs={
        "audio": ("input_features", "feature_attention_mask"),
        "image": ("pixel_values", "image_grid_thw"),
        "video": ("pixel_values_videos", "video_grid_thw"),
    },
    towers={"audio": ("audio_tower",), "image": ("visual",), "video": ("visual",)},
    marks=("vision_bos_token", "vision_eos_token", "audio_bos_token", "audio_eos_token"),
    engine=Engine(
        "model_executor.models.qwen2_5_omni_thinker:Qwen2_5OmniThinkerForConditionalGeneration",
        {"model.language_model.": "thinker.model.", "lm_head.": "thinker.lm_head."},
    ),
)

QWEN3_OMNI = replace(
    QWEN2_5_OMNI,
    model_types=("qwen3_omni_moe", "qwen3_omni_moe_thinker"),
    model_class="Qwen3OmniMoeThinkerForConditionalGeneration",
    processors=("Qwen3OmniMoeProcessor",),
    engine="vLLM 0.32 cannot build it on this transformers, and drops its deepstack features without a word",
)
