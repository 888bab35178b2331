# SPDX-License-Identifier: Apache-2.0
"""`make smoke`, as a user runs it: data, base, SFT and GRPO with the demo's own YAML files."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_loop_turns() -> None:
    run = subprocess.run(
        [sys.executable, "recipes/smoke.py"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.rstrip().endswith("the loop turns: data → SFT → GRPO, on video, image, audio and text")
