# SPDX-License-Identifier: Apache-2.0
"""Replies on disk, keyed by what was asked: the cache, the record of a run, and what a replay reads."""

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def content_key(request: dict[str, Any]) -> str:
    """Hash of a request's content; equal requests have equal keys in every process and every run."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class ReplyRecord:
    """
    One small JSON file a reply, `ab/abcd….json`, with the request beside it for people to read.

    Files appear whole, by renaming, so any number of processes may read and write one folder. An entry that cannot be
    read, or whose check sum is wrong, counts as absent and is written anew after the next reply.
    """

    folder: Path

    def read(self, key: str) -> str | None:
        try:
            entry: Any = json.loads(self._path(key).read_text(encoding="utf-8"))
            reply, check = entry["reply"], entry["check"]
        except (OSError, ValueError, RecursionError, KeyError, TypeError):
            return None
        return reply if isinstance(reply, str) and check == _check(key, reply) else None

    def write(self, key: str, request: dict[str, Any], reply: str) -> None:
        """Raises `OSError` where the folder cannot be written."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        entry = {"reply": reply, "check": _check(key, reply), "request": request}
        descriptor, unfinished = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(entry, file)
            os.replace(unfinished, path)
        except OSError:
            Path(unfinished).unlink(missing_ok=True)
            raise

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def _check(key: str, reply: str) -> str:
    return hashlib.sha256(f"{key}\n{json.dumps(reply)}".encode()).hexdigest()
