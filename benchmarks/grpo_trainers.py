# SPDX-License-Identifier: Apache-2.0
"""Stock TRL and ours, set up for the same GRPO work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from grpo_media import PATCH, Shape, image_examples
from PIL import Image
from trl import GRPOConfig, GRPOTrainer

from omni_grpo import MediaSettings, OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder
from omni_grpo.data.dataset import to_dataset
from omni_grpo.data.rows.schema import Example
from omni_grpo.families import family_of_processor
from omni_grpo.model.loading import load_model, load_processor


def constant_reward(completions: list[Any], **_: Any) -> list[float]:
    """Differs within a group, so that no advantage is zero."""
    return [float(i % 3) for i in range(len(completions))]


def _fields(shape: Shape, folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": shape.group * shape.prompts,
        "num_generations": shape.group,
        "max_completion_length": shape.completion,
        "learning_rate": 1e-6,
        "beta": 0.0,
        "shuffle_dataset": False,
        "report_to": "none",
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "max_steps": 1,
        "logging_steps": 1000,
    }


def trl_trainer(
    model_dir: str,
    pictures: list[Path],
    shape: Shape,
    folder: Path,
    model: Any = None,
    peft_config: Any = None,
    **overrides: Any,
) -> Any:
    """Stock TRL on image rows; with `model`, the directory gives the processor alone."""
    processor = load_processor(model_dir)
    size = {"shortest_edge": 56 * 56, "longest_edge": 4096 * PATCH * PATCH}
    processor.image_processor.size = size
    ours = to_dataset(image_examples(pictures), "short")[0]["prompt"]
    rows = []
    for picture in pictures:
        messages = [
            {"role": m["role"], "content": [{"type": p["type"], "text": p["text"]} for p in m["content"]]}
            for m in ours
        ]
        rows.append({"prompt": messages, "image": Image.open(picture).convert("RGB")})
    return GRPOTrainer(
        model or load_model(model_dir),
        constant_reward,
        GRPOConfig(
            generation_kwargs={
                "suppress_tokens": family_of_processor(processor).control_ids(processor),
                "min_new_tokens": shape.completion,
            },
            **_fields(shape, folder) | overrides,
        ),
        Dataset.from_list(rows),
        processing_class=processor,
        peft_config=peft_config,
    )


def omni_trainer(
    model_dir: str,
    examples: list[Example],
    shape: Shape,
    folder: Path,
    settings: MediaSettings,
    model: Any = None,
    peft_config: Any = None,
    **overrides: Any,
) -> Any:
    """Ours; with `model`, the directory gives the processor alone."""
    processor = load_processor(model_dir)
    fields = _fields(shape, folder) | overrides
    return OmniGRPOTrainer(
        model or load_model(model_dir),
        [constant_reward],
        OmniGRPOConfig(
            generation_kwargs={"min_new_tokens": shape.completion}, credit_map="uniform", agreement="off", **fields
        ),
        to_dataset(examples, "short"),
        encoder=PromptEncoder(processor, settings),
        peft_config=peft_config,
    )
