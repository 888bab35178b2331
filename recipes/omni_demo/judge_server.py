# SPDX-License-Identifier: Apache-2.0
"""A judge that needs no model: an OpenAI-compatible server on this machine that grades by the demo's own rules."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from omni_demo.evidence import Evidence
from omni_demo.grading import SIDES, TOP, grade_context, grade_reasoning

MODEL = "demo-rules"
_MARK = re.compile(r"between a line <<<BEGIN (\w+) NAME>>>")


def grade(messages: list[dict[str, Any]], evidence: Evidence | None = None) -> int:
    """
    The grade, from 0 to 5, of a question as `omni_rewards.Question` writes it: of CANDIDATE against REFERENCE in what
    the rubric asks for, SEEN, HEARD or both; or of REASONING between CONTEXT and ANSWER. With media, CANDIDATE alone is
    held to the context of their row.

    Raises `ValueError` for any other question, and as [`Evidence.row_of`] for media that are not its own.
    """
    instructions, content = (message["content"] for message in messages)
    asked: list[dict[str, Any]] = [{"text": content}] if isinstance(content, str) else content
    parts, material = asked[:-1], asked[-1]["text"]
    found = _MARK.search(instructions)
    mark = found[1] if found else ""
    texts = dict(re.findall(rf"<<<BEGIN {mark} (\w+)>>>\n(.*?)\n<<<END {mark} \1>>>", material, re.DOTALL))
    if parts:
        if evidence is None:
            raise ValueError(
                "the demo's judge sees and hears only what it was given rows of: start it with --rows FILE"
            )
        row = evidence.row_of(parts, texts)
        texts.setdefault("REFERENCE", row.context or "")
    if {"REFERENCE", "CANDIDATE"} <= set(texts):
        sides = tuple(side for side, word in zip(SIDES, ("SEEN", "HEARD"), strict=True) if word in instructions)
        return grade_context(texts["REFERENCE"], texts["CANDIDATE"], sides or tuple(SIDES))
    if {"QUESTION", "REASONING", "ANSWER"} <= set(texts):
        return grade_reasoning(texts["QUESTION"], texts.get("CONTEXT", ""), texts["REASONING"], texts["ANSWER"])
    raise ValueError(f"the demo's judge grades contexts and reasonings, not {sorted(texts)}")


class JudgeServer(ThreadingHTTPServer):
    """
    Serves `/v1/chat/completions` and `/v1/models` on 127.0.0.1 while [`serving`] runs.

    Args:
        port (`int`, defaults to 0): 0 takes a free one.
        error_rate (`float`, defaults to 0.0):
            Share of questions that get another grade than the right one, drawn from the five others. Which ones is
            decided by the question and `seed`, so that a question asked again gets the same reply.
        seed (`int`, defaults to 0): Of these errors.
        evidence ([`Evidence`], *optional*): Rows whose media it knows; without it, media are refused.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, port: int = 0, error_rate: float = 0.0, seed: int = 0, evidence: Evidence | None = None
    ) -> None:
        if not 0 <= error_rate <= 1:
            raise ValueError(f"error_rate is a share from 0 to 1, got {error_rate}")
        super().__init__(("127.0.0.1", port), _Handler)
        self.error_rate, self.seed, self.evidence = error_rate, seed, evidence
        self.asked = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def reply(self, messages: list[dict[str, Any]]) -> int:
        right = grade(messages, self.evidence)
        rng = random.Random(f"{self.seed}/{json.dumps(messages, sort_keys=True)}")
        wrong = [score for score in range(TOP + 1) if score != right]
        return rng.choice(wrong) if rng.random() < self.error_rate else right


class _Handler(BaseHTTPRequestHandler):
    server: JudgeServer  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"  # connections are kept

    def do_GET(self) -> None:
        self._send(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def do_POST(self) -> None:
        try:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            score = self.server.reply(body["messages"])
        except (ValueError, KeyError, TypeError) as error:
            return self._send(400, {"error": {"message": str(error)}})
        self.server.asked += 1
        message = {"role": "assistant", "content": json.dumps({"score": score})}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._send(200, {"object": "chat.completion", "model": MODEL, "choices": [choice]})

    def _send(self, status: int, body: dict[str, Any]) -> None:
        written = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(written)))
        self.end_headers()
        self.wfile.write(written)

    def log_message(self, format: str, *args: Any) -> None:
        """A line a request would bury the run's own."""


@contextmanager
def serving(
    port: int = 0, error_rate: float = 0.0, seed: int = 0, evidence: Evidence | None = None
) -> Iterator[JudgeServer]:
    """A judge that answers while the block runs."""
    with JudgeServer(port, error_rate, seed, evidence) as server:
        thread = threading.Thread(target=server.serve_forever, name="demo judge", daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
