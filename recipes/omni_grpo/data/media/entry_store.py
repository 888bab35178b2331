# SPDX-License-Identifier: Apache-2.0
"""A folder of checksummed entries of bounded size, shared by threads, processes and machines without locks."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
import uuid
from pathlib import Path

logger = logging.getLogger(__name__)

MAGIC = b"omnigrpo"
HEAD = 64  # magic, SHA-256 of the content, zeros
ENDING = ".entry"  # whatever else lies in the folder is left alone
BLOCK = 4096  # smallest file on disk
ABANDONED_SECONDS = 3600  # a draft as old as this has lost its writer
SPARE = 10  # room is made for a tenth of the bound at a time


class EntryStore:
    """
    Bytes by key, on disk.

    An entry appears whole or not at all: it is written beside its place and moved there, so that a writer that is
    killed leaves a draft, which is swept up later, and never half an entry. What the disk has spoilt is found by its
    checksum. The bound holds for one process; several may pass it by a sixteenth each before they look again.

    Args:
        folder (`Path`): Made if it is not there.
        max_bytes (`int`): Most bytes kept, in blocks of 4 KB; the least recently used entries go first.

    Raises:
        `ValueError`: The folder cannot be made.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"{folder}: cannot be made ({error}); name another folder, or turn the cache off"
            ) from error
        self._lock = threading.Lock()
        self._bytes, self._written = 0, max_bytes  # looks at the folder before the first write
        self._told: set[str] = set()

    def read(self, key: str) -> bytes | None:
        """The content under `key`; `None` if there is none, or a damaged one."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                head, content = file.read(HEAD), file.read()
            if head != _head(content):
                logger.warning("%s is damaged; it is made anew", path)
                path.unlink(missing_ok=True)
                return None
            os.utime(path)  # used last now
        except FileNotFoundError:  # never written, or another process made room
            return None
        except OSError as error:
            self._tell_once("%s: entries cannot be read (%s); going on without", self.folder, error)
            return None
        return content

    def write(self, key: str, content: bytes) -> None:
        """Keep `content` under `key`; a disk that refuses is named once in the log, and nothing is kept."""
        size = _on_disk(HEAD + len(content))
        path = self._path(key)
        draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            if not self._make_room(size):
                return
            path.parent.mkdir(exist_ok=True)
            with draft.open("xb") as file:
                file.write(_head(content))
                file.write(content)
            os.replace(draft, path)
        except OSError as error:
            self._tell_once("%s: entries cannot be written (%s); going on without", self.folder, error)
            draft.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{ENDING}"

    def _tell_once(self, message: str, *values: object) -> None:
        if message not in self._told:
            self._told.add(message)
            logger.warning(message, *values)

    def _make_room(self, size: int) -> bool:
        """Whether `size` bytes fit now, after removing what was used least recently."""
        if size > self.max_bytes:
            return False
        with self._lock:
            if self._written + size > self.max_bytes // 16 or self._bytes + size > self.max_bytes:
                self._sweep(size)
            self._bytes += size
            self._written += size
        return True

    def _sweep(self, size: int) -> None:
        """Look at the folder as it is now, whoever wrote it; remove lost drafts, and entries until `size` fits."""
        now, entries = time.time(), []
        for path in self.folder.glob(f"*/*{ENDING}*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if path.suffix == ".tmp" and now - status.st_mtime > ABANDONED_SECONDS:
                path.unlink(missing_ok=True)
                continue
            if path.suffix in (ENDING, ".tmp"):
                entries.append((status.st_mtime_ns, _on_disk(status.st_size), path))
        self._bytes, self._written = sum(entry[1] for entry in entries), 0
        if self._bytes + size <= self.max_bytes:
            return
        full = "%s is full (%d MB): what was used least recently goes; give it more if files are read again and again"
        self._tell_once(full, self.folder, self.max_bytes // 2**20)
        for _, freed, path in sorted(entries):
            if path.suffix == ENDING:
                path.unlink(missing_ok=True)
                self._bytes -= freed
            if self._bytes + size <= self.max_bytes - self.max_bytes // SPARE:
                break


def _head(content: bytes) -> bytes:
    return (MAGIC + hashlib.sha256(content).digest()).ljust(HEAD, b"\0")


def _on_disk(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
