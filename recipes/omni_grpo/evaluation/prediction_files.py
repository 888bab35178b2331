# SPDX-License-Identifier: Apache-2.0
"""
Predictions on disk, one JSON object a line, so that a run killed at any point goes on at the row where it stopped.

A row counts once its line is whole. One process writes `predictions.jsonl` itself; of several, each writes its own
`predictions.part<k>.jsonl`, and [`merge`] makes the one file of them, in the order of the questions.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

from omni_grpo.evaluation.records import Prediction

logger = logging.getLogger(__name__)


def part_file(file: Path, process: int, num_processes: int) -> Path:
    """Where process `process` of `num_processes` writes: `file` itself if it is alone."""
    return file if num_processes == 1 else file.with_suffix(f".part{process}{file.suffix}")


def finished(file: Path, own: Path, ids: Sequence[str]) -> dict[str, Prediction]:
    """
    Rows that earlier runs wrote whole, by id, whichever number of processes they had. `own` is cut back to its whole
    lines; of the other files, which their processes may be writing, what is whole is read.

    Raises:
        `ValueError`: A row is none of `ids`, or is there twice: the files are of another run.
    """
    if own.is_file():
        _cut_to_whole_lines(own)
    rows: dict[str, Prediction] = {}
    known = set(ids)
    for path in _files(file):
        for row in _whole_rows(path.read_bytes())[0]:
            if row["id"] not in known or row["id"] in rows:
                fault = "twice" if row["id"] in rows else "not among the questions"
                raise ValueError(f"{path}: row {row['id']!r} is {fault}; move the folder away and begin anew")
            rows[row["id"]] = row
    return rows


def append(own: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Add rows to a process's own file; they are in the hands of the operating system when this returns."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with own.open("ab") as out:
        out.write(text.encode("utf-8"))


def merge(file: Path, ids: Sequence[str]) -> list[Prediction]:
    """
    The rows of all processes in the order of `ids`, written to `file`; the parts are deleted after.

    Raises:
        `ValueError`: A row is missing, or as [`finished`].
    """
    rows = finished(file, file, ids)
    if missing := [i for i in ids if i not in rows]:
        raise ValueError(f"{file}: {len(missing)} of {len(ids)} rows are missing, {missing[0]!r} first")
    ordered = [rows[i] for i in ids]
    if _files(file) != [file] or list(rows) != list(ids):
        # Whole first, then the parts go, then the name: killed anywhere between, no row is lost or there twice.
        whole, draft = _whole(file), file.with_suffix(".tmp")
        draft.unlink(missing_ok=True)
        append(draft, ordered)
        os.replace(draft, whole)
        for part in _parts(file):
            part.unlink()
        os.replace(whole, file)
    return ordered


def _whole(file: Path) -> Path:
    return file.with_suffix(".whole")


def _parts(file: Path) -> list[Path]:
    return sorted(file.parent.glob(f"{file.stem}.part*{file.suffix}"))


def _files(file: Path) -> list[Path]:
    """The files that hold rows of `file`; the merged one alone where a merge was cut off after it was whole."""
    if _whole(file).is_file():
        return [_whole(file)]
    return [path for path in (file, *_parts(file)) if path.is_file()]


def _whole_rows(content: bytes) -> tuple[list[Prediction], int]:
    """Rows up to the first line that is not whole, and the length of their lines in bytes."""
    rows: list[Prediction] = []
    length = 0
    for line in content.split(b"\n")[:-1]:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or "id" not in row:
            break
        rows.append(cast(Prediction, row))
        length += len(line) + 1
    return rows, length


def _cut_to_whole_lines(path: Path) -> None:
    content = path.read_bytes()
    _, length = _whole_rows(content)
    if length < len(content):
        logger.warning("%s: the last %d bytes are no whole row; it is answered again", path, len(content) - length)
        os.truncate(path, length)
