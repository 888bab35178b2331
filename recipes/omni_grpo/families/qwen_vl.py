# SPDX-License-Identifier: Apache-2.0
"""Qwen's vision-language models: image and video, dense or with experts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from omni_grpo.families.family import Family


@dataclass(frozen=True)
class QwenVision(Family):
    """A video's frames are sampled already; when each was shown, its prompt or its positions say."""

    def processor_kwargs(self, loaded, rates, sized, video_of_sound):
        shown = [
            {"total_num_frames": len(frames), "fps": rate, "frames_indices": list(range(len(frames)))}
            for frames, rate in zip(loaded["video"], rates, strict=True)
        ]
        videos: dict[str, Any] = {"do_sample_frames": False, "video_metadata": shown}
        images: dict[str, Any] = {}
        if sized:
            videos["do_resize"] = images["do_resize"] = False
        return {"videos_kwargs": videos, "images_kwargs": images}


QWEN2_5_VL = QwenVision(
    model_types=("qwen2_5_vl",),
    model_class="Qwen2_5_VLForConditionalGeneration",
    processors=("Qwen2_5_VLProcessor",),
    inputs={
        "image": ("pixel_values", "image_grid_thw"),
        "video": ("pixel_values_videos", "video_grid_thw"),
    },
    towers={"image": ("visual",), "video": ("visual",)},
    token_types=True,
    marks=("<|vision_start|>", "<|vision_end|>"),
)
QWEN3_VL = replace(
    QWEN2_5_VL,
    model_types=("qwen3_vl",),
    model_class="Qwen3VLForConditionalGeneration",
    processors=("Qwen3VLProcessor",),
)
QWEN3_VL_MOE = replace(QWEN3_VL, model_types=("qwen3_vl_moe",), model_class="Qwen3VLMoeForConditionalGeneration")
QWEN3_5 = replace(QWEN3_VL, model_types=("qwen3_5",), model_class="Qwen3_5ForConditionalGeneration")
