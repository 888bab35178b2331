# SPDX-License-Identifier: Apache-2.0
"""A published file of records, rewritten as JSONL: whole, or with every bad record named."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omni_grpo.data.rows.adapters import LAYOUTS
from omni_grpo.data.rows.schema import refuse
from omni_grpo.data.rows.selection import taken_indices

logger = logging.getLogger(__name__)


def convert(
    source_json: str | Path,
    destination_jsonl: str | Path,
    layout: str,
    take: str | None = None,
    seed: int = 0,
    path_prefix: str = "",
    skip_bad: bool = False,
) -> int:
    """
    Rewrites a published JSON file as JSONL and returns the number of rows.

    Args:
        source_json (`str` or `Path`): A JSON list of records.
        destination_jsonl (`str` or `Path`): The file to write; its folder is made.
        layout (`str`): `"humanomniv2"` or `"r1_omni"`.
        take (`str`, *optional*): Part of the file, see [`taken_indices`]; ids do not depend on it.
        seed (`int`, *optional*, defaults to `0`): For `take="random:…"`.
        path_prefix (`str`, *optional*, defaults to `""`):
            Taken off the front of every media path, for files that hold absolute paths of another machine.
        skip_bad (`bool`, *optional*, defaults to `False`):
            Leave bad records out and log each as a warning, instead of raising.

    Raises:
        `ValueError`: The file is no JSON list, `layout` or `take` is unknown, no row is left, or records are bad: each
            is named (the first 20), and nothing is written.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; known are {', '.join(LAYOUTS)}")
    source, destination = Path(source_json), Path(destination_jsonl)
    records = json.loads(source.read_text(encoding="utf-8-sig"))
    if not isinstance(records, list):
        raise ValueError(f"{source} must hold a JSON list of records, got a {type(records).__name__}")
    rows: list[dict[str, Any]] = []
    errors: list[str] = []
    for index in range(len(records)) if take is None else taken_indices(len(records), take, seed):
        try:
            if not isinstance(records[index], Mapping):
                raise ValueError(f"record {index}: expected a JSON object, got {records[index]!r}")
            rows.append(LAYOUTS[layout](_without_prefix(records[index], path_prefix), index))
        except ValueError as error:
            errors.append(f"{source}: {error}")
    if not skip_bad:
        refuse(errors, "bad record(s)")
    for error in errors:
        logger.warning("left out: %s", error)
    if not rows:
        raise ValueError(f"{source}: no record is left to write")
    destination.parent.mkdir(parents=True, exist_ok=True)
    destination.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return len(rows)


def _without_prefix(record: Mapping[str, Any], prefix: str) -> Mapping[str, Any]:
    def strip(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: strip(part) for name, part in value.items()}
        is_below = prefix and isinstance(value, str) and value.startswith(prefix)
        return value[len(prefix) :].lstrip("/") if is_below else value

    return {name: strip(value) if name in ("path", "video") else value for name, value in record.items()}
