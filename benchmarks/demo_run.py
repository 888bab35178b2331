# SPDX-License-Identifier: Apache-2.0
"""The demo's RL stage as `recipes/grpo_omni.py` runs it, clocked and not saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from step_clock import StepClock
from transformers import ProgressCallback
from trl import ModelConfig

from omni_grpo.config import DataArguments, OmniGRPOConfig
from omni_grpo.data.dataset import load_sources, preflight, to_dataset
from omni_grpo.data.encoding.encoder import PromptEncoder
from omni_grpo.data.media.decode_cache import open_decode_cache
from omni_grpo.data.media.settings import MediaSettings
from omni_grpo.data.rows.prompts import PROMPT_STYLES
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.run.command_line import parse
from omni_grpo.run.reward_settings import configured_rewards
from omni_grpo.run.scripts import model_kwargs, peft_config
from omni_grpo.trainer import OmniGRPOTrainer

CURVES = ("loss", "reward", "rewards/", "grad_norm")  # log entries that begin so, less their spread over the batch


def run_stage(fields: list[str], folder: Path, overrides: dict[str, str]) -> dict[str, Any]:
    """
    One run: the seconds of each step, what was sampled and logged in each, and the media items that were encoded.

    Args:
        fields (`list[str]`): Command line of `recipes/grpo_omni.py`.
        folder (`Path`): Where it keeps what it must; its decode cache lies beside.
        overrides (`dict[str, str]`): Fields of this run.
    """
    given = {**overrides, "output_dir": str(folder), "save_strategy": "no", "logging_steps": "1"}
    argv = [*fields, *(part for name, value in given.items() for part in (f"--{name}", value))]
    data, media, args, model_args = parse((DataArguments, MediaSettings, OmniGRPOConfig, ModelConfig), argv)
    rewards = configured_rewards(args.reward_funcs, args.reward_settings)
    rows = to_dataset(load_sources(data.train_file, data.media_root), data.prompt_style, media.load_audio_from_video)
    processor = load_processor(model_args.model_name_or_path)
    decoded = open_decode_cache(data.decode_cache, data.decode_cache_mb, args.output_dir)
    encoder = PromptEncoder(processor, media, data.max_prompt_length, args.prompt_cache_mb, decoded)
    if decoded is not None:  # a run's check of the data reads every file, and what it read is kept
        preflight(rows, encoder, folder / "checked", workers=1)
        encoder = PromptEncoder(processor, media, data.max_prompt_length, args.prompt_cache_mb, decoded)
    trainer = OmniGRPOTrainer(
        model=load_model(model_args.model_name_or_path, **model_kwargs(model_args)),
        reward_funcs=rewards,
        args=args,
        train_dataset=rows,
        processing_class=processor,
        encoder=encoder,
        section_schema=args.schema(PROMPT_STYLES[data.prompt_style].schema),
        peft_config=peft_config(model_args),
    )
    trainer.remove_callback(ProgressCallback)
    clock = StepClock(trainer)
    trainer.add_callback(clock)
    with clock.running():
        trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {
        "times": clock.steps,
        "sampled": clock.sampled,
        "curves": [
            {k: v for k, v in entry.items() if k.startswith(CURVES) and not k.endswith("std")} for entry in logs
        ],
        "encoded": dict(trainer.media_embedder.items),
    }
