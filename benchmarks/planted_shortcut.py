# SPDX-License-Identifier: Apache-2.0
"""
A planted shortcut: does the training method learn to compare face and voice, or to go by the face?

The question is whether the voice agrees with the face. In training the face tells the answer in nine rows of ten: two
of the four faces nearly always meet a voice that agrees, the two others one that does not. In test it tells nothing.
From one cold start a seed: RL under `uniform`, `paper` and `strict` credit, `paper` with context gain in place of the
reference contexts, `paper` with contrast pairs; beside them the gold answers alone imitated, from the base.
Writes benchmarks/results/planted_shortcut.md and .json as cells finish; resumable cell by cell.

    make ablate-shortcut       # or: python benchmarks/planted_shortcut.py --seeds 0 1 2
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from demo_cells import EXPERIMENTS, cell_folder, cells_parser, evaluate, lines, stage, write_lines
from shortcut_table import write

AGREEING_FACES = ("happy", "angry")  # with which the answer is nearly always yes; with the others, no
MINORITY_PER_FACE = 11  # of 111, 100 of them as the face says
ANSWER, FORMAT, CONTEXT = "answer_reward", "section_format_reward", "context_reward"
RL_CELLS: dict[str, dict[str, Any]] = {
    "uniform GRPO": {"credit_map": "uniform"},
    "paper credit": {"credit_map": "paper"},
    "strict credit": {"credit_map": "strict"},
    "paper, context gain": {"credit_map": "paper", "context_gain_weight": 0.5, "without": CONTEXT},
    "paper, contrast pairs": {
        "credit_map": json.dumps(
            {ANSWER: ["everywhere"], FORMAT: ["everywhere"], CONTEXT: ["context"], "contrast_reward": ["everywhere"]}
        ),
        "contrast_pairs": "true",
        "contrast_weight": 1.0,
    },
}
CELLS = ("cold start", "answer-only SFT", *RL_CELLS)
WEIGHTS = {ANSWER: 1.0, FORMAT: 0.25, CONTEXT: 0.5}


def face_tells(row: dict[str, Any]) -> bool:
    """Whether the answer is the one that goes with this face in nine rows of ten."""
    return (row["solution"] == "yes") == (row["meta"]["face"] in AGREEING_FACES)


def planted(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """
    Agreement rows of which nine in ten are as the face says, all answers and faces equally often. Each of the others is
    the `pair` of a row with the same face, another voice and the other answer.
    """
    others: Counter[str] = Counter()
    usual: Counter[str] = Counter()
    for row in rows:
        meta = row["meta"]
        if meta["kind"] != "agreement" or meta["mix"] not in ("video+audio", "image+audio"):
            continue
        count = usual if face_tells(row) else others
        number = count[meta["face"]]
        count[meta["face"]] += 1
        paired = {"pair": f"{meta['face']}-{number}"} if number < MINORITY_PER_FACE else {}
        if face_tells(row) or paired:
            yield row | paired


def run_cell(name: str, seed: int, start: Path, folder: Path, data: Path, steps: int) -> Path:
    """Train one cell and answer the test with it; the folder of its predictions."""
    model, style, train = start, "short", {"train_file": data / "train.jsonl", "media_root": EXPERIMENTS, "seed": seed}
    if name == "answer-only SFT":
        model, style = folder / "train", "short_answer"
        unvalidated = {"validate_answers": "false", "eval_strategy": "no", "load_best_model_at_end": "false"}
        stage("sft_omni", "controls/answer_only_sft", output_dir=model, max_steps=240, **train, **unvalidated)
    elif name != "cold start":
        model, settings = folder / "train", dict(RL_CELLS[name])
        left_out = settings.pop("without", None)
        weights = {reward: weight for reward, weight in WEIGHTS.items() if reward != left_out}
        stage(
            "grpo_omni",
            "rl",
            model_name_or_path=start,
            output_dir=model,
            reward_funcs=[f"omni_rewards.{reward}" for reward in weights],
            reward_weights=list(weights.values()),
            max_steps=steps,
            **train,
            **settings,
        )
    return evaluate(
        model,
        folder / "eval",
        ablated=True,
        test_file=str(data / "test.jsonl"),
        media_root="data/demo",
        variants=["full", "swapped_audio", "swapped_video"],
        combined=[],
        prompt_style=style,
    )


def main(argv: list[str]) -> None:
    args = cells_parser(__doc__ or "", "planted_shortcut", CELLS).parse_args(argv)

    write_lines(planted(lines(EXPERIMENTS / "rl.jsonl")), args.output / "train.jsonl")
    test = [row for row in lines(Path("data/demo/test.jsonl")) if row["meta"]["kind"] == "agreement"]
    write_lines(test, args.output / "test.jsonl")
    for seed in args.seeds:
        start = args.sft_runs / str(seed) / "sft"
        stage("sft_omni", "sft", seed=seed, output_dir=start)
        for name in args.cells:
            run_cell(name, seed, start, cell_folder(args.output, seed, name), args.output, args.steps)
            write(args.output, CELLS, face_tells, args.steps, args.results)
    print(args.results.read_text())


if __name__ == "__main__":
    main(sys.argv[1:])
