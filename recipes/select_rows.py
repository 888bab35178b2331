# SPDX-License-Identifier: Apache-2.0
"""
Write a selection of sampled rows: a difficulty band for RL, worked examples for SFT, pairs for preference training.

    python recipes/select_rows.py runs/demo/samples data/demo/rl_band.jsonl --select band
"""

import argparse
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from omni_grpo.run.console import run

SCORE = "[REWARD=]SCORE, e.g. 0.5 or reasoning_reward=0.5"
SHARES = "[TYPE=]LEAST:MOST, e.g. 1/8:5/8 or yes_no=3/8:7/8"


def band(text: str) -> tuple[Fraction, Fraction]:
    """`1/8:5/8`; raises `ValueError` for what are no two shares in order."""
    least, most = map(Fraction, text.split(":"))
    if not 0 <= least <= most <= 1:
        raise ValueError(text)
    return least, most


def reader(read: Callable[[str], Any], form: str) -> Callable[[str], tuple[str, Any]]:
    """Reads `NAME=VALUE`, or `VALUE` alone, whose name is empty."""

    def value(word: str) -> tuple[str, Any]:
        name, _, text = word.rpartition("=")
        try:
            return name, read(text)
        except (ValueError, ZeroDivisionError):
            raise argparse.ArgumentTypeError(f"{word!r} is not {form}") from None

    return value


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path, help="folder of a finished sampling, its output_dir")
    parser.add_argument("destination", type=Path, help="JSONL file to write, best beside the data that were sampled")
    parser.add_argument("--select", required=True, choices=("band", "worked_examples", "pairs"))
    parser.add_argument("--reward", default="answer_reward", help="says whether a completion is right (answer_reward)")
    for option, read, form, text in (
        ("--right_above", float, SCORE, "a completion is right that earns more (0.2 for a band, else 0.5)"),
        ("--band", band, SHARES, "shares of right completions that are kept (1/8:5/8)"),
    ):
        kind, metavar = reader(read, form), form[form.index("]") + 1 : form.index(",")]
        parser.add_argument(option, nargs="+", default=[], type=kind, metavar=metavar, help=f"{text}: {form}")
    args = parser.parse_args(argv)

    from omni_grpo.sampling.selection import Rule, write_selection

    above = [(args.reward, 0.2 if args.select == "band" else 0.5), *args.right_above]
    rule = Rule({name or args.reward: score for name, score in above}, {**Rule().band, **dict(args.band)})
    print(write_selection(args.select, rule, args.samples, args.destination))


if __name__ == "__main__":
    run(main)
