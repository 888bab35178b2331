# SPDX-License-Identifier: Apache-2.0
"""Writes a run as one HTML page and PNG curves.

python recipes/report.py --run runs/demo
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from omni_grpo.report import write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--run", type=Path, required=True, help="run folder, for example runs/demo")
    parser.add_argument("--output", type=Path, help="the page; <run>/report.html by default")
    parser.add_argument("--num_clips", type=int, default=12, help="test rows shown with their media (default: 12)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    page = write_report(arguments.run, arguments.output, arguments.num_clips)
    print(f"{page} ({page.stat().st_size / 1e6:.1f} MB), curves in {arguments.run / 'plots'}")


if __name__ == "__main__":
    main()
