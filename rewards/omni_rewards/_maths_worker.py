# SPDX-License-Identifier: Apache-2.0
"""
The child process of `maths.py`: reads a line of JSON, one or two formulas, and writes whether they can be read and are
equal.

It ends itself where a line takes more processor time than it may, whatever it is doing, so that none is left behind
computing when the parent is gone.
"""

import importlib
import json
import logging
import os
import sys
from typing import Any

_MAX_BYTES = 8 << 30
_WARM_UP = (r"\frac{1}{2}", "x=5", r"\{4,5\}", "(1,2)", "9^{2}", r"\sqrt{2}", r"\text{yes}", "2 x", r"\pm 2", "x>3")


def serve() -> None:
    """Answer until the input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the libraries print is no reply
    logging.disable(logging.CRITICAL)
    library: Any = importlib.import_module("math_verify")
    for formula in _WARM_UP:  # its grammar is loaded piece by piece, which is not to count for a formula
        library.parse(f"${formula}$", parsing_timeout=None)
    limits = _Limits()
    replies.write("ready\n")
    replies.flush()
    for line in sys.stdin:
        request = json.loads(line)
        limits.set(request["seconds"])
        replies.write(json.dumps(_judge(library, request["formulas"])) + "\n")
        limits.set(0)
        replies.flush()


def _judge(library: Any, formulas: list[str]) -> bool:
    try:
        parsed = [library.parse(f"${formula}$", parsing_timeout=None) for formula in formulas]
        return all(parsed) and (len(parsed) == 1 or bool(library.verify(*parsed, timeout_seconds=None)))
    except (MemoryError, RecursionError):
        return False


class _Limits:
    """Processor time by a signal whose default is to end the process, and memory; on Windows, neither."""

    def __init__(self) -> None:
        self._signal: Any = None
        if os.name == "posix":
            resource: Any = importlib.import_module("resource")
            self._signal = importlib.import_module("signal")
            self._signal.signal(self._signal.SIGPROF, self._signal.SIG_DFL)
            hard = resource.getrlimit(resource.RLIMIT_AS)[1]
            if hard == resource.RLIM_INFINITY or hard > _MAX_BYTES:
                resource.setrlimit(resource.RLIMIT_AS, (_MAX_BYTES, hard))

    def set(self, seconds: float) -> None:
        """End the process after so many seconds of its processor time; 0: never."""
        if self._signal is not None:
            self._signal.setitimer(self._signal.ITIMER_PROF, seconds)


if __name__ == "__main__":
    serve()
