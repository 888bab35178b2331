# SPDX-License-Identifier: Apache-2.0
"""
The mini model as assembled: SmolLM2-135M in the text model of a real Qwen2.5-Omni thinker, Whisper tiny's encoder in its
audio tower, the demo's vision tower. It has yet to learn what its towers show it.

    make mini       # or: python recipes/make_mini.py --output_dir runs/mini/init, after `make setup-mini`
"""

import argparse
from pathlib import Path

from omni_grpo.run.console import run


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/mini/init"))
    parser.add_argument(
        "--base", type=Path, default=Path("recipes/checkpoints/demo_base"), help="has the vision tower"
    )
    parser.add_argument(
        "--chat", type=Path, help="where to write its answers to plain questions, for `make mini-demo`"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)

    from omni_demo.mini.assemble import assemble, save
    from omni_demo.mini.chat import write_chat

    model, processor = assemble(args.base, args.seed)
    if args.chat is not None:
        print(f"{write_chat(model, processor, args.chat)} rows of plain chat in {args.chat}")
    save(model, processor, args.output_dir)
    print(f"saved {args.output_dir}")


if __name__ == "__main__":
    run(main)
