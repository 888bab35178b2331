# SPDX-License-Identifier: Apache-2.0
"""
Cold-start SFT on image, video, audio and text: imitate `<context>`, `<think>`, `<answer>`.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/sft_omni.py \
        --config recipes/configs/demo/sft.yaml [--any_field value]

Without --config it runs the demo's SFT stage on this machine. An interrupted run goes on from its last complete
checkpoint; a finished one is not run again until its inputs change.
"""

import time
from pathlib import Path

from omni_grpo.run.command_line import help_text, parse, with_default_config
from omni_grpo.run.console import run
from omni_grpo.run.scripts import announce, claim, is_main_process, watch


def main(argv: list[str]) -> None:
    argv = with_default_config(argv, "demo/sft.yaml")
    if {"-h", "--help"} & set(argv):
        print(help_text("sft", __doc__))
        return
    stage = claim(argv)
    if stage is None:
        return
    preemption = watch(stage)
    start = time.time()

    from trl import ModelConfig

    from omni_grpo.config import DataArguments, OmniSFTConfig
    from omni_grpo.data.dataset import load_sources, preflight, to_dataset, with_sft_targets
    from omni_grpo.data.encoding.encoder import PromptEncoder
    from omni_grpo.data.media.decode_cache import open_decode_cache
    from omni_grpo.data.media.settings import MediaSettings
    from omni_grpo.data.rows.prompts import PROMPT_STYLES
    from omni_grpo.model.loading import load_model, load_processor
    from omni_grpo.run.checkpoints import SaveWhenAsked, resume_checkpoint
    from omni_grpo.run.log_file import LogFile, StopAfter
    from omni_grpo.run.progress import finish, follow
    from omni_grpo.run.scripts import (
        as_trained,
        begin,
        check_evaluation,
        model_kwargs,
        note_settings,
        peft_config,
    )
    from omni_grpo.sft import OmniCollator, OmniSFTTrainer

    data, media, args, model_args = parse((DataArguments, MediaSettings, OmniSFTConfig, ModelConfig), argv)
    check_evaluation(data.validation_file, args)
    weights, adapter = model_kwargs(model_args), peft_config(model_args)
    data, media = as_trained(model_args.model_name_or_path, argv, data, media)
    begin(stage)
    note_settings(args.output_dir, data, media)

    # 1. Data: everything that can be wrong is met here, before the model is loaded.
    def dataset(source: str, split: str, target: str):
        rows = load_sources(source, data.media_root, split, data.media_roots)
        rows = to_dataset(rows, data.prompt_style, media.load_audio_from_video)
        return with_sft_targets(rows, target, PROMPT_STYLES[data.prompt_style].schema)

    train = dataset(data.train_file, data.train_split, data.sft_target)
    args.check_rows(len(train))
    validation = None
    if data.validation_file:
        validation = dataset(data.validation_file, data.validation_split, "target_or_solution")
    processor = load_processor(model_args.model_name_or_path)
    decoded = open_decode_cache(data.decode_cache, data.decode_cache_mb, args.output_dir)
    encoder = PromptEncoder(
        processor, media, data.max_prompt_length, args.prompt_cache_mb, decoded, data.escape_control_tokens
    )
    if is_main_process():
        collator = OmniCollator(encoder, args.max_length)
        preflight(train, encoder, stage.folder / "preflight", collator=collator)
        if validation is not None:
            done = stage.folder / "preflight_validation"
            preflight(validation, encoder, done, collator=None if args.validate_answers else collator)
    announce(f"SFT on {len(train)} rows from {data.train_file}")

    # 2. Train. With a validation file, the checkpoint whose own answers are best on it is the one that is kept.
    trainer = OmniSFTTrainer(
        model=load_model(model_args.model_name_or_path, **weights),
        args=args,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=processor,
        encoder=encoder,
        section_schema=PROMPT_STYLES[data.prompt_style].schema,
        peft_config=adapter,
        callbacks=[
            LogFile(Path(args.output_dir) / "log.jsonl"),
            SaveWhenAsked(preemption),
            *([StopAfter(args.max_train_seconds)] if args.max_train_seconds else []),
        ],
    )
    follow(trainer, "SFT")
    trainer.train(resume_from_checkpoint=resume_checkpoint(args.output_dir, args.resume_from_checkpoint))
    finish(trainer, processor, stage, "SFT", argv, start)


if __name__ == "__main__":
    run(main)
