# SPDX-License-Identifier: Apache-2.0
"""
What `test_distributed.py` starts, as one process and with `accelerate launch` as two:

    python tests/distributed_worker.py MODEL DATA OUT JOB [JOB …] [--without-dummies]

Each JOB (`grpo`, `frozen`, `plain`, `strict`, `gain`, `lora`, `sft`, `cut`, `resumed`) trains three steps on the same global batches however many processes there are. Its
weights go to OUT/JOB, and what each process met to OUT/JOB/facts-RANK.json. Sampling runs for real, but a fixed table
then takes the place of its completions, so that one process and two learn from the same text.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, DistributedType, PartialState
from torch.distributed.tensor import DTensor
from transformers import AutoConfig

import omni_grpo.build
from omni_grpo.config import OmniGRPOConfig, OmniSFTConfig
from omni_grpo.data.dataset import load_sources, to_dataset
from omni_grpo.data.encoding.encoder import PromptEncoder
from omni_grpo.data.media.settings import MediaSettings
from omni_grpo.model.loading import language_model_targets, load_model, load_processor
from omni_grpo.sft import OmniSFTTrainer
from omni_grpo.trainer import OmniGRPOTrainer
from omni_rewards import answer_reward, section_format_reward

RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
GLOBAL_BATCH = 4  # rows of one micro-step over all processes
SFT = ("sft", "cut", "resumed")
WORDS = ["the", "face", "looks", "happy", "sad", "voice", "sounds", "calm", "angry", "they", "agree", "because"]


class FixedRollouts(OmniGRPOTrainer):
    """Samples as always, then takes what the table holds for the row's id and its place in the group."""

    met: list[list[str]]  # modalities that this process's rows held, micro-step by micro-step
    credited: dict[str, list[float]]  # advantage of each token, by row and place in the group

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        super()._generate_single_turn(prompt_ids, *args, **kwargs)
        tokenizer, group = self.processing_class.tokenizer, self.num_generations
        texts = [completion_of(row.name, i % group) for i, row in enumerate(self._rollout.rows)]
        return [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in texts], None

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        lengths = output["completion_mask"].sum(dim=1).tolist()
        for i, (row, own, length) in enumerate(zip(output["rows"], output["advantages"], lengths, strict=True)):
            self.credited[f"{row.name} {i % self.num_generations}"] = own[:length].tolist()
        return output

    def _compute_loss(self, model, inputs):
        self.met.append(sorted({m for row in inputs["rows"] for m, count in row.prompt.counts.items() if count}))
        return super()._compute_loss(model, inputs)


def completion_of(row: str, place: int) -> str:
    """Well-formed text of its own length and words for every row and place; the places of a group answer differently."""
    chance = random.Random(f"{row} {place}")
    said = " ".join(chance.choices(WORDS, k=chance.randint(2, 8)))
    return f"<context>{said}</context><think>So.</think><answer>{('yes', 'no')[place % 2]}</answer>"


def context_reward(completions: list, **kwargs: Any) -> list[float | None]:
    """Another figure for each text, and none at all for some."""
    words = [c[-1]["content"].partition("</context>")[0].split() for c in completions]
    return [None if len(said) == 5 else len(said) + said.count("face") / 2 for said in words]


context_reward.sections = ("context",)


def common(out: Path) -> dict[str, Any]:
    """Plain SGD: where a gradient is zero but for rounding, Adam makes a whole step of the rounding."""
    return {
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


def shard_on_the_cpu() -> None:
    """Accelerate shards by FSDP where there are GPUs alone; here its settings hold for processes on the CPU, too."""
    begin = AcceleratorState.__init__

    def begin_sharded(self, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        begin(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.fsdp_plugin, self.distributed_type = fsdp_plugin, DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = begin_sharded


def shard_everything(args: Any) -> None:
    """ZeRO-3 leaves weights of fewer than 100,000 elements whole; here that would be all of them."""
    if (plugin := getattr(args, "deepspeed_plugin", None)) is not None:
        plugin.hf_ds_config.config["zero_optimization"]["stage3_param_persistence_threshold"] = 0


def reference_difference(trainer: OmniGRPOTrainer) -> float:
    """Largest difference between the reference and the policy, shards put together."""
    reference = trainer.accelerator.unwrap_model(trainer.ref_model).parameters()
    policy = trainer.accelerator.unwrap_model(trainer.model).parameters()
    return max(_difference(a, b) for a, b in zip(policy, reference, strict=True))


def _difference(a: torch.nn.Parameter, b: torch.nn.Parameter) -> float:
    gathered: Any = contextlib.nullcontext()
    if hasattr(a, "ds_id") or hasattr(b, "ds_id"):
        import deepspeed

        gathered = deepspeed.zero.GatheredParameters([p for p in (a, b) if hasattr(p, "ds_id")])
    with gathered:
        if a.numel() == 0 or a.shape != b.shape or a.data_ptr() == b.data_ptr():
            raise RuntimeError(f"no two copies to compare: {a.shape}, {b.shape}")
        whole = [p.full_tensor() if isinstance(p, DTensor) else p for p in (a, b)]
        return (whole[0] - whole[1]).abs().max().item()


def train_grpo(job: str, model: str, data: str, out: Path) -> dict[str, Any]:
    """Groups of two; every process holds one prompt a micro-step, two micro-steps make a step."""
    frozen = job in ("frozen", "plain")
    fields = common(out) | {"gradient_accumulation_steps": 2}
    if job == "plain":
        fields |= {"share_prompt": "off", "share_media": "off"}
    if "moe" in AutoConfig.from_pretrained(model).model_type:
        # A router's loss is of one process's rows: one process takes them as micro-batches, of which it takes the mean.
        fields |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4 // WORLD}
        fields |= {"loss_type": "grpo", "router_aux_loss_coef": 0.1}
    args = OmniGRPOConfig(
        **fields,
        steps_per_generation=1,
        num_generations=2,
        max_completion_length=4,
        shuffle_dataset=False,
        beta=0.1,
        context_gain_weight=0.5 if job == "gain" else None,
        freeze_vision=frozen,
        freeze_audio=frozen,
        num_iterations=2 if frozen else 1,
        ds3_gather_for_generation=False,  # so that sampling, too, runs on shards
        reward_funcs=[],
        credit_map="strict" if job == "strict" else "paper",
        scale_rewards="batch" if job == "strict" else "group",
    )
    shard_everything(args)
    lora = None
    if job == "lora":
        from peft import LoraConfig

        torch.manual_seed(0)  # the same adapter, not at zero, whatever ran before
        lora = LoraConfig(r=4, target_modules=language_model_targets("all-linear"), init_lora_weights=False)
    trainer = FixedRollouts(
        model=load_model(model, dtype=torch.float32),
        reward_funcs=[answer_reward, section_format_reward, *([context_reward] if job == "strict" else [])],
        args=args,
        train_dataset=to_dataset(load_sources(data), "short"),
        encoder=encoder(model),
        peft_config=lora,
    )
    trainer.met, trainer.credited = [], {}
    trainer.generation_config.max_new_tokens -= RANK  # one process is done before the other, and goes on with it
    facts = {} if lora else {"reference": reference_difference(trainer)}
    if lora and RANK == 0:
        trainer.model.save_pretrained(out / "start")
    trainer.train()
    trainer.save_model(str(out))
    kl = [entry["kl"] for entry in trainer.state.log_history if "kl" in entry]
    known = {"kl": kl, "met": trainer.met, "credited": trainer.credited, "steps": trainer.state.global_step}
    known["encoded"] = {m: n for m, n in trainer.media_embedder.items.items() if n}
    known["shares"] = trainer.scorer.shares
    return facts | known


def train_sft(job: str, model: str, data: str, out: Path) -> dict[str, Any]:
    """
    Three steps and, at the end, greedy answers to two rows. `cut` and `resumed`: with a state of the optimiser and a
    checkpoint after two steps, from which the second, which comes after the first, goes on.
    """
    saving = {} if job == "sft" else {"optim": "adamw_torch", "learning_rate": 1e-3, "save_strategy": "steps"}
    args = OmniSFTConfig(
        **{**common(out), **saving, "save_steps": 2},
        train_sampling_strategy="sequential",
        eval_strategy="steps",
        eval_steps=3,
        validate_answers=True,
        validation_max_new_tokens=4,
    )
    shard_everything(args)
    rows = to_dataset(load_sources(data), "short")
    trainer = OmniSFTTrainer(
        model=load_model(model, dtype=torch.float32),
        args=args,
        train_dataset=rows,
        eval_dataset=rows.select(range(2)),
        encoder=encoder(model),
    )
    trainer.train(resume_from_checkpoint=str(out.with_name("cut") / "checkpoint-2") if job == "resumed" else None)
    trainer.save_model(str(out))
    evaluated = [e["eval_answer_accuracy"] for e in trainer.state.log_history if "eval_answer_accuracy" in e]
    return {"evaluated": evaluated, "steps": trainer.state.global_step}


def encoder(model: str) -> PromptEncoder:
    return PromptEncoder(load_processor(model), MediaSettings(num_frames=2, min_pixels=56**2, max_pixels=56**2))


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("model", "data", "out"):
        parser.add_argument(name)
    parser.add_argument("jobs", nargs="+", choices=("grpo", "frozen", "plain", "strict", "gain", "lora", *SFT))
    parser.add_argument("--without-dummies", action="store_true", help="the mutant: ranks make different tower calls")
    options = parser.parse_args()
    if options.without_dummies:
        attach = omni_grpo.build.attach_media_embedder
        omni_grpo.build.attach_media_embedder = lambda model, everywhere: attach(model, ())
    shard_on_the_cpu()
    torch.set_num_threads(1)
    for job in options.jobs:
        out = Path(options.out) / job
        facts = (train_sft if job in SFT else train_grpo)(job, options.model, options.data, out)
        (out / f"facts-{RANK}.json").write_text(json.dumps(facts | {"world": WORLD}))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
