# SPDX-License-Identifier: Apache-2.0
"""Rewrites a published HumanOmniV2 or R1-Omni data file as this project's JSONL.

python recipes/convert_data.py emer_rewrite.json data/emer_sft.jsonl --layout humanomniv2 --take end:50%
"""

from __future__ import annotations

import argparse
import logging

from omni_grpo.data.rows.adapters import LAYOUTS
from omni_grpo.data.rows.conversion import convert


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source", help="published file, a JSON list")
    parser.add_argument("destination", help="JSONL file to write")
    parser.add_argument("--layout", required=True, choices=sorted(LAYOUTS), help="whose records these are")
    parser.add_argument("--take", help="part of the file: first:, end: or random: and N or N%%, such as first:50%%")
    parser.add_argument("--seed", type=int, default=0, help="seed of --take random:… (default: 0)")
    parser.add_argument("--path_prefix", default="", help="taken off the front of every media path")
    parser.add_argument(
        "--skip_bad", action="store_true", help="leave bad records out, naming each, instead of failing"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        num_rows = convert(
            arguments.source,
            arguments.destination,
            arguments.layout,
            take=arguments.take,
            seed=arguments.seed,
            path_prefix=arguments.path_prefix,
            skip_bad=arguments.skip_bad,
        )
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    print(f"{num_rows} rows written to {arguments.destination}")


if __name__ == "__main__":
    main()
