# SPDX-License-Identifier: Apache-2.0
"""
Compare two evaluated models question by question: paired bootstrap intervals and McNemar's test.

    python recipes/compare_runs.py runs/demo/eval/rl runs/demo/eval/sft
    python recipes/compare_runs.py s0/eval/rl,s1/eval/rl,s2/eval/rl s0/eval/sft,s1/eval/sft,s2/eval/sft

Each side is the folder of one model, with its predictions.jsonl, or those of several training seeds with commas
between; of seeds, items and seeds are resampled.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from omni_grpo.evaluation.comparison import compare_runs, comparison_table, read_predictions
from omni_grpo.run.console import run


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", help="folder of an evaluated model, or of its seeds")
    parser.add_argument("b", help="the same for what it is compared with")
    parser.add_argument("--variant", default="full", help="media variant to compare (default: full)")
    parser.add_argument("--group_by", nargs="*", default=[], help="keys of meta, as in the run's config")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args(argv)
    sides = [[Path(folder) for folder in side.split(",")] for side in (args.a, args.b)]
    names = [side[0].name for side in sides]
    if names[0] == names[1]:  # rl of one run and of another
        names = [args.a, args.b]
    rows = [[read_predictions(folder, args.variant) for folder in side] for side in sides]
    compared = compare_runs(rows[0], rows[1], (names[0], names[1]), args.group_by)
    print(comparison_table(compared))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(compared, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
