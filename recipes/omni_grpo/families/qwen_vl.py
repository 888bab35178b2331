# SPDX-License-Identifier: Apache-2.0
"""Qwen's vision-language models: image and video, dense or with experts."""

from __future__ import annotations

from dataclasses import replace

from omni_grpo.families.family import Engine, Family

QWEN2_5_VL = Family(
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
    engine=Engine(
        "model_executor.models.qwen2_5_vl:Qwen2_5_VLForConditionalGeneration",
        {"model.language_model.": "model.language_model.", "lm_head.": "lm_head."},
    ),
)
QWEN3_VL = replace(
    QWEN2_5_VL,
    engine=Family.engine,
    model_types=("qwen3_vl",),
    model_class="Qwen3VLForConditionalGeneration",
    processors=("Qwen3VLProcessor",),
)
QWEN3_VL_MOE = replace(QWEN3_VL, model_types=("qwen3_vl_moe",), model_class="Qwen3VLMoeForConditionalGeneration")
QWEN3_5 = replace(QWEN3_VL, model_types=("qwen3_5",), model_class="Qwen3_5ForConditionalGeneration")
