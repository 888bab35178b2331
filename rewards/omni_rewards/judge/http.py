# SPDX-License-Identifier: Apache-2.0
"""Requests to the judge: connections that outlive a batch; httpx of the extra `judge`."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

Client = Any  # `httpx.AsyncClient`; httpx is imported where it is needed
_idle: WeakKeyDictionary[asyncio.AbstractEventLoop, list[Client]] = WeakKeyDictionary()


class ReplyError(Exception):
    """The server's reply cannot be used; `retry` says whether another try may help."""

    def __init__(self, message: str, retry: bool = True) -> None:
        super().__init__(message)
        self.retry = retry


@dataclass(frozen=True)
class Reply:
    """Status, body, and the seconds after which the server wants to be asked again."""

    status: int
    body: bytes
    retry_after_s: float | None


def chat_url(endpoint: str) -> str:
    """
    The chat completions of a base URL such as `http://localhost:8000/v1`; a URL that already names them is kept.

    Raises `ValueError`, without the URL's user name and password, if it is not an http(s) URL with a host.

    >>> chat_url("http://localhost:8000/v1")
    'http://localhost:8000/v1/chat/completions'
    """
    parts = urlsplit(endpoint)
    if parts.username is not None or parts.password is not None:
        raise ValueError("the endpoint holds a user name or password; name the key's variable in `api_key_env`")
    is_clean = endpoint.isascii() and endpoint.isprintable() and " " not in endpoint and not parts.fragment
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_clean:
        raise ValueError(
            f"the endpoint must be an http or https URL such as http://localhost:8000/v1, got {endpoint!r}"
        )
    path = parts.path.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
    return parts._replace(path=path).geturl()


@contextmanager
def lane() -> Generator[Client]:
    """
    A client with one connection, lent for a while and kept for the next who asks in this event loop.

    One pool for all requests would look at each of its connections for each request. Redirects are not followed, so
    the key goes to no other host; no proxy, and nothing else, is read from the environment; whoever asks keeps the time.
    """
    httpx: Any = import_module("httpx")

    idle = _idle.setdefault(asyncio.get_running_loop(), [])
    client = idle.pop() if idle else httpx.AsyncClient(verify=_tls(), timeout=None, trust_env=False)
    try:
        yield client
    finally:
        idle.append(client)


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


async def post(client: Client, url: str, body: bytes, api_key: str | None, max_reply_bytes: int) -> Reply:
    """
    Posts JSON and reads the whole reply.

    Raises `ReplyError` for a network fault and for a reply that is not HTTP, ends early or is too long.
    """
    httpx: Any = import_module("httpx")

    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", "User-Agent": "omni-rewards"}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    reply = bytearray()
    try:
        async with client.stream("POST", url, content=body, headers=headers) as response:
            async for part in response.aiter_raw():
                reply += part
                if len(reply) > max_reply_bytes:
                    raise ReplyError(f"the reply is longer than {max_reply_bytes} bytes", retry=False)
    except httpx.TransportError as error:  # refused, reset, unknown host, TLS; not HTTP, or broken off
        raise ReplyError(type(error).__name__) from error
    wait = response.headers.get("retry-after", "")
    return Reply(response.status_code, bytes(reply), float(wait) if wait.isascii() and wait.isdigit() else None)
