# SPDX-License-Identifier: Apache-2.0
"""The table of `ablate_method.py`: predictions to figures with intervals over seeds and questions."""

import json
import os
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


def cells_file(results: Path) -> Path:
    """Where what each row of each finished cell adds to the figures is kept: what is there is not run again."""
    return results.with_name(f"{results.stem}_cells.json")


def recorded(results: Path) -> dict[str, dict[str, Any]]:
    """The finished cells, by `seed/arm`."""
    file = cells_file(results)
    return json.loads(file.read_text()) if file.is_file() else {}


def record(output: Path, arms: Sequence[str], results: Path) -> dict[str, dict[str, Any]]:
    """Those, and the cells that are finished in `output`, written down."""
    cells = recorded(results)
    for seed in sorted(int(f.name) for f in output.iterdir() if f.name.isdigit()):
        for arm in arms:
            folder = cell_folder(output, seed, arm)
            if f"{seed}/{arm}" not in cells and (folder / "metrics.json").is_file():
                stage, rows = folder / "train" / "stage.json", predictions(folder / "eval/model")
                cells[f"{seed}/{arm}"] = {
                    "tokens": float(np.mean([row["num_tokens"] for row in rows])),
                    "seconds": json.loads(stage.read_text())["seconds"] if stage.is_file() else None,
                    **{key: np.round(both, 4).tolist() for key, both in figures(folder / "eval/model").items()},
                }
    text = json.dumps(cells, separators=(",", ":")).replace(".0,", ",").replace(".0]", "]")
    part = results.with_name(f"{results.stem}_cells.{os.getpid()}")  # other seeds may be read and written meanwhile
    part.write_text(text)
    part.replace(cells_file(results))
    return cells


def summarise(cells: dict[str, dict[str, Any]], arms: Sequence[str], steps: int) -> dict[str, Any]:
    """Every finished cell, over its seeds; differences over the seeds that an arm shares with `BASELINE`."""
    seeds = sorted({int(name.partition("/")[0]) for name in cells})
    made = {(arm, s): cells[f"{s}/{arm}"] for arm in arms for s in seeds if f"{s}/{arm}" in cells}
    measured = {at: {key: np.array(cell[key], dtype=float) for key in COLUMNS} for at, cell in made.items()}
    summary: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "machine": describe_machine(), "steps": steps}
    summary["cells"], summary["differences"] = {}, {}
    for arm in arms:
        done = [seed for seed in seeds if (arm, seed) in measured]
        if not done:
            continue
        summary["cells"][arm] = {
            "seeds": done,
            **{key: pooled(FIGURES.get(key, share), [measured[arm, s][key] for s in done]) for key in COLUMNS},
            "tokens": [made[arm, s]["tokens"] for s in done],
            "seconds": [made[arm, s]["seconds"] for s in done if made[arm, s]["seconds"]],
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
    summary = summarise(record(output, arms, results), arms, steps)
    titles = list(COLUMNS.values())
    text = [
        "# What the section rewards buy on the demo",
        "",
        heading(summary, "make ablate-method"),
        f"{steps} RL steps of 64 completions on the same rows from the same cold start (22 SFT steps). Held-out intent and "
        "agreement questions; all in %, [95 % bootstrap interval, items and seeds resampled] (each seed). Context right: "
        "it says of face and voice what the clip shows, and nothing else of them. Reasoning consistent: the answer "
        "follows by the demo's rules from the face and voice that it names, and it states no other. Index: what is left "
        "of the score when voice or face is another's; lower is better. The judge grades by the demo's own rules; the "
        "noisy one gives 15 % of the questions a wrong grade. Minutes of RL.",
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
