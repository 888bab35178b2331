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
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from omni_grpo.demo.targets import context_of
from omni_grpo.machine import describe_machine
from omni_grpo.statistics import bootstrap_interval, pooled_paired_bootstrap
from omni_rewards import context_reward

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
GROUPS = ("agreement", "intent", "intent+agreement")


def stage(script: str, config: str, **fields: object) -> None:
    """Run an entry script; a stage that is done already returns at once."""
    overrides = [
        p for name, v in fields.items() for p in (f"--{name}", *(map(str, v) if isinstance(v, list) else [str(v)]))
    ]
    subprocess.run(
        [sys.executable, f"recipes/{script}.py", "--config", f"{CONFIGS}/{config}.yaml", *overrides], check=True
    )


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


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
            **dict(field.split("=", 1) for field in args.override),
        )
        cells[name] = evaluate(folder / "rl", folder / "eval")
    return cells


def figures(folder: Path, contexts: dict[str, str]) -> dict[str, Any]:
    """What one model wrote on the test file, item by item, and how long its training took."""
    rows = lines(folder / "predictions.jsonl")
    quality = context_reward([r["completion"] for r in rows], [contexts[r["id"]] for r in rows])
    trained = folder.parents[1] / "rl" / "stage.json"
    return {
        "scores": {g: [r["answer_score"] for r in rows if r["meta"]["kind"] in g.split("+")] for g in GROUPS},
        "format": float(np.mean([r["format_ok"] for r in rows])),
        "context": float(np.mean([q for q in quality if q is not None])),
        "length": float(np.mean([r["num_tokens"] for r in rows])),
        "seconds": json.loads(trained.read_text())["seconds"] if trained.is_file() else 0.0,
    }


def summarise(done: dict[int, dict[str, Path]], contexts: dict[str, str]) -> dict[str, Any]:
    """Cells pooled over seeds, beside the cold start that they began from."""
    names = list(next(iter(done.values())))
    table = {name: [figures(cells[name], contexts) for cells in done.values()] for name in names}
    summary: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe_machine(),
        "seeds": list(done),
        "rewards": REWARDS,
        "cells": {},
        "differences": {},
    }
    for name, by_seed in table.items():
        means = {g: np.mean([f["scores"][g] for f in by_seed], axis=0) for g in GROUPS}  # per item, over seeds
        summary["cells"][name] = {
            "accuracy": {
                g: {
                    "mean": float(np.mean(m)),
                    "ci95": list(bootstrap_interval(m)),
                    "by_seed": [float(np.mean(f["scores"][g])) for f in by_seed],
                }
                for g, m in means.items()
            },
            **{key: [f[key] for f in by_seed] for key in ("format", "context", "length", "seconds")},
        }
    for name in names:
        if name not in ("uniform", "cold start") and "uniform" in table:
            pairs = [
                (a["scores"][GROUPS[2]], b["scores"][GROUPS[2]])
                for a, b in zip(table[name], table["uniform"], strict=True)
            ]
            paired = pooled_paired_bootstrap(pairs)
            summary["differences"][name] = {"difference": paired.difference, "ci95": list(paired.ci95), "n": paired.n}
    return summary


def write(summary: dict[str, Any], results: Path) -> None:
    machine = summary["machine"]

    def percent(figure: dict) -> str:
        low, high = (100 * x for x in figure["ci95"])
        return f"{100 * figure['mean']:.1f} [{low:.1f}, {high:.1f}] ({' / '.join(f'{100 * x:.1f}' for x in figure['by_seed'])})"

    def each(values: list[float], scale: float = 1.0) -> str:
        return " / ".join(f"{scale * value:.1f}" for value in values) or "–"

    text = [
        "# Credit maps on the demo",
        "",
        f"{summary['date']}, {machine['processor']}, {machine['cores']} cores, torch {machine['torch']}, TRL "
        f"{machine['trl']}, transformers {machine['transformers']}; seeds {', '.join(map(str, summary['seeds']))}; "
        "`make ablate-credit`.",
        f"Rewards and weights, the same in every cell: {', '.join(f'`{k}` {v}' for k, v in summary['rewards'].items())}. "
        "Held-out accuracy in % [95 % bootstrap interval over items] (each seed); format, context (`context_reward`, "
        "% of its maximum), completion length in tokens and minutes of RL, seed by seed.",
        "",
        f"| credit | {' | '.join(GROUPS)} | format | context | tokens | minutes |",
        "|---" * (len(GROUPS) + 5) + "|",
    ]
    for name, cell in summary["cells"].items():
        accuracy = " | ".join(percent(cell["accuracy"][g]) for g in GROUPS)
        rest = [
            each(cell["format"], 100),
            each(cell["context"], 100),
            each(cell["length"]),
            each(cell["seconds"], 1 / 60),
        ]
        text.append(f"| {name} | {accuracy} | {' | '.join(rest)} |")
    text += ["", f"Paired differences to `uniform` on {GROUPS[2]}, in points [95 %, items and seeds resampled]:", ""]
    for name, d in summary["differences"].items():
        low, high = (100 * x for x in d["ci95"])
        text.append(f"- {name}: {100 * d['difference']:+.1f} [{low:+.1f}, {high:+.1f}], n = {d['n']}")
    results.parent.mkdir(parents=True, exist_ok=True)
    results.with_suffix(".json").write_text(json.dumps(summary, indent=1) + "\n")
    results.write_text("\n".join(text) + "\n")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--output", type=Path, default=Path("runs/ablate_credit"))
    parser.add_argument(
        "--sft_runs", type=Path, default=Path("runs/demo_seeds"), help="cold starts, as demo-seeds has them"
    )
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/ablate_credit.md"))
    parser.add_argument(
        "--override", nargs="*", default=[], help="RL fields as name=value, e.g. max_steps=2 for a trial"
    )
    args = parser.parse_args(argv)

    write_rows_with_contexts(Path("data/demo/rl.jsonl"), args.output / "rl.jsonl")
    contexts = {row["id"]: row["context"] for row in lines(Path("data/demo/test.jsonl"))}
    done: dict[int, dict[str, Path]] = {}
    for seed in args.seeds:
        done[seed] = run_seed(seed, args)
        write(summarise(done, contexts), args.results)
    print(args.results.read_text())


if __name__ == "__main__":
    main(sys.argv[1:])
