# SPDX-License-Identifier: Apache-2.0
"""A real HTTP server on this machine that speaks the chat-completions protocol, and can fail in every way."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import threading
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Request:
    """One request as it arrived; `number` counts from 1."""

    number: int
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def texts(self) -> dict[str, str]:
        """What stands between the fences, by name, read as the instructions say: by the mark alone."""
        instructions, material = (written(message["content"]) for message in self.body["messages"])
        mark = re.search(r"<<<BEGIN (\w+) NAME>>>", instructions)[1]
        fenced = rf"<<<BEGIN {mark} (\w+)>>>\n(.*?)\n<<<END {mark} \1>>>"
        return dict(re.findall(fenced, material, re.DOTALL))

    @property
    def outside(self) -> str:
        """What a judge that goes by the mark takes for instructions."""
        instructions, material = (written(message["content"]) for message in self.body["messages"])
        mark = re.search(r"<<<BEGIN (\w+) NAME>>>", instructions)[1]
        fenced = rf"<<<BEGIN {mark} (\w+)>>>\n.*?\n<<<END {mark} \1>>>"
        return instructions + re.sub(fenced, "", material, flags=re.DOTALL)

    @property
    def media(self) -> list[tuple[str, str]]:
        """Kind and SHA-256 of each picture and sound, in their order."""
        return [(kind, hashlib.sha256(content).hexdigest()) for kind, content in self.contents]

    @property
    def contents(self) -> list[tuple[str, bytes]]:
        """Kind and bytes of each picture and sound, read as the protocol has them."""
        found: list[tuple[str, bytes]] = []
        for part in parts_of(self.body["messages"][-1]["content"]):
            if part["type"] == "image_url":
                kind, data = re.fullmatch(r"data:image/(\w+);base64,(.+)", part["image_url"]["url"]).groups()
                found.append((kind, base64.b64decode(data, validate=True)))
            elif part["type"] == "input_audio":
                sound = part["input_audio"]
                found.append((sound["format"], base64.b64decode(sound["data"], validate=True)))
            else:
                assert part.keys() == {"type", "text"}, part
        return found


def parts_of(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def written(content: str | list[dict[str, Any]]) -> str:
    return "\n\n".join(part["text"] for part in parts_of(content) if part["type"] == "text")


Behaviour = Callable[[Request], Awaitable[bytes | None]]


def http(body: bytes | str, status: int = 200, *headers: str) -> bytes:
    body = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Some Reason", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def says(content: Any) -> bytes:
    return http(json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}))


def grade_of(texts: dict[str, str]) -> int:
    """A grade from 0 to 5 that depends on all of the texts."""
    return zlib.crc32(json.dumps(texts, sort_keys=True).encode()) % 6


async def honest(request: Request) -> bytes:
    return says(json.dumps({"score": grade_of(request.texts)}))


def after(seconds: float, behaviour: Behaviour = honest) -> Behaviour:
    async def late(request: Request) -> bytes | None:
        await asyncio.sleep(seconds)
        return await behaviour(request)

    return late


def always(reply: bytes | None) -> Behaviour:
    async def same(request: Request) -> bytes | None:
        return reply

    return same


class JudgeServer:
    """
    Serves `behaviour` from a thread while the `with` block runs.

    A behaviour returns the bytes to send, after which the connection is kept if they are a whole HTTP reply with a
    length, and closed otherwise; `None` closes it without a word.
    """

    def __init__(self, behaviour: Behaviour = honest) -> None:
        self.behaviour = behaviour
        self.requests: list[Request] = []
        self.num_connections = 0
        self.in_flight = 0
        self.most_in_flight = 0

    def __enter__(self) -> JudgeServer:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result()
        self.endpoint = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    def __exit__(self, *error: object) -> None:
        async def stop() -> None:
            self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            while request := await self._read(reader):
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                try:
                    reply = await self.behaviour(request)
                finally:
                    self.in_flight -= 1
                if reply is None:
                    return
                writer.write(reply)
                await writer.drain()
                if b"Content-Length:" not in reply and b"chunked" not in reply:
                    return
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Request | None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.strip().split("\r\n")
        assert first == "POST /v1/chat/completions HTTP/1.1", first
        headers = dict(line.split(": ", 1) for line in lines)
        body = json.loads(await reader.readexactly(int(headers["Content-Length"])))
        self.requests.append(Request(len(self.requests) + 1, headers, body))
        return self.requests[-1]
