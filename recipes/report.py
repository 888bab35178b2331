# SPDX-License-Identifier: Apache-2.0
"""Writes a run as one HTML page and PNG curves, with its rollout viewer; or several runs as a page that compares them.

python recipes/report.py --run runs/demo
python recipes/report.py --run runs/mine runs/yours --output comparison.html
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from omni_grpo.report import write_comparison, write_report, write_viewer
from omni_grpo.run.console import run


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        help="run folder, for example runs/demo; several are compared with the first",
    )
    parser.add_argument("--output", type=Path, help="the page; <run>/report.html or comparison.html by default")
    parser.add_argument("--num_clips", type=int, default=12, help="test rows shown with their media (default: 12)")
    parser.add_argument(
        "--num_embedded", type=int, default=48, help="media files inside the viewer; others are linked (default: 48)"
    )
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    if len(arguments.run) > 1:
        page = write_comparison(arguments.run, arguments.output or Path("comparison.html"))
        print(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")
        return
    (run,) = arguments.run
    viewer = None
    if next(run.glob("*/completions/*.parquet"), None):
        folder = arguments.output.parent if arguments.output else run
        viewer = write_viewer(run, folder / "rollouts.html", arguments.num_embedded)
        print(f"{viewer} ({viewer.stat().st_size / 1e6:.1f} MB): every completion, with filters")
    page = write_report(run, arguments.output, arguments.num_clips, viewer)
    print(f"{page} ({page.stat().st_size / 1e6:.1f} MB), curves in {run / 'plots'}")


if __name__ == "__main__":
    run(main)
