# SPDX-License-Identifier: Apache-2.0
"""
What `test_distributed.py` starts, on one process and with `accelerate launch` on two:

    python tests/distributed_worker.py MODEL DATA OUT JOB…

Each JOB (`grpo`, `lora`, `sft`) trains on the same global batches however many processes there are, and leaves its
weights and a `facts.json` in OUT/JOB. Sampling runs for real, but its completions are then replaced by a fixed table,
so that runs of one and of two processes learn from the same text.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import torch

import omni_grpo.trainer
from omni_grpo.config import OmniGRPOConfig, OmniSFTConfig
from omni_grpo.data import load_sources, to_dataset
from omni_grpo.encoding import PromptEncoder
from omni_grpo.media import MediaSettings
from omni_grpo.model import language_model_targets, load_model, load_processor
from omni_grpo.sft import OmniSFTTrainer
from omni_grpo.trainer import OmniGRPOTrainer
from omni_rewards import answer_reward, section_format_reward

WORLD = int(os.environ.get("WORLD_SIZE", "1"))
GLOBAL_BATCH = 4  # rows of one micro-step over all processes
WORDS = "the face looks happy sad angry voice sounds calm agree do not because it".split()


class FixedRollouts(OmniGRPOTrainer):
    """Samples as always, then takes what the table holds for the row's id and its place in the group."""

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        super()._generate_single_turn(prompt_ids, *args, **kwargs)
        tokenizer, group = self.processing_class.tokenizer, self.num_generations
        texts = [completion_of(name, i % group) for i, name in enumerate(self._names)]
        return [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in texts], None


def completion_of(row: str, place: int) -> str:
    """Text of 10 to 50 tokens, different for every row and place; the places of a group answer differently."""
    chance = random.Random(f"{row} {place}")
    said = " ".join(chance.choices(WORDS, k=chance.randint(2, 8)))
    return f"<context>{said}</context><think>So.</think><answer>{('yes', 'no')[place % 2]}</answer>"


def common(out: Path, **changes: Any) -> dict[str, Any]:
    """Plain SGD: Adam would blow up the rounding of gradients that are zero but for it."""
    settings = {
        "output_dir": str(out),
        "per_device_train_batch_size": GLOBAL_BATCH // WORLD,
        "max_steps": 3,
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "seed": 0,
    }
    return settings | changes


def shard_everything(args: Any) -> None:
    """ZeRO-3 leaves weights below 100,000 elements whole, which here would be all of them."""
    if (plugin := getattr(args, "deepspeed_plugin", None)) is not None:
        plugin.hf_ds_config.config["zero_optimization"]["stage3_param_persistence_threshold"] = 0


def reference_difference(trainer: OmniGRPOTrainer) -> float:
    """Largest difference between the reference and the policy, parameters gathered from their shards."""
    largest = 0.0
    reference = dict(trainer.accelerator.unwrap_model(trainer.ref_model).named_parameters())
    for name, parameter in trainer.accelerator.unwrap_model(trainer.model).named_parameters():
        pair = [parameter, reference[name]]
        with gathered(pair):
            assert pair[0].numel() and pair[0].shape == pair[1].shape, name
            largest = max(largest, (pair[0] - pair[1]).abs().max().item())
    return largest


def gathered(parameters: list[torch.nn.Parameter]):
    import contextlib

    if not any(hasattr(p, "ds_id") for p in parameters):
        return contextlib.nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(parameters)


def train_grpo(job: str, model: str, data: str, out: Path) -> dict[str, Any]:
    args = OmniGRPOConfig(
        **common(out, gradient_accumulation_steps=2, gradient_checkpointing=job == "lora"),
        num_generations=2,
        steps_per_generation=1,
        max_completion_length=8,
        shuffle_dataset=False,
        beta=0.1,
        ds3_gather_for_generation=False,  # so that sampling, too, runs on shards
        reward_funcs=[],
    )
    shard_everything(args)
    peft_config = None
    if job == "lora":
        from peft import LoraConfig

        peft_config = LoraConfig(r=4, target_modules=language_model_targets("all-linear"), init_lora_weights=False)
        torch.manual_seed(0)
    processor = load_processor(model)
    trainer = FixedRollouts(
        model=load_model(model, dtype=torch.float32),
        reward_funcs=[answer_reward, section_format_reward],
        args=args,
        train_dataset=to_dataset(load_sources(data), "short"),
        encoder=PromptEncoder(processor, MediaSettings(num_frames=2, min_pixels=56 * 56, max_pixels=56 * 56)),
        peft_config=peft_config,
    )
    facts = {} if trainer.ref_model is None else {"reference": reference_difference(trainer)}
    trainer.train()
    trainer.save_model(str(out))
    seen = {m: trainer.media_embedder.rows[m] for m in ("audio", "image", "video")}
    kl = [entry["kl"] for entry in trainer.state.log_history if "kl" in entry]
    return facts | {"kl": kl, "rows": seen, "steps": trainer.state.global_step}


def train_sft(model: str, data: str, out: Path) -> dict[str, Any]:
    args = OmniSFTConfig(
        **common(out, train_sampling_strategy="sequential"),
        eval_strategy="steps",
        eval_steps=3,
        validate_answers=True,
        validation_max_new_tokens=4,
    )
    shard_everything(args)
    processor = load_processor(model)
    rows = to_dataset(load_sources(data), "short")
    trainer = OmniSFTTrainer(
        model=load_model(model, dtype=torch.float32),
        args=args,
        train_dataset=rows,
        eval_dataset=rows.select(range(3)),
        encoder=PromptEncoder(processor, MediaSettings(num_frames=2, min_pixels=56 * 56, max_pixels=56 * 56)),
    )
    trainer.train()
    trainer.save_model(str(out))
    return {"loss": [e["loss"] for e in trainer.state.log_history if "loss" in e], "steps": trainer.state.global_step}


def main(model: str, data: str, out: str, *jobs: str) -> None:
    torch.set_num_threads(1)
    if os.environ.get("NO_DUMMIES"):
        attach = omni_grpo.trainer.attach_media_embedder
        omni_grpo.trainer.attach_media_embedder = lambda model, everywhere: attach(model, ())
    for job in jobs:
        folder = Path(out) / job
        facts = train_sft(model, data, folder) if job == "sft" else train_grpo(job, model, data, folder)
        if int(os.environ.get("RANK", "0")) == 0:
            (folder / "facts.json").write_text(json.dumps(facts))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
