# SPDX-License-Identifier: Apache-2.0
"""
What context gain costs: the share of a step's time that its two passes take, in the demo's RL.

    python benchmarks/grounding_cost.py                   # from runs/demo/sft, six steps, the first left out
    python benchmarks/grounding_cost.py --steps 3 --any_field_of_the_config value

Pairs (`contrast_pairs`) cost nothing: the order of rows is another, the work is the same.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

CONFIG = "recipes/configs/demo/rl.yaml"


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6, help="steps, at least 2; the first is not counted")
    parser.add_argument(
        "--train_file", type=Path, default=Path("data/demo/rl.jsonl"), help="its first 64 rows are taken"
    )
    known, fields = parser.parse_known_args(argv)

    from demo_run import run_stage

    from omni_grpo.experimental.context_gain import ContextGain

    seconds, scored, measure = [], [], ContextGain.__call__

    def clocked(gain, *args, **kwargs):
        start = time.perf_counter()
        gains = measure(gain, *args, **kwargs)
        seconds.append(time.perf_counter() - start)
        scored.append(sum(g is not None for g in gains) / len(gains))
        return gains

    given = {"context_gain_weight": "1.0", "max_steps": str(known.steps)}
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(ContextGain, "__call__", clocked):
        rows = Path(folder) / "rows.jsonl"
        rows.write_text(
            "".join(known.train_file.read_text(encoding="utf-8").splitlines(keepends=True)[:64]), encoding="utf-8"
        )
        given |= {"train_file": str(rows), "media_root": str(known.train_file.parent)}
        run = run_stage(["--config", CONFIG, *fields], Path(folder) / "run", given)
    steps = [times.step for times in run["times"]][1:]
    shares = sorted(a / b for a, b in zip(seconds[1:], steps, strict=True))
    print(
        f"context gain: {100 * sum(seconds[1:]) / sum(steps):.1f} % of the time of {len(steps)} steps "
        f"({100 * shares[0]:.1f} to {100 * shares[-1]:.1f} %), {sum(seconds[1:]) / len(steps):.2f} of "
        f"{sum(steps) / len(steps):.2f} s a step; {100 * sum(scored) / len(scored):.0f} % of completions scored"
    )
    for entry in run["curves"]:
        print({name: round(value, 3) for name, value in entry.items() if "gain" in name})


if __name__ == "__main__":
    main(sys.argv[1:])
