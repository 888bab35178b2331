# SPDX-License-Identifier: Apache-2.0
"""Which row the pictures and sounds are of that a judge is sent, known by their hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omni_grpo.data.rows.prompts import build_messages
from omni_grpo.data.rows.schema import Example
from omni_rewards import Judge
from omni_rewards.judge.media import capped, media_of


class Evidence:
    """
    Rows by what a client with `send_media` sends of them, made here with the client's own functions.

    Args:
        rows (iterable of [`Example`]): Those that are asked about.
        judge ([`~omni_rewards.Judge`]): The client: how many parts, and how large, it sends.
    """

    def __init__(self, rows: Iterable[Example], judge: Judge) -> None:
        self._rows: dict[frozenset[str], list[Example]] = {}
        self._names: dict[str, str] = {}
        for row in rows:
            media = media_of(judge, 0, {"prompts": [build_messages(row, "short")], "id": [row.id]})
            sent = _hashes(
                part for one in capped(media, judge.max_media, judge.max_media_bytes) for part in one.parts()
            )
            self._rows.setdefault(frozenset(sent), []).append(row)
            self._names |= dict.fromkeys(sent, row.id)

    def row_of(self, parts: Sequence[Mapping[str, Any]], texts: Mapping[str, str]) -> Example:
        """
        The row that `parts` show, all of them and no other.

        Raises:
            `ValueError`: No row has them together, or their row has other texts than the question; it is named.
        """
        sent = _hashes(parts)
        rows = self._rows.get(frozenset(sent))
        if not rows:
            found = ", ".join(dict.fromkeys(repr(self._names[h]) if h in self._names else "no row" for h in sent))
            raise ValueError(f"the media are not those of one row: they are of {found}")
        if fitting := [row for row in rows if _is_about(texts, row)]:
            return fitting[0]
        raise ValueError(f"the media are of row {rows[0].id!r}, the texts of another one")


def _is_about(texts: Mapping[str, str], row: Example) -> bool:
    """Whether a question to a judge has the row's own texts: its problem, or its context as a reference."""
    if "QUESTION" in texts:
        return texts["QUESTION"].startswith(row.problem)
    return texts.get("REFERENCE", row.context) == row.context


def _hashes(parts: Iterable[Mapping[str, Any]]) -> list[str]:
    media = (json.dumps(part, sort_keys=True) for part in parts if part["type"] != "text")
    return [hashlib.sha256(written.encode()).hexdigest() for written in media]
