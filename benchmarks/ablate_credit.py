# SPDX-License-Identifier: Apache-2.0
"""
Credit maps on the demo: from one cold start a seed, RL under `uniform`, `paper`, `strict`, and `strict` with
constrained decoding, all with the same three rewards (answer, format, and the context against what the clip shows).
Writes benchmarks/results/ablate_credit.md and .json, again after every seed; resumable cell by cell.

    make ablate-credit         # or: python benchmarks/ablate_credit.py --seeds 0 1 2
"""

import argparse
import sys
from pathlib import Path

from credit_table import summarise, write
from demo_cells import EXPERIMENTS, cell_folder, cells_parser, evaluate, lines, stage

REWARDS = {
    "omni_rewards.answer_reward": 1.0,
    "omni_rewards.section_format_reward": 0.25,
    "omni_rewards.context_reward": 0.5,
}
CELLS = {
    "uniform": {"credit_map": "uniform"},
    "paper": {"credit_map": "paper"},
    "strict": {"credit_map": "strict"},
    "strict, constrained": {"credit_map": "strict", "constrained_decoding": "strict"},
}


def run_seed(seed: int, args: argparse.Namespace) -> dict[str, Path]:
    """Train and evaluate every cell of a seed; folder of the predictions by cell."""
    start, output = args.sft_runs / str(seed) / "sft", args.output / str(seed)
    stage("sft_omni", "sft", seed=seed, output_dir=start)
    cells = {"cold start": evaluate(start, output / "cold_start" / "eval")}
    for name in args.cells:
        if "constrained" in name and seed not in args.constrained_seeds:
            continue
        folder = cell_folder(args.output, seed, name)
        stage(
            "grpo_omni",
            "rl",
            seed=seed,
            model_name_or_path=start,
            output_dir=folder / "rl",
            train_file=EXPERIMENTS / "rl.jsonl",
            reward_funcs=list(REWARDS),
            reward_weights=list(REWARDS.values()),
            **CELLS[name],
            max_steps=args.steps,
        )
        cells[name] = evaluate(folder / "rl", folder / "eval")
    return cells


def main(argv: list[str]) -> None:
    parser = cells_parser(__doc__ or "", "ablate_credit", list(CELLS))
    parser.add_argument("--constrained_seeds", type=int, nargs="*", default=[0])
    args = parser.parse_args(argv)

    contexts = {row["id"]: row["context"] for row in lines(Path("data/demo/test.jsonl"))}
    done: dict[int, dict[str, Path]] = {}
    for seed in args.seeds:
        done[seed] = run_seed(seed, args)
        write(summarise(done, contexts, REWARDS) | {"steps": args.steps}, args.results)
    print(args.results.read_text())


if __name__ == "__main__":
    main(sys.argv[1:])
