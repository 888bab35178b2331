# SPDX-License-Identifier: Apache-2.0
"""Save a trained demo base in bfloat16 as the checkpoint that ships with the project (under 5 MB)."""

import argparse
import sys
from pathlib import Path


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="runs/demo/base")
    parser.add_argument("--output_dir", type=Path, default=Path("recipes/checkpoints/demo_base"))
    args = parser.parse_args(argv)

    import torch

    from omni_grpo.model.loading import load_model, load_processor

    load_model(args.model, dtype=torch.bfloat16).save_pretrained(args.output_dir)
    load_processor(args.model).save_pretrained(args.output_dir)
    print(f"saved {args.output_dir}")


if __name__ == "__main__":
    main(sys.argv[1:])
