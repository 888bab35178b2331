# SPDX-License-Identifier: Apache-2.0
"""The table of `ablate_credit.py`: predictions to figures with intervals, figures to Markdown and JSON."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from demo_cells import lines

from omni_grpo.evaluation.statistics import pooled_bootstrap, pooled_paired_bootstrap
from omni_grpo.run.machine import describe_machine
from omni_rewards import context_reward

GROUPS = ("agreement", "intent", "intent+agreement")


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


def summarise(done: dict[int, dict[str, Path]], contexts: dict[str, str], rewards: dict[str, float]) -> dict[str, Any]:
    """
    Cells pooled over the seeds that have them, beside the cold start that they began from.

    Args:
        done (`dict`): Folder of the predictions, by seed and cell.
        contexts (`dict`): Reference context of each test row.
        rewards (`dict`): Rewards of the runs and their weights.
    """
    names = list(next(iter(done.values())))
    table = {
        name: {seed: figures(cells[name], contexts) for seed, cells in done.items() if name in cells} for name in names
    }
    summary: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe_machine(),
        "seeds": list(done),
        "rewards": rewards,
        "cells": {},
        "differences": {},
    }
    for name, found in table.items():
        by_seed = list(found.values())
        pooled = {g: pooled_bootstrap([f["scores"][g] for f in by_seed]) for g in GROUPS}
        summary["cells"][name] = {
            "accuracy": {
                g: {
                    "mean": mean,
                    "ci95": list(ci95),
                    "by_seed": [float(np.mean(f["scores"][g])) for f in by_seed],
                }
                for g, (mean, ci95, _) in pooled.items()
            },
            **{key: [f[key] for f in by_seed] for key in ("format", "context", "length", "seconds")},
        }
    for name in names:
        if name not in ("uniform", "cold start") and "uniform" in table:
            pairs = [
                (own["scores"][GROUPS[2]], table["uniform"][seed]["scores"][GROUPS[2]])
                for seed, own in table[name].items()
            ]
            paired = pooled_paired_bootstrap(pairs)
            summary["differences"][name] = {"difference": paired.difference, "ci95": list(paired.ci95), "n": paired.n}
    return summary


def write(summary: dict[str, Any], results: Path) -> None:
    """`results` as Markdown, and the same beside it as JSON."""
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
        f"{summary['steps']} RL steps of 64 completions from the same cold start. Rewards and weights, the same in every cell: {', '.join(f'`{k}` {v}' for k, v in summary['rewards'].items())}. "
        "Held-out accuracy in % [95 % bootstrap interval, items and seeds resampled] (each seed); format, context (`context_reward`, "
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
