# SPDX-License-Identifier: Apache-2.0
"""Released files as records, and fields of records; what does not fit is named with its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_json(path: Path, kind: type) -> Any:
    """
    What a JSON file holds.

    Raises `ValueError` if it is no JSON or holds something else than a `kind` (`list` or `dict`).
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(value, kind):
        raise ValueError(f"expected a JSON {kind.__name__} of records, got a {type(value).__name__}")
    return value


def text(record: Any, name: str, where: str) -> str:
    """Field `name` of a record, stripped; `ValueError` if it is no text or empty."""
    value = record.get(name) if isinstance(record, Mapping) else None
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {name} must be a text, got {value!r}")
    return value.strip()


def texts(record: Any, name: str, where: str) -> list[str]:
    """Field `name` of a record, a list of texts; `ValueError` if it is none."""
    value = record.get(name) if isinstance(record, Mapping) else None
    if not isinstance(value, list) or not value or not all(isinstance(part, str) and part.strip() for part in value):
        raise ValueError(f"{where}: {name} must be a list of texts, got {value!r}")
    return [part.strip() for part in value]


def heard_video(path: str) -> list[dict[str, Any]]:
    """`media` of a row: one video, with its sound where there is one."""
    return [{"type": "video", "path": path, "use_audio": "if_present"}]
