# SPDX-License-Identifier: Apache-2.0
"""From what a judge is asked about each row of a batch to the row's reward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from .asking import Judgement
from .questions import Question
from .settings import Judge, run_blocking

# A reward that is settled without the judge, `None` included, or the questions whose mean it is.
Row = float | None | tuple[Question, ...]


def judge_rows(judge: Judge, rows: Sequence[Row], columns: Mapping[str, Any]) -> list[float | None]:
    """Rewards of `rows`, blocking; `columns` are TRL's keyword arguments."""
    return run_blocking(judge_rows_async(judge, rows, columns))


async def judge_rows_async(judge: Judge, rows: Sequence[Row], columns: Mapping[str, Any]) -> list[float | None]:
    """
    Rewards of `rows`: the mean of the scores of each row's questions, `None` if any of them has none.

    Logs `judge/failed`, the number of rows that the judge left without a score, also when it is 0;
    `judge/requests`; and `judge/recorded`, the number of questions answered from disk.
    """
    judgement = await judge.ask_async([q for row in rows if isinstance(row, tuple) for q in row])
    rewards, num_failed = _rewards(rows, judgement)
    log_metric = cast("Callable[[str, float], None] | None", columns.get("log_metric"))
    if log_metric is not None:
        log_metric("judge/failed", float(num_failed))
        log_metric("judge/requests", float(judgement.num_requests))
        log_metric("judge/recorded", float(judgement.num_recorded))
    return rewards


def _rewards(rows: Sequence[Row], judgement: Judgement) -> tuple[list[float | None], int]:
    scores, rewards, num_failed = iter(judgement.scores), list[float | None](), 0
    for row in rows:
        if not isinstance(row, tuple):
            rewards.append(row)
            continue
        given = [next(scores) for _ in row]
        known = [score for score in given if score is not None]
        is_whole = len(known) == len(given)
        rewards.append(sum(known) / len(known) if is_whole else None)
        num_failed += not is_whole
    return rewards, num_failed


def question_of(index: int, columns: Mapping[str, Any]) -> str:
    """The row's question: column `problem`, else the text of the last user turn of TRL's `prompts`, else empty."""
    problems = columns.get("problem")
    if problems is not None:
        return str(problems[index])
    prompts = columns.get("prompts")
    prompt: Any = "" if prompts is None else prompts[index]
    if isinstance(prompt, str):
        return prompt
    asked = [turn["content"] for turn in prompt if turn.get("role") == "user"]
    content: Any = asked[-1] if asked else ""
    if isinstance(content, str):
        return content
    return "\n".join(str(part["text"]) for part in content if part.get("type") == "text")
