# SPDX-License-Identifier: Apache-2.0
"""
Run an entry script and kill its process with signal 9, as a machine does, when it has logged a step:

    python tests/killed_run.py STEP recipes/grpo_omni.py --config run.yaml

From within, so that the step is always the same one; the script itself runs as it is.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from typing import Any


def letters_reward(completions: list[Any], **kwargs: Any) -> list[float]:
    """Share of different letters in a completion: an untrained model's groups differ in it."""
    texts = [completion[-1]["content"] for completion in completions]
    return [len(set(text)) / max(len(text), 1) for text in texts]


def main(step: str, script: str, *arguments: str) -> None:
    from omni_grpo.run.log_file import LogFile

    written = LogFile.on_log

    def write_and_die(self, args, state, control, logs=None, **kwargs):
        written(self, args, state, control, logs=logs, **kwargs)
        if state.global_step == int(step):
            os.kill(os.getpid(), signal.SIGKILL)

    LogFile.on_log = write_and_die
    sys.argv = [script, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
