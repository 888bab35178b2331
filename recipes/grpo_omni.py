# SPDX-License-Identifier: Apache-2.0
"""
RL with verifiable rewards (GRPO) on image, video, audio and text.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/grpo_omni.py \
        --config recipes/configs/demo/rl.yaml [--any_field value]

Without --config it runs the demo's RL stage on this machine. An interrupted run goes on from its last complete
checkpoint; a finished one is not run again until its inputs change.
"""

import sys
import time
from pathlib import Path

from omni_grpo.launch.command_line import help_text, parse, with_default_config
from omni_grpo.launch.reward_settings import check_rewards, configured_rewards
from omni_grpo.launch.scripts import announce, claim, is_main_process, watch


def main(argv: list[str]) -> None:
    argv = with_default_config(argv, "demo/rl.yaml")
    if {"-h", "--help"} & set(argv):
        print(help_text("grpo", __doc__))
        return
    stage = claim(argv)
    if stage is None:
        return
    preemption = watch(stage)
    check_rewards(argv)
    start = time.time()

    from trl import ModelConfig

    from omni_grpo.checkpoints import SaveWhenAsked, resume_checkpoint
    from omni_grpo.config import DataArguments, OmniGRPOConfig
    from omni_grpo.data import load_sources, preflight, to_dataset
    from omni_grpo.encoding.encoder import PromptEncoder
    from omni_grpo.launch.scripts import begin, model_kwargs, peft_config, save_final
    from omni_grpo.logs import LogFile
    from omni_grpo.media.decode_cache import open_decode_cache
    from omni_grpo.media.settings import MediaSettings
    from omni_grpo.model.loading import load_model, load_processor
    from omni_grpo.rows.prompts import PROMPT_STYLES
    from omni_grpo.trainer import OmniGRPOTrainer

    data, media, args, model_args = parse((DataArguments, MediaSettings, OmniGRPOConfig, ModelConfig), argv)
    begin(stage)

    # 1. Rewards and data: everything that can be wrong is met here, before the model is loaded.
    reward_funcs = configured_rewards(args.reward_funcs, args.reward_settings)
    rows = load_sources(data.train_file, data.media_root)
    train = to_dataset(rows, data.prompt_style, media.load_audio_from_video)
    processor = load_processor(model_args.model_name_or_path)
    decoded = open_decode_cache(data.decode_cache, data.decode_cache_mb, args.output_dir)
    encoder = PromptEncoder(processor, media, data.max_prompt_length, args.prompt_cache_mb, decoded)
    if is_main_process():
        preflight(train, encoder, stage.folder / "preflight")
    announce(f"RL on {len(train)} rows from {data.train_file}, rewards {', '.join(args.reward_funcs)}")

    # 2. The policy; its reference, where beta > 0, is a copy of it as it is now.
    trainer = OmniGRPOTrainer(
        model=load_model(model_args.model_name_or_path, **model_kwargs(model_args)),
        reward_funcs=reward_funcs,
        args=args,
        train_dataset=train,
        processing_class=processor,
        encoder=encoder,
        section_schema=args.schema(PROMPT_STYLES[data.prompt_style].schema),
        peft_config=peft_config(model_args),
        callbacks=[LogFile(Path(args.output_dir) / "log.jsonl"), SaveWhenAsked(preemption)],
    )

    # 3. Train, from the last complete checkpoint if there is one.
    trainer.train(resume_from_checkpoint=resume_checkpoint(args.output_dir, args.resume_from_checkpoint))
    save_final(trainer, processor, media, data.prompt_style)
    if is_main_process():
        stage.finish(seconds=time.time() - start, steps=trainer.state.global_step)
    announce(f"saved {args.output_dir}")


if __name__ == "__main__":
    main(sys.argv[1:])
