# SPDX-License-Identifier: Apache-2.0
"""
The trainer in one's own script: two pictures are drawn, and the demo's small base model takes GRPO steps on them.

    python examples/own_script.py
"""

import json
import tempfile
from pathlib import Path

from PIL import Image

import omni_grpo as og
from omni_rewards import answer_reward, section_format_reward

MODEL = str(Path(__file__).resolve().parents[1] / "recipes/checkpoints/demo_base")  # or Qwen/Qwen2.5-Omni-7B


def brief_reward(completions, **kwargs):
    """More for fewer words: what a model that was never taught the sections can learn in a few steps."""
    return [1 / len(completion[-1]["content"].split()) for completion in completions]


def write_rows(folder: Path) -> Path:
    rows = []
    for name, colour, answer in (("red", (200, 30, 30), "yes"), ("blue", (30, 30, 200), "no")):
        Image.new("RGB", (84, 84), colour).save(folder / f"{name}.png")
        question = {"id": name, "problem": "Is it red?", "problem_type": "yes_no", "solution": answer}
        rows.append({**question, "media": [{"type": "image", "path": f"{name}.png"}]})
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder / "train.jsonl"


def main(folder: Path) -> None:
    cpu = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none"}
    sizes = {"num_generations": 8, "per_device_train_batch_size": 16, "max_completion_length": 24, "logging_steps": 1}
    trainer = og.OmniGRPOTrainer(
        model=og.load_model(MODEL, dtype="float32"),
        reward_funcs=[answer_reward, section_format_reward, brief_reward],
        args=og.OmniGRPOConfig(
            output_dir=str(folder / "run"),
            constrained_decoding="strict",
            credit_map="uniform",
            max_steps=4,
            learning_rate=3e-4,
            **sizes | cpu,
        ),
        train_dataset=og.to_dataset(og.load_sources(str(write_rows(folder))), "short"),
        encoder=og.PromptEncoder(og.load_processor(MODEL), og.MediaSettings(min_pixels=7056, max_pixels=7056)),
    )
    trainer.train()
    means = [log["reward"] for log in trainer.state.log_history if "reward" in log]
    print(f"mean reward of each step: {', '.join(f'{mean:.2f}' for mean in means)}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
