# SPDX-License-Identifier: Apache-2.0
"""Log events as JSON lines, which the report draws; and a clock that ends a run."""

from __future__ import annotations

import json
import time
from pathlib import Path

from transformers import TrainerCallback


class LogFile(TrainerCallback):
    """
    Writes every log event as one JSON line.

    Args:
        path (`Path`): File to append to. A resumed run repeats the steps since its checkpoint; the last line counts.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


class StopAfter(TrainerCallback):
    """
    Ends training after a given wall time, at the end of a step; what runs then (a last save) comes on top.

    Args:
        seconds (`float`): Wall time since training began.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._start = time.monotonic()

    def on_train_begin(self, args, state, control, **kwargs):
        self._start = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        if time.monotonic() - self._start > self.seconds:
            control.should_training_stop = control.should_evaluate = control.should_save = True
