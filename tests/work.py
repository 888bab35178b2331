# SPDX-License-Identifier: Apache-2.0
"""What a call takes, on any machine and however busy it is: work is counted, and a time-out is generous."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


def lines_run(function: Callable[..., object], *arguments: Any) -> int:
    """Lines of Python that a call runs, every turn of a loop counted."""
    count, before = 0, sys.gettrace()

    def trace(frame: FrameType, event: str, value: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    sys.settrace(trace)
    try:
        function(*arguments)
    finally:
        sys.settrace(before)
    return count


@contextmanager
def soon(seconds: float = 20.0) -> Iterator[None]:
    """Within: a hundred times what is needed, of this process's own time; a step that is quadratic takes minutes."""
    start = time.process_time()
    yield
    assert time.process_time() - start < seconds
