# SPDX-License-Identifier: Apache-2.0
"""
One demo run as a table with its date and machine.

    python benchmarks/demo_table.py --run runs/demo --output benchmarks/results/demo_one_seed.md
"""

import argparse
import json
import sys
from pathlib import Path


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/demo_one_seed.md"))
    args = parser.parse_args(argv)

    from omni_grpo.evaluation.scoring import table

    summary = json.loads((args.run / "metrics.json").read_text())
    machine = ", ".join(f"{name} {value}" for name, value in summary["machine"].items())
    minutes = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in summary["seconds"].items())
    date = summary["stages"]["rl"]["created"][:10]
    text = (
        f"# One run of `make demo`\n\n{date}; {machine}.\nMinutes: {minutes}. Held-out people, voices and phrases.\n"
    )
    args.output.write_text(f"{text}\n```\n{table(summary)}\n```\n", encoding="utf-8")
    print(args.output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(sys.argv[1:])
