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

BAND, SCORE, EARNED = "[TYPE=]LEAST:MOST", "[TYPE=]SCORE", "REWARD=SCORE"  # what options look like


def band(text: str) -> tuple[Fraction, Fraction]:
    """`1/8:5/8`; raises `ValueError` for what are no two shares in order."""
    least, most = map(Fraction, text.split(":"))
    if not 0 <= least <= most <= 1:
        raise ValueError(text)
    return least, most


def named(form: str, example: str, read: Callable[[str], Any]) -> Callable[[str], tuple[str, Any]]:
    """Reads `NAME=VALUE`, or `VALUE` where `form` lets the name be left out."""

    def value(word: str) -> tuple[str, Any]:
        name, _, text = word.rpartition("=")
        try:
            if name or form != EARNED:
                return name, read(text)
        except (ValueError, ZeroDivisionError):
            pass
        raise argparse.ArgumentTypeError(f"{word!r} is not {form}; write e.g. {example}")

    return value


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path, help="folder of a finished sampling, its output_dir")
    parser.add_argument("destination", type=Path, help="JSONL file to write, best beside the data that were sampled")
    parser.add_argument("--select", required=True, choices=("band", "worked_examples", "pairs"))
    parser.add_argument("--reward", default="answer_reward", help="says whether a completion is right (answer_reward)")
    for option, form, example, read, text in (
        (
            "--right_above",
            SCORE,
            "0.5 or free-form=0.5",
            float,
            "right is above this score (0.2 for a band, else 0.5)",
        ),
        ("--band", BAND, "1/8:5/8 or yes_no=3/8:7/8", band, "shares of right completions that are kept (1/8:5/8)"),
        ("--at_least", EARNED, "reasoning_reward=0.5", float, "what a worked example must earn besides"),
    ):
        reader = named(form, example, read)
        parser.add_argument(option, nargs="+", default=[], type=reader, metavar=form, help=f"{text}, e.g. {example}")
    args = parser.parse_args(argv)

    from omni_grpo.sampling.selected_rows import write_selection
    from omni_grpo.sampling.selection import ANY, Rule

    right_above = {ANY: 0.2 if args.select == "band" else 0.5} | dict(args.right_above)
    rule = Rule(args.reward, right_above, Rule().band | dict(args.band), dict(args.at_least))
    print(write_selection(args.select, args.samples, args.destination, rule))


if __name__ == "__main__":
    run(main)
