# SPDX-License-Identifier: Apache-2.0
"""
Draw many completions of each row from a checkpoint, scored by the run's own rewards.

    python recipes/sample_omni.py --config recipes/configs/demo/sample.yaml [--any_field value]
    accelerate launch --num_processes 8 recipes/sample_omni.py --config …

Without --config it samples the demo's RL rows. Result: <output_dir>/samples.jsonl, from which `select_rows.py` makes a
difficulty band, worked examples and pairs, as often as you like. A cut run goes on at the row where it stopped, on as
many processes as you like, and draws what it would have drawn.
"""

import time
from dataclasses import asdict
from datetime import timedelta

from omni_grpo.run.command_line import help_text, parse, with_default_config
from omni_grpo.run.console import run
from omni_grpo.run.reward_settings import check_rewards
from omni_grpo.run.scripts import announce, as_trained, begin, claim, watch


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
    from omni_grpo.data.media.settings import MediaSettings
    from omni_grpo.evaluation.evaluate import Share
    from omni_grpo.sampling.arguments import SampleArguments
    from omni_grpo.sampling.sampling import sample
    from omni_grpo.sampling.selection import pass_rates

    data, media, args = parse((DataArguments, MediaSettings, SampleArguments), argv)
    processes = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=7))
    share = Share(processes.process_index, processes.num_processes, processes.wait_for_everyone)
    data, media = as_trained(args.model_name_or_path, argv, data, media)
    begin(stage)
    share.wait()
    announce(f"{args.num_completions} completions a row of {data.train_file}, rewards {', '.join(args.reward_funcs)}")
    drawn = sample(data, media, args, share, processes.device)
    if share.index == 0:
        stage.finish(seconds=time.time() - start, data=asdict(data), load_audio_from_video=media.load_audio_from_video)
        announce(pass_rates(drawn))


if __name__ == "__main__":
    run(main)
