# SPDX-License-Identifier: Apache-2.0
"""`Judge`: where a grading model is, and how patiently it is asked."""

import asyncio
import math
import os
import re
import threading
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, TypeVar, cast

from .asking import Judgement, ask_all
from .http import chat_url
from .media import MIN_BYTES, Medium, capped
from .questions import Question

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Judge:
    """
    A grading model behind an OpenAI-compatible endpoint; it answers with scores in `[0, 1]`, higher is better.

    **Unavailable is `None`, never 0**: a server that is down, slow, refuses, or writes no readable score leaves the
    row out of the reward. Faults of the server raise nothing; broken settings do. Sampling is at temperature 0 with a
    fixed seed. Of the environment, the one variable that `endpoint` may name is read at construction, and the one that
    `api_key_env` names when a question is asked; the key is in no log, `repr` or pickle.

    Args:
        endpoint (`str`): Base URL, e.g. `http://localhost:8000/v1`; `$NAME` for the environment variable that holds it.
        model (`str`): The model's name there.
        api_key_env (`str`, *optional*): **Name** of the environment variable that holds the key.
        max_in_flight (`int`, defaults to 64): Requests at a time, for each call of a reward.
        retries (`int`, defaults to 4): Further tries after a first that failed for a reason that may pass.
        timeout_s (`float`, defaults to 60.0): Seconds for one try.
        budget_s (`float`, defaults to 180.0): Seconds for all questions of a call, that is, of a step and a reward.
        backoff_s (`float`, defaults to 0.5):
            Seconds before the second try, doubled for each further one, times a random half to whole; longer where
            the server says `Retry-After`.
        seed (`int`, defaults to 0): Sent with each request.
        max_tokens (`int`, defaults to 512): Longest reply.
        max_text_chars (`int`, defaults to 20000): Of a longer text the judge sees the beginning.
        max_reply_bytes (`int`, defaults to 1048576): A longer reply is dropped.
        json_schema (`bool`, defaults to `True`):
            Ask for a reply in a JSON schema; a server that answers 400 or 422 to it is asked without.
        cache_dir (`str`, *optional*):
            Folder that keeps every reply that had a score, by model and content of the request, not by endpoint; a
            question that is in it is not asked again. Any number of processes may share it.
        replay (`bool`, defaults to `False`): Read `cache_dir` and nothing else; what is not there is unavailable.
        extra_body (`Mapping[str, Any]`, *optional*):
            More fields of the request, e.g. `{"chat_template_kwargs": {"enable_thinking": false}}`.
        send_media (`bool`, defaults to `False`):
            Show the judge what the policy was shown: pictures as files, frames of videos, sound. Broken files raise, with
            the row's name. Records hold their hashes; a replay reads the files for these.
        max_media (`int`, defaults to 16):
            Pictures, frames and sounds of a question together; of more, evenly spread ones are sent.
        max_media_bytes (`int`, defaults to 1048576):
            Of each of them, before it is coded as text. A larger picture is made smaller; of a longer sound (33 s) the
            beginning is sent.

    Raises at construction, with the remedy: `ValueError` for settings that cannot work, `ImportError` where httpx (extra
    `judge`) is not installed and questions are to be asked.

    >>> judge = Judge(endpoint="http://localhost:8000/v1", model="qwen", cache_dir="judged", replay=True)
    >>> judge.ask([Question("Is it polite?", (("reply", "Thank you."),))]).scores  # nothing recorded yet
    [None]
    """

    endpoint: str
    model: str
    api_key_env: str | None = None
    max_in_flight: int = 64
    retries: int = 4
    timeout_s: float = 60.0
    budget_s: float = 180.0
    backoff_s: float = 0.5
    seed: int = 0
    max_tokens: int = 512
    max_text_chars: int = 20_000
    max_reply_bytes: int = 1 << 20
    json_schema: bool = True
    cache_dir: str | None = None
    replay: bool = False
    extra_body: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    send_media: bool = False
    max_media: int = 16
    max_media_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        if self.endpoint.startswith("$"):
            name = self.endpoint[1:].strip("{}")
            if not os.environ.get(name):
                raise ValueError(f"`endpoint`: set the variable it names, e.g. export {name}=http://localhost:8000/v1")
            object.__setattr__(self, "endpoint", os.environ[name])
        if not self.endpoint or not self.model:
            raise ValueError("a judge needs `endpoint` (e.g. http://localhost:8000/v1) and `model`")
        chat_url(self.endpoint)
        if self.api_key_env is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.api_key_env):
            # Not repeated here: it may be the key itself.
            raise ValueError("`api_key_env` is the name of an environment variable, e.g. OPENAI_API_KEY, not the key")
        least_of = {"max_in_flight": 1, "retries": 0, "max_tokens": 1, "max_text_chars": 1}
        for name, least in {**least_of, "max_media": 1, "max_media_bytes": MIN_BYTES}.items():
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}")
        for name in ("timeout_s", "budget_s", "max_reply_bytes"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be positive and finite, got {getattr(self, name)}")
        if not 0 <= self.backoff_s < math.inf:
            raise ValueError(f"`backoff_s` must be at least 0 and finite, got {self.backoff_s}")
        if self.replay and self.cache_dir is None:
            raise ValueError("`replay` needs `cache_dir`, the folder of the recorded replies")
        if not self.replay and find_spec("httpx") is None:
            raise ImportError('a judge is asked with httpx, which is not installed: pip install "omni-grpo[judge]"')
        if taken := {"messages", "model", "temperature", "seed", "response_format", "stream"} & set(self.extra_body):
            raise ValueError(f"`extra_body` may not set {sorted(taken)}")

    def ask(self, questions: Sequence[Question]) -> Judgement:
        """
        Scores of `questions`, one each and in their order; equal questions are asked once.

        Blocks until all is answered or the budget is spent, also from inside a running event loop.
        """
        return run_blocking(self.ask_async(questions))

    async def ask_async(self, questions: Sequence[Question]) -> Judgement:
        """As `ask`, without blocking the event loop. Raises `ValueError` if the variable of the key is not set."""
        return await ask_all(self, questions)

    def replies(self, questions: Sequence[Question]) -> list[str | None]:
        """What is written in reply to `questions`, which ask for no score, after any thought; as `ask`."""
        asking = ask_all(self, questions, lambda text: text.rpartition("</think>")[2].strip() or None)
        return run_blocking(asking).scores

    def shown(self, question: Question) -> list[Medium]:
        """The media that are sent with `question`, and how much of each."""
        return capped(question.media, self.max_media, self.max_media_bytes) if self.send_media else []

    def request(self, question: Question, sent: bool = False) -> dict[str, Any]:
        """Body of the request for `question`, but for the response format; as it is recorded, or as it is `sent`."""
        media = self.shown(question)
        parts = [part for one in media for part in (one.parts() if sent else [one.reference()])]
        return {
            "model": self.model,
            "messages": question.messages(self.max_text_chars, parts),
            "temperature": 0,
            "seed": self.seed,
            "max_tokens": self.max_tokens,
            **self.extra_body,
        }

    def api_key(self) -> str | None:
        """The key, read now; `ValueError` if the variable is unset or its content cannot stand in a header."""
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            raise ValueError(f"environment variable {self.api_key_env}, named by `api_key_env`, holds no usable key")
        return key


def as_judge(judge: Judge | Mapping[str, Any] | None) -> Judge | None:
    """
    A judge from a run's settings.

    Raises `ValueError` for an unknown setting, with the known ones, and where endpoint or model is missing.
    """
    if judge is None or isinstance(judge, Judge):
        return judge
    known = list(Judge.__dataclass_fields__)
    if unknown := sorted(set(judge) - set(known)):
        raise ValueError(f"judge: unknown settings {unknown}; known are {', '.join(known)}")
    if missing := sorted({"endpoint", "model"} - set(judge)):
        raise ValueError(f"judge: {missing} not given; a judge needs `endpoint` and `model`")
    return Judge(**cast("dict[str, Any]", judge))


def run_blocking(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """The coroutine's result, from a loop in a thread of its own, which keeps the judge's connections between calls."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loop(os.getpid())).result()


@lru_cache(maxsize=1)
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """The loop of this process; a forked one inherits no threads and makes its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name=f"judge {process}", daemon=True).start()
    return loop
