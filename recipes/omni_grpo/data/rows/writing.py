# SPDX-License-Identifier: Apache-2.0
"""Checked rows written out again: as a data file that reads as they do, and as TRL's preference rows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omni_grpo.data.rows.prompts import build_messages, text_part
from omni_grpo.data.rows.schema import FIELDS, Example
from omni_grpo.data.rows.trl_rows import PICTURES

_UNSET = (None, False, 0.0, "", (), {})  # what a field is where a row leaves it out
_KEYS = {"text": ("type", "text"), "image": ("type",)}  # of a part of TRL's messages


def as_row(example: Example, folder: Path | None = None) -> dict[str, Any]:
    """
    The row of a data file that is read as `example`, in TRL's form if it came so.

    Paths in `media` are absolute, or relative to `folder`.
    """
    row = {name: value for name in FIELDS if (value := getattr(example, name)) not in _UNSET}
    media = [{name: value for name, value in asdict(m).items() if value not in _UNSET} for m in example.media]
    for item in media if folder else ():
        item["path"] = os.path.relpath(item["path"], folder)
    if example.prompt is None and not example.columns:
        return row | {"media": media}
    row.pop("media", None)  # it stands in the prompt, pictures in their column
    marked, items = {"text"} | ({"image"} if example.columns.keys() & set(PICTURES) else set()), iter(media)
    files = (
        (part, None if part["type"] == "text" else next(items)) for t in example.prompt or () for part in t["content"]
    )
    parts = iter([part if part["type"] in marked else file for part, file in files])
    turns = [{**turn, "content": [next(parts) for _ in turn["content"]]} for turn in example.prompt or ()]
    return row | dict(example.columns) | ({"prompt": turns} if turns else {})


def preference_rows(
    pairs: Sequence[tuple[Example, Mapping[str, str]]], style: str, interleaved: bool = False
) -> list[dict[str, Any]]:
    """
    Rows of TRL's preference format: `prompt`, `chosen` and `rejected` as turns.

    Where no row has media, contents are texts. Otherwise they are lists of parts; pictures are in `images`, as TRL has
    them, and sounds and films are parts with the `path` of their file, which TRL's own collators do not read.
    """
    is_plain = not any(example.media for example, _ in pairs)

    def turn(role: str, content: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        kept = [{name: part[name] for name in _KEYS.get(part["type"], ("type", "path"))} for part in content]
        return {"role": role, "content": "".join(part["text"] for part in kept) if is_plain else kept}

    rows = []
    for example, said in pairs:
        turns = build_messages(example, style, interleaved)
        answers = {name: [turn("assistant", [text_part(text)])] for name, text in said.items()}
        pictures = [part["path"] for t in turns for part in t["content"] if part["type"] == "image"]
        row = {"id": example.id, "prompt": [turn(**t) for t in turns], **answers}
        rows.append(row if is_plain else {**row, "images": pictures})
    return rows
