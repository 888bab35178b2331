# SPDX-License-Identifier: Apache-2.0
"""What rewards that may ask a judge have in common: how rows become scores, and the form that TRL awaits."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from .judge import Judge
from .judge.rows import Row, judge_rows


def settled(judge: Judge | Mapping[str, Any] | None, rows: Sequence[Row], columns: Mapping[str, Any]) -> list[Any]:
    """Rewards of `rows`, each a score, `None`, or questions for the judge; without a judge there are no questions."""
    return judge_rows(judge, rows, columns) if isinstance(judge, Judge) else list(rows)


def awaited(call: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """`call` as a coroutine function, in a thread of its own, so that TRL asks the judges of a step side by side."""

    @functools.wraps(call)
    async def later(*args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(call, *args, **kwargs)

    return later
