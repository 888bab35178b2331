# SPDX-License-Identifier: Apache-2.0
"""Checked rows written out again: as a data file that reads as they do, and as TRL's preference rows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omni_grpo.data.rows.prompts import build_messages
from omni_grpo.data.rows.schema import FIELDS, Example
from omni_grpo.data.rows.trl_rows import PICTURES

_UNSET = (None, False, 0.0, "", (), {})  # what a field is where a row leaves it out
_KEYS = {"text": ("type", "text"), "image": ("type",)}  # of a part of TRL's messages


def as_row(example: Example, folder: Path | None = None) -> dict[str, Any]:
    """
    The row of a data file that is read as `example`, in TRL's form if it came so.

    Paths of media are absolute, or relative to `folder`.
    """
    media = [{name: value for name, value in asdict(m).items() if value not in _UNSET} for m in example.media]
    for item in media if folder else ():
        item["path"] = os.path.relpath(item["path"], folder)
    row = {name: value for name in FIELDS if (value := getattr(example, name)) not in _UNSET} | {"media": media}
    if example.prompt is None and not example.columns:
        return row
    items, has_pictures = iter(row.pop("media")), not example.columns.keys().isdisjoint(PICTURES)
    turns = [
        {**turn, "content": [_with_file(part, items, has_pictures) for part in turn["content"]]}
        for turn in example.prompt or ()
    ]
    return row | dict(example.columns) | ({"prompt": turns} if turns else {})


def _with_file(part: Mapping[str, Any], items: Any, has_pictures: bool) -> Mapping[str, Any]:
    if part["type"] == "text":
        return part
    item = next(items)
    return part if has_pictures and part["type"] == "image" else item  # its file stands in a column


def preference_rows(
    pairs: Sequence[tuple[Example, Mapping[str, str]]], style: str, load_audio_from_video: bool = False
) -> list[dict[str, Any]]:
    """
    Rows of TRL's preference format: `prompt`, `chosen` and `rejected` as turns.

    Where no row has media, contents are texts. Otherwise they are lists of parts; pictures are in `images`, as TRL has
    them, and sounds and films are parts with the `path` of their file, which TRL's own collators do not read.
    """
    is_plain = not any(example.media for example, _ in pairs)

    def content(parts: Sequence[Mapping[str, Any]]) -> Any:
        if is_plain:
            return "".join(part["text"] for part in parts)
        return [{name: part[name] for name in _KEYS.get(part["type"], ("type", "path"))} for part in parts]

    rows = []
    for example, said in pairs:
        turns = build_messages(example, style, load_audio_from_video)
        pictures = [p["path"] for turn in turns for p in turn["content"] if p["type"] == "image"]
        answers = {
            name: [{"role": "assistant", "content": content([{"type": "text", "text": text}])}]
            for name, text in said.items()
        }
        prompt = [{"role": turn["role"], "content": content(turn["content"])} for turn in turns]
        rows.append({"id": example.id, "prompt": prompt, **answers} | ({} if is_plain else {"images": pictures}))
    return rows


def write_rows(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """`rows` as JSON lines; `file` is whole or not there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.tmp")
    draft.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    os.replace(draft, file)
