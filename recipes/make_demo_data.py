# SPDX-License-Identifier: Apache-2.0
"""Make the demo data: drawn faces that speak, and questions about them.

    python recipes/make_demo_data.py --config recipes/configs/demo/data.yaml
    python recipes/make_demo_data.py --config recipes/configs/demo/data.yaml --splits sft,rl --seed 3

Every field of the YAML file can be given as an option. Needs the extra `demo`.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from omni_demo.config import load_config, parse_overrides
from omni_demo.generate import generate
from omni_grpo.run.console import run


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="YAML file with fields of DemoDataConfig")
    known, rest = parser.parse_known_args(argv)
    try:
        config = load_config(known.config, parse_overrides(rest))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    summary = generate(config)
    for split, rows in summary.rows.items():
        print(f"{split:<12} {rows:>6} rows   {Path(config.output_dir) / split}.jsonl")
    print(f"{summary.made} of {summary.clips} clips made, {summary.seconds:.1f} s")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run(main)
