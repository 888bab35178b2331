# SPDX-License-Identifier: Apache-2.0
"""One HTTP/1.1 request at a time over asyncio streams: cancellable, and bounded in the bytes that it reads."""

import asyncio
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

_MAX_HEADERS = 200


class ReplyError(Exception):
    """The server's reply cannot be used; `retry` says whether another try may help."""

    def __init__(self, message: str, retry: bool = True) -> None:
        super().__init__(message)
        self.retry = retry


@dataclass(frozen=True)
class Endpoint:
    """Where requests go."""

    host: str
    port: int
    secure: bool
    target: str  # path and query
    authority: str  # the Host header

    @classmethod
    def of(cls, url: str) -> "Endpoint":
        """
        The chat completions of a base URL such as `http://localhost:8000/v1`; a URL that already names them is kept.

        Raises `ValueError`, without the URL's user name and password, if it is not an http(s) URL with a host.
        """
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise ValueError("the endpoint holds a user name or password; name the key's variable in `api_key_env`")
        host, port = parts.hostname, parts.port
        if parts.scheme not in ("http", "https") or not host or parts.fragment or not url.isascii() or " " in url:
            raise ValueError(
                f"the endpoint must be an http or https URL such as http://localhost:8000/v1, got {url!r}"
            )
        path = parts.path.rstrip("/")
        path = path if path.endswith("/chat/completions") else f"{path}/chat/completions"
        target = f"{path}?{parts.query}" if parts.query else path
        secure = parts.scheme == "https"
        return cls(host, port or (443 if secure else 80), secure, target, parts.netloc)


@dataclass(frozen=True)
class Reply:
    """Status, body, and the seconds after which the server wants to be asked again."""

    status: int
    body: bytes
    retry_after_s: float | None


class Connection:
    """
    A connection that is opened when it is first needed, kept while the server keeps it, and opened anew after a fault.

    Redirects are not followed, so the key goes to no other host; no proxy is read from the environment.
    """

    def __init__(self, endpoint: Endpoint, max_reply_bytes: int, tls: ssl.SSLContext | None) -> None:
        self._endpoint = endpoint
        self._max_bytes = max_reply_bytes
        self._tls = tls
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def post(self, body: bytes, api_key: str | None) -> Reply:
        """
        Posts JSON and reads the whole reply.

        Raises `ReplyError` for a reply that is not HTTP, ends early or is too long, and `OSError` for a network fault.
        """
        keep = False
        try:
            if self._streams is None:
                host, port = self._endpoint.host, self._endpoint.port
                self._streams = await asyncio.open_connection(host, port, ssl=self._tls)
            reader, writer = self._streams
            writer.write(self._head(len(body), api_key) + body)
            await writer.drain()
            reply, keep = await self._read(reader)
        except (EOFError, ValueError) as error:  # IncompleteReadError is an EOFError; a line too long a ValueError
            raise ReplyError(f"the reply breaks off or is not HTTP ({type(error).__name__})") from error
        finally:
            if not keep:
                self.close()
        return reply

    def _head(self, length: int, api_key: str | None) -> bytes:
        lines = [
            f"POST {self._endpoint.target} HTTP/1.1",
            f"Host: {self._endpoint.authority}",
            "Content-Type: application/json",
            "Accept: application/json",
            "Accept-Encoding: identity",
            "User-Agent: omni-rewards",
            f"Content-Length: {length}",
        ]
        if api_key is not None:
            lines.append(f"Authorization: Bearer {api_key}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")

    async def _read(self, reader: asyncio.StreamReader) -> tuple[Reply, bool]:
        status, version, headers = await self._read_head(reader)
        while 100 <= status < 200:  # "continue" and the like come before the reply
            status, version, headers = await self._read_head(reader)
        keep = headers.get("connection", "").lower() != "close" and version == "HTTP/1.1"
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = await self._read_chunks(reader)
        elif "content-length" in headers:
            body = await self._read_exactly(reader, int(headers["content-length"]), 0)
        else:  # up to the end of the stream
            body, keep = await reader.read(self._max_bytes + 1), False
            while not reader.at_eof() and len(body) <= self._max_bytes:
                body += await reader.read(self._max_bytes + 1 - len(body))
            self._check_size(len(body))
        wait = headers.get("retry-after", "")
        return Reply(status, body, float(wait) if wait.isascii() and wait.isdigit() else None), keep

    async def _read_head(self, reader: asyncio.StreamReader) -> tuple[int, str, dict[str, str]]:
        first = (await reader.readline()).decode("latin-1").split(maxsplit=2)
        if len(first) < 2 or not first[0].startswith("HTTP/1.") or not first[1].isdigit():
            raise ReplyError("the reply is empty or not HTTP")
        headers: dict[str, str] = {}
        for _ in range(_MAX_HEADERS):
            line = await reader.readline()
            if not line.endswith(b"\n"):
                raise ReplyError("the reply ends in its head")
            if not line.strip():
                return int(first[1]), first[0], headers
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        raise ReplyError("the reply's head is too long", retry=False)

    async def _read_chunks(self, reader: asyncio.StreamReader) -> bytes:
        body = bytearray()
        while size := int((await reader.readline()).partition(b";")[0], 16):
            body += await self._read_exactly(reader, size, len(body))
            await reader.readline()  # the line end after a chunk
        while (await reader.readline()).strip():  # trailers
            pass
        return bytes(body)

    async def _read_exactly(self, reader: asyncio.StreamReader, size: int, before: int) -> bytes:
        self._check_size(before + size)
        return await reader.readexactly(size)  # a negative size is a ValueError

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise ReplyError(f"the reply is longer than {self._max_bytes} bytes", retry=False)
