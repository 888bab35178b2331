# SPDX-License-Identifier: Apache-2.0
"""Checked rows written out again: as a data file that reads as they do, and as TRL's preference rows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omni_grpo.data.rows.prompts import build_messages, text_part
from omni_grpo.data.rows.schema import Example
from omni_grpo.data.rows.trl_rows import PICTURES

_UNSET = (None, False, 0.0, "", (), {})  # what a field is where a row leaves it out
_KEYS = {"text": ("type", "text"), "image": ("type",)}  # of a part of TRL's messages


def as_row(example: Example, folder: Path | None = None) -> dict[str, Any]:
    """
    The row of a data file that is read as `example`, in TRL's form if it came so.

    Paths in `media` are absolute, or relative to `folder`.
    """
    row = {name: value for name, value in asdict(example).items() if value not in _UNSET}
    media = [{name: value for name, value in item.items() if value not in _UNSET} for item in row.pop("media", ())]
    for item in media if folder else ():
        item["path"] = os.path.relpath(item["path"], folder)
    turns, columns = row.pop("prompt", []), row.pop("columns", {})
    if not turns and not columns:
        return {**row, "media": media}
    marked = ("text", "image") if columns.keys() & set(PICTURES) else ("text",)  # pictures stand in their column
    items = (item for item in media if item["type"] not in marked)
    for turn in turns:
        turn["content"] = [part if part["type"] in marked else next(items) for part in turn["content"]]
    return row | columns | ({"prompt": turns} if turns else {})


def preference_rows(
    pairs: Sequence[tuple[Example, Mapping[str, str]]], style: str, interleaved: bool = False
) -> list[dict[str, Any]]:
    """
    Rows of TRL's preference format: `prompt`, `chosen` and `rejected` as turns.

    Where no row has media, contents are texts. Otherwise they are lists of parts; pictures are in `images`, as TRL has
    them, and sounds and films are parts with the `path` of their file, which TRL's own collators do not read.
    """
    is_plain, rows = not any(example.media for example, _ in pairs), []
    for example, said in pairs:
        asked = build_messages(example, style, interleaved)
        answers = [{"role": "assistant", "content": [text_part(said[name])]} for name in ("chosen", "rejected")]
        images = [part["path"] for turn in asked for part in turn["content"] if part["type"] == "image"]
        for turn in (*asked, *answers):
            parts = [{key: part[key] for key in _KEYS.get(part["type"], ("type", "path"))} for part in turn["content"]]
            turn["content"] = "".join(part["text"] for part in parts) if is_plain else parts
        row = {"id": example.id, "prompt": asked, "chosen": answers[:1], "rejected": answers[1:]}
        rows.append(row if is_plain else {**row, "images": images})
    return rows
