# SPDX-License-Identifier: Apache-2.0
"""Data files and Hugging Face data sets as raw rows, each with its place; `loading` checks them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omni_grpo.data.rows.schema import DataError

if TYPE_CHECKING:
    from datasets import Dataset

Row = tuple[str, Any]

TEXT_FILES = (".jsonl", ".json", ".ndjson", ".csv", ".tsv")
TABLES = (".parquet", ".arrow")
ROLES = ("train", "validation", "test")  # what our fields take where no split is named
STRUCTURED = ("options", "media", "meta", "messages", "images")  # JSON in the cells of a CSV


def read_source(source: str, split: str = "train") -> tuple[Iterator[Row], Path]:
    """
    The rows of a file or data set, each with where it stands, and the folder that its media paths are relative to.

    What is no row comes as the `ValueError` that says why.

    Args:
        source (`str`):
            A file of JSON lines or a JSON array, CSV, TSV (all of them also `.gz`), Parquet or Arrow; a
            folder that `datasets` reads or has saved; the name of a data set. The latter two with `[split]` behind.
        split (`str`, defaults to `"train"`): Split of a folder or data set that names none itself.

    Raises:
        `DataError`: A file of another kind, or a split that is not there (those that are there are listed).
        `FileNotFoundError`: `source` looks like a file and is not there.
    """
    named = None if Path(source).exists() else re.fullmatch(r"([^\[\]]+)\[(.+)\]", source)
    name, asked = named.groups() if named else (source, None)
    path = Path(name)
    compressed = path.suffix.lower() == ".gz"
    kind = Path(path.stem if compressed else name).suffix.lower()
    if path.is_dir() or (not path.is_file() and kind not in (*TEXT_FILES, *TABLES)):
        return _read_dataset(name, asked or split), path if path.is_dir() else Path.cwd()
    if asked or split not in ROLES:
        raise DataError(f"{source}: a file has no split {asked or split!r}; name the file of that split alone")
    if not path.is_file():
        raise FileNotFoundError(
            f"no data file at {path.resolve()}; check `train_file`, `validation_file` or `test_file`"
        )
    try:
        if kind in TABLES:
            return _read_table(path, kind), path.parent
        content = gzip.decompress(path.read_bytes()) if compressed else path.read_bytes()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as {path.suffix} ({error}); get or write it again") from error
    if kind in (".csv", ".tsv"):
        return _read_csv(content, path, "\t" if kind == ".tsv" else ","), path.parent
    if kind not in TEXT_FILES and content.strip()[:1] not in (b"", b"{", b"["):
        known = ", ".join((*TEXT_FILES, *TABLES))
        raise DataError(f"{path}: {kind or 'a file without ending'} is not read; write the rows as one of {known}")
    return _read_json(content, path), path.parent


def _decoded(content: bytes) -> str:
    """Text in UTF-8, or in UTF-16 with its mark, as editors and shells on Windows write it; marks are left out."""
    return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of fields that are written once each; the last one would go for all."""
    if len(found := dict(pairs)) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} is written twice")
    return found


def _parsed(text: str) -> Any:
    """What JSON says. Halves of characters, which no file and no table can hold, are refused."""
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if "\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _read_json(content: bytes, path: Path) -> Iterator[Row]:
    """Each line of JSON lines, or each item of a JSON array."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        content = _decoded(content).encode()
    if content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[":
        try:
            yield from ((f"{path}[{index}]", row) for index, row in enumerate(_parsed(_decoded(content))))
            return
        except ValueError as error:
            if getattr(error, "msg", "") != "Extra data":  # lines that are lists are told one by one
                yield str(path), ValueError(f"not a JSON array ({error}); write one object a line, in UTF-8")
                return
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip(b"\xef\xbb\xbf \t\r"):
            try:
                row = _parsed(_decoded(line))
            except ValueError as error:
                row = ValueError(f"not JSON ({error}); write one object a line, in UTF-8")
            yield f"{path}:{number}", row


def _read_csv(content: bytes, path: Path, delimiter: str) -> Iterator[Row]:
    """Each record under the header, all cells as texts; lists and objects are written in them as JSON."""
    try:
        records = csv.DictReader(io.StringIO(_decoded(content), newline=""), delimiter=delimiter, strict=True)
        _object([(name, None) for name in records.fieldnames or () if name])
        for record in records:
            try:
                cells = {name: value for name, value in record.items() if value and name}
                row = {name: _parsed(value) if name in STRUCTURED else value for name, value in cells.items()}
            except ValueError as error:
                row = ValueError(f"{', '.join(STRUCTURED)}: not JSON ({error}); write a list or object into the cell")
            if None in record:
                row = ValueError(f"more cells than the header has ({record[None]!r}); put quotes around texts")
            yield f"{path}:{records.line_num}", row
    except (ValueError, csv.Error) as error:
        yield str(path), ValueError(f"not CSV in UTF-8 ({error}); write it anew, or write JSON lines")


def _read_table(path: Path, kind: str) -> Iterator[Row]:
    from datasets import Dataset
    from pyarrow import parquet

    table = Dataset.from_file(str(path)) if kind == ".arrow" else Dataset(parquet.read_table(path))  # type: ignore[arg-type]
    return table_rows(table, str(path))


def _read_dataset(name: str, split: str) -> Iterator[Row]:
    """Rows of a data set by name, of a folder of data files, or of what `save_to_disk` wrote."""
    from datasets import DatasetDict, load_dataset, load_from_disk

    saved = any((Path(name) / file).is_file() for file in ("dataset_dict.json", "state.json"))
    try:
        rows: Any = load_from_disk(name) if saved else load_dataset(name, split=split)
        if isinstance(rows, DatasetDict) and split not in rows:
            raise ValueError(f"no such split; there are {', '.join(map(str, rows))}.")
        rows = rows[split] if isinstance(rows, DatasetDict) else rows
    except ValueError as error:  # an unknown split among them: `datasets` lists those that are there
        raise DataError(f"{name}[{split}]: {error} Name a split as `{name}[split]`") from error
    return table_rows(rows, f"{name}[{split}]")


def table_rows(rows: Dataset, place: str) -> Iterator[Row]:
    """Rows without what they leave empty; pictures stay as they lie in the file."""
    from datasets import Audio, Image, Video
    from datasets import List as ListOf

    for column, feature in rows.features.items():
        one = getattr(feature, "feature", feature)
        if isinstance(one, (Audio, Video)):
            raise DataError(f"{place}: column {column!r} embeds sounds or films; write files and name them in `media`")
        if isinstance(one, Image):
            embedded = Image(decode=False)
            rows = rows.cast_column(column, embedded if one is feature else ListOf(embedded))
    for number, row in enumerate(rows):
        yield f"{place}:{number}", {name: value for name, value in row.items() if value is not None}  # type: ignore[union-attr]
