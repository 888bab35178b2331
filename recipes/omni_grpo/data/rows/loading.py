# SPDX-License-Identifier: Apache-2.0
"""
Read rows from a data file or a Hugging Face data set.

Every row is checked before anything else happens; one [`~omni_grpo.data.rows.schema.DataError`] lists each bad row by file,
line, id and field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omni_grpo.data.media.segment import segment_of
from omni_grpo.data.rows.schema import DataError, Example, MediaItem, check_row, refuse
from omni_grpo.data.rows.sources import read_source
from omni_grpo.data.rows.trl_rows import from_trl_row, is_trl_row


def _to_example(row: Mapping[str, Any], root: Path, of_trl: Mapping[str, Any]) -> Example:
    media = tuple(
        MediaItem(m["type"], _where(root / m["path"]), m.get("use_audio") or False, **asdict(segment_of(m)))
        for m in row.get("media") or ()
    )
    fields = {name: value for name, value in row.items() if value is not None}
    return Example(**{**fields, "options": tuple(row.get("options") or ()) or None, "media": media, **of_trl})


def _where(path: Path) -> str:
    """Absolute, with the file's own name: a link may lead to a name without an ending (a Hugging Face blob)."""
    resolved = path.resolve()
    return str(resolved if resolved.suffix == path.suffix else path.parent.resolve() / path.name)


def check_rows(
    rows: Iterable[tuple[str, Any]],
    root: Path,
    first_seen: dict[str, str] | None = None,
    graded: bool = False,
    base: Path | None = None,
    media_roots: Sequence[str] | None = None,
) -> list[Example]:
    """
    Check every row and turn it into an [`Example`].

    Args:
        rows (iterable of `(str, Mapping)`): Where the row stands (for messages), and the row.
        root (`Path`): Folder that media paths are relative to, and must not leave.
        first_seen (`dict[str, str]`, *optional*):
            Ids used before, each with the place of its row; those of `rows` are added.
        graded (`bool`, defaults to `False`): Whether each solution must be one that `answer_reward` can read.
        base (`Path`, *optional*): Where the paths of rows in TRL's form begin; defaults to `root`.
        media_roots (sequence of `str`, *optional*): Further folders that links below `root` may lead to.

    Raises:
        `DataError`: Naming every bad row (the first 20 in full), or a further root that is no folder.
    """
    examples: list[Example] = []
    errors: list[str] = []
    first_seen = {} if first_seen is None else first_seen
    roots = [Path(folder) for folder in media_roots or ()]
    if lost := [str(folder) for folder in roots if not folder.is_dir()]:
        raise DataError(f"media_roots: no folder at {', '.join(lost)}; correct the path, or take it out")
    for where, row in rows:
        if not isinstance(row, Mapping):
            errors.append(f"{where}: {row if isinstance(row, ValueError) else f'expected a JSON object, got {row!r}'}")
            continue
        of_trl: Mapping[str, Any] = {}
        try:
            if is_trl_row(row):
                row, of_trl = from_trl_row(row, where, base or root)
            problems = check_row(row, root, bool(of_trl), roots, graded)
        except ValueError as error:
            problems = [str(error)]
        name = row.get("id")
        if isinstance(name, str) and name in first_seen:
            problems.append(f"id: already used at {first_seen[name]}; ids are unique")
        elif isinstance(name, str):
            first_seen[name] = where
        errors.extend(f"{where} (id {name!r}): {problem}" for problem in problems)
        if not problems:
            examples.append(_to_example(row, root, of_trl))
    refuse(errors, "problem(s) in the data")
    return examples


def load_examples(
    source: str | Path,
    media_root: str | Path | None = None,
    split: str = "train",
    first_seen: dict[str, str] | None = None,
    media_roots: Sequence[str] | None = None,
) -> list[Example]:
    """
    Read and check a data file.

    Args:
        source (`str` or `Path`): A data file, a folder, or the name of a Hugging Face data set; see [`read_source`].
        media_root (`str` or `Path`, *optional*):
            Folder that media paths are relative to; defaults to the folder of the file (the working directory for a
            data set by name).
        split (`str`, defaults to `"train"`): Split of a data set by name that is not named as `name[split]`.
        first_seen (`dict[str, str]`, *optional*): Ids of files read before, see [`check_rows`].
        media_roots (sequence of `str`, *optional*): Further folders that links below it may lead to.

    Raises:
        `DataError`: A row is broken, its solution unreadable for its type, an id used twice, there is no row, no such
            split, or the file is of a kind that is not read.
        `FileNotFoundError`: `source` looks like a file and is not there.
    """
    rows, root = read_source(str(source), split)
    root = Path(media_root) if media_root else root
    examples = check_rows(rows, root, first_seen, graded=True, media_roots=media_roots)
    if not examples:
        raise DataError(f"{source}: no rows, the file or split is empty; write one JSON object a line")
    return examples
