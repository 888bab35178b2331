# SPDX-License-Identifier: Apache-2.0
"""
RL with verifiable rewards (GRPO) on image, video, audio and text.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/grpo_omni.py \
        --config recipes/configs/demo/rl.yaml [--any_field value]

Without --config it runs the demo's RL stage on this machine. An interrupted run goes on from its last complete
checkpoint; a finished one is not run again until its inputs change. `--rehearse 3` makes three steps, says what they took,
and leaves its report alone.
"""

import time
from pathlib import Path

from omni_grpo.run.command_line import help_text, parse, with_default_config
from omni_grpo.run.console import run
from omni_grpo.run.rehearsal import rehearsed
from omni_grpo.run.reward_settings import check_rewards, configured_rewards
from omni_grpo.run.scripts import announce, claim, is_main_process, watch


def main(argv: list[str]) -> None:
    argv = with_default_config(argv, "demo/rl.yaml")
    if {"-h", "--help"} & set(argv):
        print(help_text("grpo", __doc__))
        return
    argv = rehearsed(argv)
    stage = claim(argv)
    if stage is None:
        return
    preemption = watch(stage)
    check_rewards(argv)
    start = time.time()

    from trl import ModelConfig

    from omni_grpo.build import check_fit, check_generation, rewards_in_sections
    from omni_grpo.config import DataArguments, OmniGRPOConfig
    from omni_grpo.data.dataset import load_sources, preflight, to_dataset
    from omni_grpo.data.encoding.encoder import PromptEncoder
    from omni_grpo.data.media.decode_cache import open_decode_cache
    from omni_grpo.data.media.settings import MediaSettings
    from omni_grpo.data.rows.prompts import PROMPT_STYLES
    from omni_grpo.experimental.contrast import check_contrast
    from omni_grpo.model.loading import load_model, load_processor
    from omni_grpo.run.checkpoints import SaveWhenAsked, resume_checkpoint
    from omni_grpo.run.log_file import LogFile
    from omni_grpo.run.measuring import rehearse
    from omni_grpo.run.progress import finish, follow
    from omni_grpo.run.reward_columns import check_reward_columns
    from omni_grpo.run.scripts import (
        as_trained,
        begin,
        check_evaluation,
        model_kwargs,
        note_settings,
        peft_config,
    )
    from omni_grpo.trainer import OmniGRPOTrainer

    data, media, args, model_args = parse((DataArguments, MediaSettings, OmniGRPOConfig, ModelConfig), argv)
    check_evaluation(data.validation_file, args)
    weights, adapter = model_kwargs(model_args), peft_config(model_args)
    data, media = as_trained(model_args.model_name_or_path, argv, data, media)

    # 1. Rewards and data: everything that can be wrong is met here, before the model is loaded.
    schema = PROMPT_STYLES[data.prompt_style].schema
    reward_funcs = rewards_in_sections(configured_rewards(args.reward_funcs, args.reward_settings), args, schema)
    check_fit(reward_funcs, args, schema)
    begin(stage)
    note_settings(args.output_dir, data, media)

    def dataset(source: str, split: str):
        rows = load_sources(source, data.media_root, split, data.media_roots)
        return to_dataset(rows, data.prompt_style, media.load_audio_from_video)

    train = dataset(data.train_file, data.train_split)
    validation = dataset(data.validation_file, data.validation_split) if data.validation_file else None
    args.check_rows(len(train))
    check_reward_columns(reward_funcs, train, args.allow_unused_rewards, args.context_gain_weight is not None)
    check_contrast(args, train)
    check_generation(args, train)
    processor = load_processor(model_args.model_name_or_path)
    decoded = open_decode_cache(data.decode_cache, data.decode_cache_mb, args.output_dir)
    encoder = PromptEncoder(
        processor, media, data.max_prompt_length, args.prompt_cache_mb, decoded, data.escape_control_tokens
    )
    if is_main_process():
        preflight(train, encoder, stage.folder / "preflight")
        if validation is not None:
            preflight(validation, encoder, stage.folder / "preflight_validation")
    announce(f"RL on {len(train)} rows from {data.train_file}, rewards {', '.join(args.reward_funcs)}")

    # 2. The policy; its reference, where beta > 0, is a copy of it as it is now.
    trainer = OmniGRPOTrainer(
        model=load_model(model_args.model_name_or_path, **weights),
        reward_funcs=reward_funcs,
        args=args,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=processor,
        encoder=encoder,
        section_schema=schema,
        peft_config=adapter,
        callbacks=[LogFile(Path(args.output_dir) / "log.jsonl"), SaveWhenAsked(preemption)],
    )

    # 3. Train, from the last complete checkpoint if there is one.
    follow(trainer, "RL")
    if args.rehearse:
        return rehearse(trainer, args.rehearse, start, argv)
    trainer.train(resume_from_checkpoint=resume_checkpoint(args.output_dir, args.resume_from_checkpoint))
    finish(trainer, processor, stage, "RL", argv, start)


if __name__ == "__main__":
    run(main)
