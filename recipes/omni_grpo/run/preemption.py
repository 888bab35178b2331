# SPDX-License-Identifier: Apache-2.0
"""
Runs that are asked to end: by SIGTERM or SIGUSR1, or because the launcher that started them is gone.

Training ends its step, saves a whole checkpoint and exits with [`PREEMPTED`]; anything else exits with it at once.
accelerate's launcher of one process passes no signal on, and torchrun dies of SIGUSR1: so a process that a launcher
started watches whether it is still there. torchrun ends what still runs 30 seconds after its own SIGTERM; a save that
takes longer needs SIGUSR1 instead, after which there are `preemption_seconds`.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from types import FrameType

PREEMPTED = 75  # EX_TEMPFAIL: start the same command again
_LAUNCHERS = ("TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION")  # set by torchrun, and by accelerate launch


def ends_by_itself() -> None:
    """From here on the process ends with the exit code that it has: whoever asks it to end now comes too late."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


class Preemption:
    """
    Whether this process was asked to end.

    Args:
        seconds (`float`): What remains of its life once its launcher is gone.
    """

    exit_code = PREEMPTED

    def __init__(self, seconds: float = 45.0) -> None:
        self.seconds = seconds
        self.asked = False
        self.is_training = False  # then the trainer's callback ends it
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._note)
        atexit.register(ends_by_itself)
        if any(name in os.environ for name in _LAUNCHERS):
            threading.Thread(target=self._watch, args=(os.getppid(),), daemon=True).start()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if not self.is_training:
            sys.exit(PREEMPTED)

    def _watch(self, launcher: int) -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(self.seconds)
        os._exit(PREEMPTED)
