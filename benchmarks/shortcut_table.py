# SPDX-License-Identifier: Apache-2.0
"""The tables of `planted_shortcut.py` and `blind_models.py`: predictions to figures with intervals."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from demo_cells import cell_folder, predictions

from omni_demo.counterfactual import swap_changes_answer
from omni_grpo.evaluation.shortcut import index_of, index_terms
from omni_grpo.evaluation.statistics.resampling import percentiles
from omni_grpo.run.machine import describe_machine

SENSES = ("audio", "video")


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return part / whole


FIGURES = {"in": share, "out": share, **{f"index_{sense}": index_of for sense in SENSES}}


def sums(folder: Path, sense: str) -> np.ndarray:
    """Gain and room of each row of the index under a swap, `(2, n)`; the same rows for every model on one test."""
    terms = index_terms(
        predictions(folder), predictions(folder, f"swapped_{sense}"), sense, changes=swap_changes_answer
    )
    return np.array([[t.gain, t.room] for t in terms]).T


def pooled(
    of: Callable[..., np.ndarray], ours: Sequence[np.ndarray], other: Sequence[np.ndarray] | None = None
) -> dict[str, Any]:
    """
    A statistic of two sums over seeds, or ours minus another's on the same seeds and rows; items and seeds resampled as
    in `pooled_bootstrap`.

    Args:
        of (`Callable`): Of both sums, `(r,)` each: [`index_of`], or [`share`].
        ours (sequence of `(2, n)`): What each row adds to the two sums, for each seed.
        other (likewise, *optional*): Those of the model that ours is set against.
    """
    tables = [np.stack(seeds, axis=1) for seeds in ([ours] if other is None else [ours, other])]  # (2, S, n)
    _, num_seeds, n = tables[0].shape

    def statistic(seeds: np.ndarray, items: np.ndarray) -> np.ndarray:  # (r, S), (r, n) -> (r,)
        of_each = [of(*(((seeds @ part) * items).sum(axis=1) for part in table)) for table in tables]
        return of_each[0] - of_each[1] if other is not None else of_each[0]

    def resample(rng: np.random.Generator, size: int) -> np.ndarray:
        return statistic(*(rng.multinomial(k, np.full(k, 1 / k), size=size).astype(float) for k in (num_seeds, n)))

    value = float(statistic(np.ones((1, num_seeds)), np.ones((1, n)))[0])
    low, high = percentiles(resample, n, 5_000, 0, 0.95)
    by_seed = [float(statistic(row[None], np.ones((1, n)))[0]) for row in np.eye(num_seeds)]
    return {"value": value, "ci95": [min(low, value), max(high, value)], "by_seed": by_seed, "n": n}


def summarise(output: Path, cells: Sequence[str], usual: Callable[[dict], bool], steps: int) -> dict[str, Any]:
    """Every cell that is finished, over its seeds; differences over the seeds that it shares with `uniform GRPO`."""
    seeds = sorted(int(f.name) for f in output.iterdir() if f.name.isdigit())
    found: dict[str, dict[int, Path]] = {}
    for name in cells:
        folders = {s: cell_folder(output, s, name) for s in seeds}
        done = {s: f for s, f in folders.items() if (f / "metrics.json").is_file()}
        if done:
            found[name] = done
    summary: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "machine": describe_machine(), "steps": steps}
    summary["cells"], summary["differences"] = {}, {}
    measured = {(name, s): _sums(f / "eval/model", usual) for name, done in found.items() for s, f in done.items()}
    for name, done in found.items():
        stages = [f / "train" / "stage.json" for f in done.values()]
        summary["cells"][name] = {
            "seeds": list(done),
            **{key: pooled(of, [measured[name, s][key] for s in done]) for key, of in FIGURES.items()},
            "seconds": [json.loads(s.read_text())["seconds"] for s in stages if s.is_file()],
            "format": [float(np.mean([r["format_ok"] for r in predictions(f / "eval/model")])) for f in done.values()],
        }
        shared = [s for s in done if s in found.get("uniform GRPO", {})]
        if name != "uniform GRPO" and shared:
            summary["differences"][name] = {"seeds": shared} | {
                key: pooled(of, *([measured[n, s][key] for s in shared] for n in (name, "uniform GRPO")))
                for key, of in FIGURES.items()
            }
    return summary


def _sums(folder: Path, usual: Callable[[dict], bool]) -> dict[str, np.ndarray]:
    """
    Both sums of each figure, row by row: scores on the test as it is (`out`), and weighted as in training (`in`), nine
    tenths on rows that are as the face says; gain and room under each swap.
    """
    rows = predictions(folder)
    scores, as_usual = np.array([(row["answer_score"], usual(row)) for row in rows], dtype=float).T
    weights = np.where(as_usual > 0, 0.9 / as_usual.mean(), 0.1 / (1 - as_usual.mean()))
    accuracies = {"out": np.array([scores, np.ones(len(rows))]), "in": np.array([weights * scores, weights])}
    return accuracies | {f"index_{sense}": sums(folder, sense) for sense in SENSES}


def percent(figure: dict[str, Any], sign: str = "") -> str:
    low, high = (f"{100 * x:{sign}.1f}" for x in figure["ci95"])
    seeds = (
        f" ({' / '.join(f'{100 * x:{sign}.1f}' for x in figure['by_seed'])})"
        if len(figure.get("by_seed", ())) > 1
        else ""
    )
    return f"{100 * figure['value']:{sign}.1f} [{low}, {high}]{seeds}"


def heading(summary: dict[str, Any], command: str) -> str:
    machine = summary["machine"]
    return (
        f"{summary['date']}, {machine['processor']}, {machine['cores']} cores, torch {machine['torch']}, TRL "
        f"{machine['trl']}, transformers {machine['transformers']}; `{command}`."
    )


def write(output: Path, cells: Sequence[str], usual: Callable[[dict], bool], steps: int, results: Path) -> None:
    """The table of every cell that is finished, as Markdown at `results` and as JSON beside it."""
    summary = summarise(output, cells, usual, steps)
    text = [
        "# A planted shortcut",
        "",
        heading(summary, "make ablate-shortcut"),
        f"Agreement questions; in training the face tells the answer in 400 of 444 rows. RL: {steps} steps of 64 "
        "completions from the demo's cold start; context reward on reference contexts except where the context gain "
        "stands in its place. All in %, [95 % bootstrap interval, items and seeds resampled] (each seed): accuracy with "
        "the face telling as often as in training, and with the face telling nothing (chance: 50); shortcut index of "
        "voice and face (what is left of the score when it is another's; lower is better); minutes of training; format.",
        "",
        "| method | seeds | as in training | face tells nothing | index, voice | index, face | minutes | format |",
        "|---" * 8 + "|",
    ]
    for name, cell in summary["cells"].items():
        figures = " | ".join(percent(cell[key]) for key in ("in", "out", "index_audio", "index_video"))
        minutes = " / ".join(f"{s / 60:.1f}" for s in cell["seconds"]) or "–"
        valid = " / ".join(f"{100 * share:.1f}" for share in cell["format"])
        text.append(f"| {name} | {len(cell['seeds'])} | {figures} | {minutes} | {valid} |")
    text += [
        "",
        "Minus uniform GRPO, in points, on the same seeds and rows:",
        "",
        "| method | seeds | face tells nothing | index, voice | index, face |",
        "|---" * 5 + "|",
    ]
    for name, d in summary["differences"].items():
        figures = " | ".join(percent(d[key], "+") for key in ("out", "index_audio", "index_video"))
        text.append(f"| {name} | {len(d['seeds'])} | {figures} |")
    results.parent.mkdir(parents=True, exist_ok=True)
    results.with_suffix(".json").write_text(json.dumps(summary, indent=1) + "\n")
    results.write_text("\n".join(text) + "\n")
