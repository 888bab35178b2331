# SPDX-License-Identifier: Apache-2.0
"""A line in `log.jsonl` while a step lasts, which tells a judge that hangs from a process that does."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from transformers import TrainerCallback


class Heartbeat(TrainerCallback):
    """
    Writes what each process does, from a thread of its own: `{"heartbeat": "2026-01-31 12:00:00", "process": 0,
    "at_step": 7, "doing": "reward omni_rewards.reasoning_reward", "for_seconds": 120}`.

    The first process writes at every beat; another one only while it has done the same thing for a whole beat. So a
    line whose `for_seconds` grows names who is stuck and in what, and no new line at all says that the machine is.

    Args:
        path (`Path`): File to append to.
        process (`int`): Which of the run's processes this is.
        seconds (`float`, defaults to `60.0`): Between two beats.
    """

    def __init__(self, path: Path, process: int, seconds: float = 60.0) -> None:
        self.path, self.process, self.seconds = path, process, seconds
        self._step, self._done = 0, threading.Event()
        self.enter("start")

    def enter(self, doing: str) -> None:
        """Say what this process does from now on."""
        self._doing, self._since = doing, time.monotonic()

    def on_train_begin(self, args, state, control, **kwargs):
        self._done.clear()
        threading.Thread(target=self._beat, daemon=True).start()

    def on_step_begin(self, args, state, control, **kwargs):
        self._step = state.global_step + 1

    def on_step_end(self, args, state, control, **kwargs):
        self.enter("between two steps: logging, saving, evaluating")

    def on_train_end(self, args, state, control, **kwargs):
        self._done.set()

    def _beat(self) -> None:
        while not self._done.wait(self.seconds):
            doing, lasted = self._doing, time.monotonic() - self._since
            if self.process == 0 or lasted >= self.seconds:
                line = {"heartbeat": time.strftime("%F %T"), "process": self.process, "at_step": self._step}
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({**line, "doing": doing, "for_seconds": round(lasted)}) + "\n")
