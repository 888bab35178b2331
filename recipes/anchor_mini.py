# SPDX-License-Identifier: Apache-2.0
"""
The mini model's towers anchored to its words, before the whole of it is aligned (docs/mini.md).

    python recipes/anchor_mini.py --config recipes/configs/mini/anchor.yaml [--any_field value]

An interrupted run goes on from its last complete checkpoint; a finished one is not run again until its inputs change.
"""

import time
from pathlib import Path

from omni_grpo.run.command_line import parse, with_default_config
from omni_grpo.run.console import run
from omni_grpo.run.scripts import announce, begin, claim, model_kwargs, note_settings, watch


def main(argv: list[str]) -> None:
    argv = with_default_config(argv, "mini/anchor.yaml")
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return
    stage = claim(argv)
    if stage is None:
        return
    preemption = watch(stage)
    start = time.time()

    from trl import ModelConfig

    from omni_demo.mini.anchor import AnchorConfig, AnchorTrainer, clips_of, shown_of
    from omni_grpo.config import DataArguments
    from omni_grpo.data.dataset import load_sources, preflight, to_dataset
    from omni_grpo.data.encoding.encoder import PromptEncoder
    from omni_grpo.data.media.decode_cache import open_decode_cache
    from omni_grpo.data.media.settings import MediaSettings
    from omni_grpo.model.loading import load_model, load_processor
    from omni_grpo.run.checkpoints import SaveWhenAsked, resume_checkpoint
    from omni_grpo.run.log_file import LogFile
    from omni_grpo.run.progress import finish, follow

    data, media, args, model_args = parse((DataArguments, MediaSettings, AnchorConfig, ModelConfig), argv)
    begin(stage)
    note_settings(args.output_dir, data, media)

    def dataset(source: str):
        clips = clips_of(load_sources(source, data.media_root))
        rows = to_dataset(clips, data.prompt_style)
        for name in ("face", "voice", "phrase"):
            rows = rows.add_column(name, [shown_of(clip)[name] for clip in clips])
        return rows

    train, validation = dataset(data.train_file), dataset(data.validation_file)
    processor = load_processor(model_args.model_name_or_path)
    decoded = open_decode_cache(data.decode_cache, data.decode_cache_mb, args.output_dir)
    encoder = PromptEncoder(processor, media, data.max_prompt_length, args.prompt_cache_mb, decoded)
    preflight(train, encoder, stage.folder / "preflight")
    preflight(validation, encoder, stage.folder / "preflight_validation")
    announce(f"anchors on {len(train)} clips from {data.train_file}")

    trainer = AnchorTrainer(
        load_model(model_args.model_name_or_path, **model_kwargs(model_args)),
        args,
        train,
        encoder,
        eval_dataset=validation,
        callbacks=[LogFile(Path(args.output_dir) / "log.jsonl"), SaveWhenAsked(preemption)],
    )
    follow(trainer, "anchors")
    trainer.train(resume_from_checkpoint=resume_checkpoint(args.output_dir, args.resume_from_checkpoint))
    finish(trainer, processor, stage, "anchors", argv, start)


if __name__ == "__main__":
    run(main)
