# SPDX-License-Identifier: Apache-2.0
"""
The mini model as assembled: SmolLM2-135M in the text model of a real Qwen2.5-Omni thinker, Whisper tiny's encoder in its
audio tower, the demo's vision tower. It has yet to learn what its towers show it.

    make mini       # or: python recipes/make_mini.py --chat true, after `make setup-mini`

It is not made again until its options change.
"""

import argparse
import time
from pathlib import Path

from omni_grpo.run.console import run
from omni_grpo.run.scripts import begin, claim


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", default="runs/mini/init")
    parser.add_argument("--model_name_or_path", default="recipes/checkpoints/demo_base", help="has the vision tower")
    parser.add_argument("--chat", default="false", help="true: also ask it plain questions, for it to practise later")
    parser.add_argument("--seed", default="0")
    args = parser.parse_args(argv)
    stage = claim([word for name, value in vars(args).items() for word in (f"--{name}", value)])
    if stage is None:
        return
    start = time.time()

    from omni_demo.mini.assemble import assemble, save
    from omni_demo.mini.chat import write_chat

    model, processor = assemble(Path(args.model_name_or_path), int(args.seed))
    begin(stage)
    if args.chat == "true":
        print(f"{write_chat(model, processor, stage.folder)} rows of plain chat in {stage.folder}/chat.jsonl")
    save(model, processor, stage.folder)
    stage.finish(seconds=time.time() - start)
    print(f"saved {stage.folder}")


if __name__ == "__main__":
    run(main)
