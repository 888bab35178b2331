# SPDX-License-Identifier: Apache-2.0
"""
Draw many completions of each row from a checkpoint, scored by the run's own rewards.

    python recipes/sample_omni.py --config recipes/configs/demo/sample.yaml [--any_field value]
    torchrun --nproc_per_node 8 recipes/sample_omni.py --config …

Without --config it samples the demo's RL rows. Result: <output_dir>/samples.jsonl, from which `select_rows.py` makes a
difficulty band, worked examples and pairs, as often as you like. A cut run goes on at the row where it stopped, on as
many processes as you like, and draws what it would have drawn.
"""

import time
from datetime import timedelta

from omni_grpo.run.command_line import help_text, parse, with_default_config
from omni_grpo.run.console import run
from omni_grpo.run.reward_settings import check_rewards, configured_rewards
from omni_grpo.run.scripts import announce, claim, is_main_process, watch


def main(argv: list[str]) -> None:
    argv = with_default_config(argv, "demo/sample.yaml")
    if {"-h", "--help"} & set(argv):
        print(help_text("sample", __doc__))
        return
    stage = claim(argv)
    if stage is None:
        return
    watch(stage)
    check_rewards(argv)
    start = time.time()

    import torch
    from accelerate import PartialState

    from omni_grpo.config import DataArguments
    from omni_grpo.data.dataset import load_sources, preflight, to_dataset
    from omni_grpo.data.encoding.encoder import PromptEncoder
    from omni_grpo.data.media.decode_cache import open_decode_cache
    from omni_grpo.data.media.settings import MediaSettings
    from omni_grpo.data.rows.prompts import PROMPT_STYLES
    from omni_grpo.evaluation.evaluate import Share
    from omni_grpo.model.loading import load_model, load_processor
    from omni_grpo.model.towers import attach_media_embedder
    from omni_grpo.run.reward_columns import check_reward_columns
    from omni_grpo.run.scripts import as_trained, begin, note_settings
    from omni_grpo.sampling.arguments import SampleArguments
    from omni_grpo.sampling.sampling import SAMPLES, sample
    from omni_grpo.sampling.selection import Rule, pass_rates

    data, media, args = parse((DataArguments, MediaSettings, SampleArguments), argv)
    processes = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=7))
    data, media = as_trained(args.model_name_or_path, argv, data, media)
    begin(stage)
    processes.wait_for_everyone()
    note_settings(args.output_dir, data, media)
    schema = PROMPT_STYLES[data.prompt_style].schema
    rewards = configured_rewards(args.reward_funcs, args.reward_settings, schema)
    examples = load_sources(data.train_file, data.media_root, data.train_split, data.media_roots)
    rows = to_dataset(examples, data.prompt_style, media.load_audio_from_video)
    check_reward_columns(rewards, rows, args.allow_unused_rewards)
    decoded = open_decode_cache(data.decode_cache, data.decode_cache_mb, args.output_dir)
    encoder = PromptEncoder(
        load_processor(args.model_name_or_path),
        media,
        data.max_prompt_length,
        args.prompt_cache_mb,
        decoded,
        data.escape_control_tokens,
    )
    if is_main_process():
        preflight(rows, encoder, stage.folder / "preflight")
    processes.wait_for_everyone()
    announce(f"{args.num_completions} completions of each of {len(rows)} rows, rewards {', '.join(args.reward_funcs)}")

    model = load_model(args.model_name_or_path, dtype=args.dtype).to(processes.device).eval()
    share = Share(processes.process_index, processes.num_processes, processes.wait_for_everyone)
    file = stage.folder / SAMPLES
    drawn = sample(model, attach_media_embedder(model), encoder, rows, rewards, schema, file, args, share)
    if share.index == 0:
        stage.finish(seconds=time.time() - start)
        names = drawn[0]["completions"][0]["rewards"]
        by = Rule().reward if Rule().reward in names else next(iter(names))
        announce(pass_rates(drawn, Rule(reward=by)))


if __name__ == "__main__":
    run(main)
