# SPDX-License-Identifier: Apache-2.0
"""
The demo's RL sampled by vLLM and by `generate`: does it learn the same, and how long does it take on a CPU?

From one cold start, `--steps` steps a cell, seeds paired. Writes benchmarks/results/vllm_demo.md and .json; a stage that
is done is not run again. Needs `make sft` and the environment of `make setup-vllm`:

    .venv-vllm/bin/python benchmarks/vllm_demo.py --seeds 0 1 2
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from demo_cells import cell_folder, cells_parser, evaluate, predictions, stage
from demo_seeds import scores

from omni_grpo.evaluation.statistics import pooled_bootstrap, pooled_paired_bootstrap
from omni_grpo.run.machine import describe_machine

CELLS = {"generate": "rl", "vllm": "rl_vllm"}


def summarise(output: Path, seeds: list[int], steps: int) -> dict[str, Any]:
    """Held-out accuracy of each cell, what vLLM's has above that of `generate`, and minutes of RL."""
    folders = {name: [cell_folder(output, seed, name) for seed in seeds] for name in CELLS}
    found = {
        name: [scores(predictions(folder / "eval/model"), "intent+agreement") for folder in own]
        for name, own in folders.items()
    }
    difference = pooled_paired_bootstrap(list(zip(found["vllm"], found["generate"], strict=True)))
    means = {name: [sum(one) / len(one) for one in own] for name, own in found.items()}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe_machine(),
        "steps": steps,
        "seeds": seeds,
        "accuracy": {name: pooled_bootstrap(own)[:2] for name, own in found.items()},
        "minutes": {
            name: [json.loads((folder / "train/stage.json").read_text())["seconds"] / 60 for folder in own]
            for name, own in folders.items()
        },
        "difference": {"points": difference.difference, "ci95": difference.ci95, "n": difference.n},
        "each": [v - g for v, g in zip(means["vllm"], means["generate"], strict=True)],
    }


def table(found: dict[str, Any]) -> str:
    machine, apart = found["machine"], found["difference"]
    low, high = (100 * end for end in apart["ci95"])
    lines = [
        "# The demo's RL by vLLM and by `generate`",
        "",
        f"{found['date']}, {machine['processor']}, {machine['cores']} cores, torch {machine['torch']}, TRL {machine['trl']}, "
        f"transformers {machine['transformers']}; `.venv-vllm/bin/python benchmarks/vllm_demo.py`.",
        f"{found['steps']} steps of 64 completions from one cold start, seeds {', '.join(map(str, found['seeds']))}. "
        "Held-out intent and agreement questions, in % [95 % bootstrap interval, items and seeds resampled].",
        "",
        "| sampler | accuracy | minutes of RL |",
        "|---|---|---|",
    ]
    for name in CELLS:
        accuracy, (first, last) = found["accuracy"][name]
        minutes = " / ".join(f"{each:.1f}" for each in found["minutes"][name])
        lines.append(f"| {name} | {100 * accuracy:.1f} [{100 * first:.1f}, {100 * last:.1f}] | {minutes} |")
    lines += [
        "",
        f"vLLM − generate, paired: {100 * apart['points']:+.1f} points [{low:+.1f}, {high:+.1f}], n = {apart['n']}; seed by "
        f"seed {' / '.join(f'{100 * one:+.1f}' for one in found['each'])}.",
    ]
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> None:
    parser = cells_parser(__doc__ or "", "vllm_demo", list(CELLS))
    parser.set_defaults(steps=40)
    parser.add_argument("--start", type=Path, default=Path("runs/demo/sft"), help="the cold start")
    args = parser.parse_args(argv)
    for seed in args.seeds:
        for name in args.cells:
            folder = cell_folder(args.output, seed, name)
            fields = {"seed": seed, "model_name_or_path": args.start, "max_steps": args.steps}
            stage("grpo_omni", CELLS[name], output_dir=folder / "train", **fields)
            evaluate(folder / "train", folder / "eval")
    if all((cell_folder(args.output, s, name) / "metrics.json").is_file() for s in args.seeds for name in CELLS):
        found = summarise(args.output, args.seeds, args.steps)
        args.results.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
        args.results.write_text(table(found))
        print(args.results.read_text())


if __name__ == "__main__":
    main(sys.argv[1:])
