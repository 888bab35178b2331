# SPDX-License-Identifier: Apache-2.0
"""A batch of questions put to the judge: each distinct one once, many in flight, never past the budget."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .http import Client, Reply, ReplyError, chat_url, lane, post
from .record import ReplyRecord, content_key
from .verdicts import VERDICT_SCHEMA, read_reply, read_score

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .questions import Question
    from .settings import Judge

logger = logging.getLogger(__name__)

_TRY_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_FOR_ALL = frozenset({401, 404})  # the key or the model is wrong: the next question fares no better
_SCHEMA_UNKNOWN = frozenset({400, 422})
_RESPONSE_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "verdict", "strict": True, "schema": VERDICT_SCHEMA},
}
# A generator of our own: the global one belongs to the run, whose sampling must not depend on the judge's health.
_jitter = random.Random()


@dataclass(frozen=True)
class Judgement:
    """
    What came of a batch.

    Attributes:
        scores (`list[Any]`): One a question, in `[0, 1]`, or what else was read; `None` where the judge gave none.
        num_requests (`int`): HTTP requests sent, retries included.
        num_recorded (`int`): Distinct questions answered from disk.
    """

    scores: list[Any]
    num_requests: int
    num_recorded: int


@dataclass
class _Batch:
    """The state of one batch."""

    judge: Judge
    api_key: str | None
    deadline: float
    record: ReplyRecord | None
    waiting: deque[tuple[str, Question]]
    scores: dict[str, Any]
    read: Callable[[str], Any]
    faults: Counter[str] = field(default_factory=Counter[str])
    num_requests: int = 0
    use_schema: bool = True
    is_hopeless: bool = False


async def ask_all(judge: Judge, questions: Sequence[Question], read: Callable[[str], Any] = read_score) -> Judgement:
    """Scores of `questions`, or what else `read` reads in a reply, `None` where it reads nothing; see `Judge.ask`."""
    requests = [judge.request(question) for question in questions]
    keys = [content_key(request) for request in requests]
    distinct = dict(zip(keys, questions, strict=True))
    record = ReplyRecord(Path(judge.cache_dir)) if judge.cache_dir is not None else None
    scores: dict[str, Any] = {}
    if record is not None:
        for key in distinct:
            if (reply := record.read(key)) is not None and (score := read(reply)) is not None:
                scores[key] = score
    num_recorded = len(scores)
    waiting = deque((key, question) for key, question in distinct.items() if key not in scores)
    if not waiting or judge.replay:
        if waiting:
            logger.warning("judge: %d of %d replies are not in %s", len(waiting), len(distinct), judge.cache_dir)
        return Judgement([scores.get(key) for key in keys], 0, num_recorded)

    media = dict.fromkeys(medium for _, question in waiting for medium in judge.shown(question))
    # A broken file is met before any request.
    await asyncio.gather(*(asyncio.to_thread(medium.parts) for medium in media))
    deadline = asyncio.get_running_loop().time() + judge.budget_s
    batch = _Batch(judge, judge.api_key(), deadline, record, waiting, scores, read)
    batch.use_schema = judge.json_schema and read is read_score
    try:
        async with asyncio.timeout_at(deadline), asyncio.TaskGroup() as group:
            for _ in range(min(judge.max_in_flight, len(waiting))):
                group.create_task(_work(batch))
    except TimeoutError:
        batch.faults[f"the budget of {judge.budget_s:g} s is spent"] += 1
    if len(scores) < len(distinct):
        reasons = ", ".join(f"{count} × {fault}" for fault, count in batch.faults.most_common())
        logger.warning(
            "judge: %d of %d questions got no score: %s", len(distinct) - len(scores), len(distinct), reasons
        )
    return Judgement([scores.get(key) for key in keys], batch.num_requests, num_recorded)


async def _work(batch: _Batch) -> None:
    """One of the workers that share the questions, each with a connection of its own."""
    with lane() as client:
        while batch.waiting and not batch.is_hopeless:
            key, question = batch.waiting.popleft()
            reply = await _ask_one(batch, client, batch.judge.request(question, sent=True))
            score = None if reply is None else batch.read(reply)
            if reply is not None and score is None:
                batch.faults["no readable score"] += 1  # at temperature 0 it would say the same again
            if reply is not None and score is not None:
                batch.scores[key] = score
                _keep(batch, key, batch.judge.request(question), reply)


async def _ask_one(batch: _Batch, client: Client, request: dict[str, Any]) -> str | None:
    """What the judge wrote, or `None` when tries or time are used up."""
    loop, judge = asyncio.get_running_loop(), batch.judge
    for tried in range(judge.retries + 1):
        wait = 0.0
        try:
            async with asyncio.timeout(judge.timeout_s):
                reply = await _post(batch, client, request)
            if reply.status == 200:
                return read_reply(reply.body)
            fault, again, wait = f"HTTP {reply.status}", reply.status in _TRY_AGAIN, reply.retry_after_s or 0.0
            batch.is_hopeless |= reply.status in _FOR_ALL
        except ReplyError as error:
            fault, again = str(error), error.retry
        except TimeoutError:
            fault, again = f"no reply within {judge.timeout_s:g} s", True
        except ValueError as error:  # 200, and no chat completion in it
            fault, again = str(error), True
        # Half to whole, so that workers that failed together do not come back together.
        delay = max(wait, judge.backoff_s * 2**tried * _jitter.uniform(0.5, 1.0))
        if not again or tried == judge.retries or loop.time() + delay >= batch.deadline:
            batch.faults[fault] += 1
            return None
        await asyncio.sleep(delay)
    return None


async def _post(batch: _Batch, client: Client, request: dict[str, Any]) -> Reply:
    """One try; a server that does not know JSON schemas is asked again without one, and from then on."""

    async def send(body: dict[str, Any]) -> Reply:
        batch.num_requests += 1
        url, limit = chat_url(batch.judge.endpoint), batch.judge.max_reply_bytes
        return await post(client, url, json.dumps(body).encode(), batch.api_key, limit)

    if batch.use_schema:
        reply = await send({**request, "response_format": _RESPONSE_FORMAT})
        if reply.status not in _SCHEMA_UNKNOWN:
            return reply
    reply = await send(request)
    if batch.use_schema and reply.status == 200:
        logger.warning("judge: %s refuses JSON schemas; set `json_schema: false`", batch.judge.endpoint)
        batch.use_schema = False
    return reply


def _keep(batch: _Batch, key: str, request: dict[str, Any], reply: str) -> None:
    if batch.record is None:
        return
    try:
        batch.record.write(key, request, reply)
    except OSError as error:  # the score is good all the same
        logger.warning("judge: cannot write to %s (%s); replies are not kept", batch.record.folder, error.strerror)
        batch.record = None
