# SPDX-License-Identifier: Apache-2.0
"""
The section rewards on the demo: what a judged context and a judged reasoning buy, under which credit.

From one cold start a seed, whose contexts are wrong in more than two of five answers: RL with two rewards (answer, format) and
with four (context and reasoning graded by the demo's judge over HTTP), under several credit maps; one arm's judge gives
15 % of the questions a wrong grade. Equal rows and steps. Writes benchmarks/results/ablate_method.md and .json as cells
finish, and what each row adds to ablate_method_cells.json: a cell in there is not run again, also on another machine.
Delete it to measure anew.

    make ablate-method         # or: python benchmarks/ablate_method.py --seeds 0 1 2
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from demo_cells import cell_folder, cells_parser, evaluate, stage
from method_table import recorded, write

from omni_demo.judge_server import MODEL, serving

TWO = {"omni_rewards.answer_reward": 1.0, "omni_rewards.section_format_reward": 0.25}
JUDGED = {"omni_rewards.AsyncContextReward": 0.5, "omni_rewards.AsyncReasoningReward": 0.5}
SKILL = dict(zip(TWO | JUDGED, (0.35, 0.15, 0.25, 0.25), strict=True))  # `credit_map: skill` is `strict` with these
OWN_MAP = {  # the context is moved by its own reward and the format alone
    "answer_reward": ["think", "answer"],
    "context_reward": ["context"],
    "reasoning_reward": ["think"],
    "section_format_reward": ["everywhere"],
}
ERROR_RATE = 0.15
ARMS: dict[str, dict[str, Any]] = {
    "cold start": {},
    "two rewards, uniform": {"rewards": TWO, "credit_map": "uniform"},
    "four rewards, uniform": {"rewards": TWO | JUDGED, "credit_map": "uniform"},
    "four, paper": {"rewards": TWO | JUDGED, "credit_map": "paper"},
    "four, skill": {"rewards": SKILL, "credit_map": "strict"},
    "four, own map": {"rewards": TWO | JUDGED, "credit_map": json.dumps(OWN_MAP)},
    "four, paper, noisy judge": {"rewards": TWO | JUDGED, "credit_map": "paper", "error_rate": ERROR_RATE},
    "four, paper, constrained": {"rewards": TWO | JUDGED, "credit_map": "paper", "constrained_decoding": "strict"},
}


def train(name: str, seed: int, start: Path, folder: Path, steps: int) -> Path:
    """One arm from its cold start; the folder of its weights."""
    fields = dict(ARMS[name])
    rewards, error_rate = fields.pop("rewards"), fields.pop("error_rate", 0.0)
    with serving(error_rate=error_rate, seed=seed) as server:
        os.environ["JUDGE_ENDPOINT"] = server.endpoint
        judge = {"endpoint": "$JUDGE_ENDPOINT", "model": MODEL, "cache_dir": str(folder / "judged")}
        stage(
            "grpo_omni",
            "judged/rl",
            seed=seed,
            model_name_or_path=start,
            output_dir=folder / "train",
            reward_funcs=list(rewards),
            reward_settings=json.dumps({reward: {"judge": judge} for reward in rewards if reward in JUDGED}),
            reward_weights=list(rewards.values()),
            max_steps=steps,
            **fields,
        )
    return folder / "train"


def main(argv: list[str]) -> None:
    parser = cells_parser(__doc__ or "", "ablate_method", list(ARMS))
    parser.add_argument("--constrained_seeds", type=int, nargs="*", default=[0])
    args = parser.parse_args(argv)
    for seed in args.seeds:
        start, done = args.output / str(seed) / "sft", recorded(args.results)
        wanted = [a for a in args.cells if "constrained" not in a or seed in args.constrained_seeds]
        if not (left := [arm for arm in wanted if f"{seed}/{arm}" not in done]):
            continue
        stage("sft_omni", "judged/sft", seed=seed, output_dir=start)
        for name in left:
            folder = cell_folder(args.output, seed, name)
            model = train(name, seed, start, folder, args.steps) if ARMS[name] else start
            variants = ["full", "swapped_audio", "swapped_video"]
            evaluate(model, folder / "eval", ablated=True, variants=variants, ablated_rows=800)
            write(args.output, list(ARMS), args.steps, args.results)
    print(args.results.read_text())


if __name__ == "__main__":
    main(sys.argv[1:])
