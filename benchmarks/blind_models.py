# SPDX-License-Identifier: Apache-2.0
"""
Does the shortcut index find what it should? Three models, two of them deliberately trained to ignore one modality.

All imitate short gold answers to the intent question from the demo's base, on as many clips. `honest` sees all four
intents: face and voice both count. `deaf` meets warm voices alone, so that the face tells all; `blind` meets amused
faces alone, so that the voice does. Writes benchmarks/results/blind_models.md and .json; resumable.

    make validate-index        # or: python benchmarks/blind_models.py --seed 0
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from demo_cells import EXPERIMENTS, evaluate, lines, predictions, stage, write_lines
from shortcut_table import SENSES, heading, percent

from omni_demo.counterfactual import swap_changes_answer
from omni_grpo.evaluation.shortcut import shortcut_index
from omni_grpo.evaluation.statistics import accuracy_interval
from omni_grpo.run.machine import describe_machine

MODELS = {"honest": {}, "deaf": {"voice": "warm"}, "blind": {"face": "amused"}}


def training_rows(rows: list[dict[str, Any]], shown: dict[str, str], count: int) -> list[dict[str, Any]]:
    """The first `count` intent clips whose face or voice is the one in `shown`, without their targets."""
    clips = [r for r in rows if r["meta"]["kind"] == "intent" and r["meta"]["mix"] == "video+audio"]
    return [r for r in clips if all(r["meta"][side] == value for side, value in shown.items())][:count]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=352, help="clips that each model learns from")
    parser.add_argument("--steps", type=int, default=240, help="of 24 clips")
    parser.add_argument("--output", type=Path, default=Path("runs/blind_models"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/blind_models.md"))
    args = parser.parse_args(argv)

    rows = lines(EXPERIMENTS / "rl.jsonl")
    test = [row for row in lines(Path("data/demo/test.jsonl")) if row["meta"]["kind"] == "intent"]
    test_file = write_lines(test, args.output / "test.jsonl")
    models = {}
    for name, shown in MODELS.items():
        chosen = training_rows(rows, shown, args.rows)
        if len(chosen) < args.rows:
            raise SystemExit(f"{name}: only {len(chosen)} clips; lower --rows")
        stage(
            "sft_omni",
            "controls/answer_only_sft",
            train_file=write_lines(chosen, args.output / f"{name}.jsonl"),
            media_root=EXPERIMENTS,
            output_dir=args.output / name / "sft",
            max_steps=args.steps,
            seed=args.seed,
            validate_answers="false",
            eval_strategy="no",
            load_best_model_at_end="false",
        )
        folder = evaluate(
            args.output / name / "sft",
            args.output / name / "eval",
            ablated=True,
            test_file=str(test_file),
            media_root="data/demo",
            variants=["full", *(f"swapped_{sense}" for sense in SENSES)],
            combined=[],
            prompt_style="short_answer",
        )
        whole = predictions(folder)
        scores = [row["answer_score"] for row in whole]
        models[name] = {"accuracy": {"value": sum(scores) / len(scores), "ci95": list(accuracy_interval(scores))}}
        for sense in SENSES:
            index = shortcut_index(whole, predictions(folder, f"swapped_{sense}"), sense, changes=swap_changes_answer)
            assert index is not None  # every row of this test has a donor
            models[name][sense] = {"value": index.value, "ci95": list(index.ci95), "n": index.n}
    summary = {"date": time.strftime("%Y-%m-%d"), "machine": describe_machine(), "models": models}
    write(summary | {"seed": args.seed, "rows": args.rows, "steps": args.steps}, args.results)
    print(args.results.read_text())


def write(summary: dict[str, Any], results: Path) -> None:
    text = [
        "# The shortcut index on models deliberately trained to ignore one modality",
        "",
        heading(summary, "make validate-index"),
        f"{summary['rows']} clips each, {summary['steps']} steps, seed {summary['seed']}; 400 held-out intent questions, of which the "
        "index counts those whose true answer the swap changes. In %, [95 % interval].",
        "",
        "| model | trained on | accuracy | index, voice | index, face |",
        "|---|---|---|---|---|",
    ]
    for name, model in summary["models"].items():
        shown = " and ".join(f"{value} {side}s alone" for side, value in MODELS[name].items()) or "all intents"
        figures = " | ".join(percent(model[key]) for key in ("accuracy", *SENSES))
        text.append(f"| {name} | {shown} | {figures} |")
    results.parent.mkdir(parents=True, exist_ok=True)
    results.with_suffix(".json").write_text(json.dumps(summary, indent=1) + "\n")
    results.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
