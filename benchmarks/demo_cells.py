# SPDX-License-Identifier: Apache-2.0
"""What the demo's experiments share: a stage with fields of its own, a model's answers to a test."""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path("recipes/configs/demo")
EXPERIMENTS = Path("data/experiments")  # of CONFIGS / "experiments_data.yaml"


def stage(script: str, config: str, **fields: Any) -> None:
    """Run an entry script on a demo config; a stage that is done already returns at once."""
    overrides = [
        part
        for name, value in fields.items()
        for part in (f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)]))
    ]
    subprocess.run(
        [sys.executable, f"recipes/{script}.py", "--config", str(CONFIGS / f"{config}.yaml"), *overrides], check=True
    )


def evaluate(model: Path, folder: Path, ablated: bool = False, **fields: Any) -> Path:
    """
    Answer the demo's test with one model.

    Args:
        model (`Path`): Its directory.
        folder (`Path`): Where the run goes.
        ablated (`bool`): Whether it gets every variant in `fields`, or the first alone.
        fields: Those of `EvalArguments` and its fellows, in place of the demo's.

    Returns:
        `Path`: Folder of the predictions.
    """
    run = yaml.safe_load((CONFIGS / "eval.yaml").read_text(encoding="utf-8"))
    run |= {"models": [f"model={model}"], "output_dir": str(folder), "bare": [], "compare": [], "variants": ["full"]}
    config = folder / "eval.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump(run | {"ablated": ["model"] if ablated else []} | fields))
    subprocess.run([sys.executable, "recipes/eval_omni.py", "--config", str(config)], check=True)
    return folder / "model"


def cells_parser(description: str, name: str, cells: Sequence[str]) -> argparse.ArgumentParser:
    """The fields of an experiment that trains `cells` from one cold start a seed, and writes `name`.md and .json."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cells", nargs="+", choices=cells, default=list(cells))
    parser.add_argument("--output", type=Path, default=Path("runs") / name)
    parser.add_argument("--sft_runs", type=Path, default=Path("runs/demo_seeds"), help="cold starts, of demo-seeds")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results") / f"{name}.md")
    parser.add_argument("--steps", type=int, default=100, help="RL steps of every cell; the demo's own run has 200")
    return parser


def cell_folder(output: Path, seed: int, name: str) -> Path:
    """Where a cell's run lies."""
    return output / str(seed) / name.replace(", ", "_").replace(" ", "_")


def predictions(folder: Path, variant: str = "full") -> list[dict[str, Any]]:
    """Prediction rows of one model under one variant, by id."""
    name = "predictions.jsonl" if variant == "full" else f"predictions.{variant}.jsonl"
    return sorted(lines(folder / name), key=lambda row: row["id"])


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def write_lines(rows: Iterable[dict[str, Any]], file: Path) -> Path:
    """JSONL at `file`, left alone where it is the same: another run may be reading it."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return file
