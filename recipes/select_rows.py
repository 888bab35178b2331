# SPDX-License-Identifier: Apache-2.0
"""Writes a selection of sampled rows: a difficulty band for RL, worked examples for SFT, pairs for preference training.

python recipes/select_rows.py runs/demo/samples data/demo/rl_band.jsonl --select band
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path


def by_type(words: list[str], default: str) -> dict[str, str]:
    """`VALUE` for all problem types, `TYPE=VALUE` for one; the default where no value is for all."""
    pairs = [word.rpartition("=")[::2] for word in words]
    return {"": default} | dict(pairs)


def limits(text: str) -> tuple[Fraction, Fraction]:
    """`1/8:5/8`; raises `ValueError` for what is no band."""
    least, _, most = text.partition(":")
    band = Fraction(least), Fraction(most)
    if not 0 <= band[0] <= band[1] <= 1:
        raise ValueError(f"--band: {text!r} is not LEAST:MOST, two shares from 0 to 1, such as 1/8:5/8")
    return band


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("samples", type=Path, help="folder of a finished sampling, its output_dir")
    parser.add_argument("destination", type=Path, help="JSONL file to write, best beside the data that were sampled")
    parser.add_argument("--select", required=True, choices=("band", "worked_examples", "pairs"), help="what to choose")
    parser.add_argument("--reward", default="answer_reward", help="says whether a completion is right (answer_reward)")
    parser.add_argument(
        "--right_above",
        nargs="*",
        default=[],
        metavar="[TYPE=]SCORE",
        help="right is above this score (0.2; 0.5 if not a band)",
    )
    parser.add_argument(
        "--band", nargs="*", default=[], metavar="[TYPE=]LEAST:MOST", help="shares of right completions (1/8:5/8)"
    )
    parser.add_argument(
        "--at_least", nargs="*", default=[], metavar="REWARD=SCORE", help="what a worked example must earn besides"
    )
    arguments = parser.parse_args()
    try:
        print(_select(arguments))
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")


def _select(arguments: argparse.Namespace) -> str:
    from omni_grpo.sampling.selected_rows import write_selection
    from omni_grpo.sampling.selection import Rule

    usual = "0.2" if arguments.select == "band" else "0.5"
    rule = Rule(
        arguments.reward,
        {kind: float(score) for kind, score in by_type(arguments.right_above, usual).items()},
        {kind: limits(band) for kind, band in by_type(arguments.band, "1/8:5/8").items()},
        {name: float(score) for name, score in by_type(arguments.at_least, "0").items() if name},
    )
    return write_selection(arguments.select, arguments.samples, arguments.destination, rule)


if __name__ == "__main__":
    main()
