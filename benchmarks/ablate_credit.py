# SPDX-License-Identifier: Apache-2.0
"""
Credit maps on the demo: from one cold start a seed, RL under `uniform`, `paper`, `strict`, and `strict` with
constrained decoding, all with the same three rewards (answer, format, and the context against what the clip shows).
Writes benchmarks/results/ablate_credit.md and .json, again after every seed; resumable cell by cell.

    make ablate-credit         # or: python benchmarks/ablate_credit.py --seeds 0 1 2
"""

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path

import yaml
from credit_table import lines, summarise, write

from omni_grpo.demo.targets import context_of

CONFIGS = "recipes/configs/demo"
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


def stage(script: str, config: str, **fields: object) -> None:
    """Run an entry script; a stage that is done already returns at once."""
    overrides = [
        p for name, v in fields.items() for p in (f"--{name}", *(map(str, v) if isinstance(v, list) else [str(v)]))
    ]
    subprocess.run(
        [sys.executable, f"recipes/{script}.py", "--config", f"{CONFIGS}/{config}.yaml", *overrides], check=True
    )


def write_rows_with_contexts(source: Path, target: Path) -> None:
    """The demo's RL rows with a reference context each, said in words drawn by the row's id, from what its media show."""
    rows = []
    for row in lines(source):
        meta = row["meta"]
        voice = None if meta["mix"] == "video" else meta["voice"]
        rows.append(row | {"context": context_of(meta["face"], voice, random.Random(row["id"]))})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if not target.is_file() or target.read_text() != text:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def evaluate(model: Path, folder: Path) -> Path:
    """Answer the test file with one model; returns the folder of its predictions."""
    fields = yaml.safe_load(Path(f"{CONFIGS}/eval.yaml").read_text(encoding="utf-8"))
    fields |= {"models": [f"model={model}"], "output_dir": str(folder), "variants": ["full"]}
    config = folder / "eval.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump(fields | {"ablated": [], "bare": [], "compare": []}))
    subprocess.run([sys.executable, "recipes/eval_omni.py", "--config", str(config)], check=True)
    return folder / "model"


def run_seed(seed: int, args: argparse.Namespace) -> dict[str, Path]:
    """Train and evaluate every cell of a seed; folder of the predictions by cell."""
    start, output = args.sft_runs / str(seed) / "sft", args.output / str(seed)
    stage("sft_omni", "sft", seed=seed, output_dir=start)
    cells = {"cold start": evaluate(start, output / "cold_start" / "eval")}
    for name in args.cells:
        if "constrained" in name and seed not in args.constrained_seeds:
            continue
        folder = output / name.replace(", ", "_")
        stage(
            "grpo_omni",
            "rl",
            seed=seed,
            model_name_or_path=start,
            output_dir=folder / "rl",
            train_file=args.output / "rl.jsonl",
            media_root="data/demo",
            reward_funcs=list(REWARDS),
            reward_weights=list(REWARDS.values()),
            **CELLS[name],
            max_steps=args.steps,
        )
        cells[name] = evaluate(folder / "rl", folder / "eval")
    return cells


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--constrained_seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("runs/ablate_credit"))
    parser.add_argument(
        "--sft_runs", type=Path, default=Path("runs/demo_seeds"), help="cold starts, as demo-seeds has them"
    )
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/ablate_credit.md"))
    parser.add_argument("--steps", type=int, default=100, help="RL steps of every cell; the demo's own run has 200")
    args = parser.parse_args(argv)

    write_rows_with_contexts(Path("data/demo/rl.jsonl"), args.output / "rl.jsonl")
    contexts = {row["id"]: row["context"] for row in lines(Path("data/demo/test.jsonl"))}
    done: dict[int, dict[str, Path]] = {}
    for seed in args.seeds:
        done[seed] = run_seed(seed, args)
        write(summarise(done, contexts, REWARDS) | {"steps": args.steps}, args.results)
    print(args.results.read_text())


if __name__ == "__main__":
    main(sys.argv[1:])
