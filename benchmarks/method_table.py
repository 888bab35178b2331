# SPDX-License-Identifier: Apache-2.0
"""The table of `ablate_method.py`: predictions to figures with intervals over seeds and questions."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from demo_cells import cell_folder, predictions
from shortcut_table import FIGURES, heading, percent, pooled, share, sums

from omni_demo.grading import claims_of, is_consistent
from omni_grpo.run.machine import describe_machine

TASKS = ("intent", "agreement")
BASELINE = "two rewards, uniform"
COLUMNS = {
    "accuracy": "accuracy",
    "context": "context right",
    "consistent": "reasoning consistent",
    "index_audio": "index, voice",
    "index_video": "index, face",
    "format": "format",
}


def figures(folder: Path) -> dict[str, np.ndarray]:
    """
    Both sums of each figure, row by row, `(2, n)`: what counts, and out of how much.

    A context is right that says of the face and of the voice what the clip shows, and nothing else of them. A reasoning
    is consistent from whose face and voice the answer follows by the demo's rules, and that states no other.
    """
    rows = [row for row in predictions(folder) if row["meta"]["kind"] in TASKS]

    def right(row: dict[str, Any]) -> bool:
        true = {side: {row["meta"][side]} for side in ("face", "voice")}
        return claims_of(row["sections"].get("context") or "") == true

    def consistent(row: dict[str, Any]) -> bool:
        sections = row["sections"]
        return is_consistent(row["meta"]["kind"], sections.get("think") or "", sections.get("answer") or "")

    counted = {
        "accuracy": [row["answer_score"] for row in rows],
        "context": [right(row) for row in rows],
        "consistent": [consistent(row) for row in rows],
        "format": [row["format_ok"] for row in rows],
    }
    return {name: np.array([values, np.ones(len(rows))], dtype=float) for name, values in counted.items()} | {
        f"index_{sense}": sums(folder, sense) for sense in ("audio", "video")
    }


def summarise(output: Path, arms: Sequence[str], steps: int) -> dict[str, Any]:
    """Every cell that is finished, over its seeds; differences over the seeds that an arm shares with `BASELINE`."""
    seeds = sorted(int(f.name) for f in output.iterdir() if f.name.isdigit())
    folders = {(arm, seed): cell_folder(output, seed, arm) for arm in arms for seed in seeds}
    measured = {
        cell: figures(folder / "eval/model") for cell, folder in folders.items() if (folder / "metrics.json").is_file()
    }
    summary: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "machine": describe_machine(), "steps": steps}
    summary["cells"], summary["differences"] = {}, {}
    for arm in arms:
        done = [seed for seed in seeds if (arm, seed) in measured]
        if not done:
            continue
        stages = [folders[arm, seed] / "train" / "stage.json" for seed in done]
        summary["cells"][arm] = {
            "seeds": done,
            **{key: pooled(FIGURES.get(key, share), [measured[arm, s][key] for s in done]) for key in COLUMNS},
            "tokens": [
                float(np.mean([r["num_tokens"] for r in predictions(folders[arm, s] / "eval/model")])) for s in done
            ],
            "seconds": [json.loads(s.read_text())["seconds"] for s in stages if s.is_file()],
        }
        shared = [seed for seed in done if (BASELINE, seed) in measured]
        if arm != BASELINE and shared:
            summary["differences"][arm] = {"seeds": shared} | {
                key: pooled(FIGURES.get(key, share), *([measured[a, s][key] for s in shared] for a in (arm, BASELINE)))
                for key in COLUMNS
            }
    return summary


def write(output: Path, arms: Sequence[str], steps: int, results: Path) -> None:
    """The table of every cell that is finished, as Markdown at `results` and as JSON beside it."""
    summary = summarise(output, arms, steps)
    titles = list(COLUMNS.values())
    text = [
        "# What the section rewards buy on the demo",
        "",
        heading(summary, "make ablate-method"),
        f"{steps} RL steps of 64 completions on the same rows from the same cold start (22 SFT steps). Held-out intent and "
        "agreement questions; all in %, [95 % bootstrap interval, items and seeds resampled] (each seed). Context right: "
        "it says of face and voice what the clip shows, and nothing else of them. Reasoning consistent: the "
        "answer follows by the demo's rules from the face and voice that it names, and it states no other. Index: what is left of the score when voice or face is another's; lower is better. The "
        "judge grades by the demo's own rules; the noisy one gives 15 % of the questions a wrong grade. Minutes of RL.",
        "",
        f"| arm | seeds | {' | '.join(titles)} | tokens | minutes |",
        "|---" * (len(titles) + 4) + "|",
    ]
    for arm, cell in summary["cells"].items():
        shown = " | ".join(percent(cell[key]) for key in COLUMNS)
        tokens = " / ".join(f"{n:.1f}" for n in cell["tokens"])
        minutes = " / ".join(f"{s / 60:.1f}" for s in cell["seconds"]) or "–"
        text.append(f"| {arm} | {len(cell['seeds'])} | {shown} | {tokens} | {minutes} |")
    text += ["", f"Minus {BASELINE}, in points, on the same seeds and rows:", ""]
    text += [f"| arm | seeds | {' | '.join(titles)} |", "|---" * (len(titles) + 2) + "|"]
    for arm, cell in summary["differences"].items():
        text.append(f"| {arm} | {len(cell['seeds'])} | {' | '.join(percent(cell[key], '+') for key in COLUMNS)} |")
    results.parent.mkdir(parents=True, exist_ok=True)
    results.with_suffix(".json").write_text(json.dumps(summary, indent=1) + "\n")
    results.write_text("\n".join(text) + "\n")
