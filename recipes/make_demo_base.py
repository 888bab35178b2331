# SPDX-License-Identifier: Apache-2.0
"""
The demo's model before it has learned anything: real Qwen2.5-Omni architecture, about two million random weights.

    python recipes/make_demo_base.py --output_dir runs/demo/init

`make base` then teaches it to see and hear (recipes/configs/demo/base.yaml); the result ships with the project.
"""

import argparse
from pathlib import Path

from omni_grpo.run.console import run


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/demo/init"))
    parser.add_argument("--texts", type=Path, default=Path("data/demo/base_text.jsonl"), help="trains the tokenizer")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)

    from omni_demo.model import save_tiny_omni
    from omni_grpo.data.rows.loading import load_examples
    from omni_grpo.data.rows.prompts import build_messages

    texts = []
    for example in load_examples(args.texts):
        question = build_messages(example, "short")[-1]["content"][-1]["text"]
        texts.append(f"system\nuser\n{question}\nassistant\n{example.target or example.solution}")
    save_tiny_omni(args.output_dir, texts, seed=args.seed)
    print(f"saved {args.output_dir}")


if __name__ == "__main__":
    run(main)
