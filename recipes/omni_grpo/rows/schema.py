# SPDX-License-Identifier: Apache-2.0
"""One JSONL row = one example. The fields, their checks, and the loader.

`load_examples` reads a JSONL file (or a Hugging Face data set), checks every row before anything else happens, and
raises one [`DataError`] that lists each bad row by file, line, id and field.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omni_rewards import CHOICE_TYPES, PROBLEM_TYPES, answer_score

MEDIA_TYPES = ("image", "video", "audio")
MAX_REPORTED = 20

# field -> (type, required, meaning); README's table is generated from it.
FIELDS: dict[str, tuple[str, str, str]] = {
    "id": ("string", "yes", "unique in the file; every error and log names it"),
    "problem": ("string", "yes", "the question"),
    "problem_type": ("string", "yes", "how the answer is checked: " + ", ".join(f"`{t}`" for t in PROBLEM_TYPES)),
    "options": ("list of strings", "choice types", 'what to choose from, e.g. `["A. praise", "B. taunt"]`'),
    "solution": ("string", "yes", "the gold answer, bare: `B`, `yes`, `42`"),
    "context": ("string", "no", "reference context: what can be seen and heard"),
    "reference_reasoning": ("string", "no", "reference reasoning, for `reasoning_reward`"),
    "target": ("string", "for SFT", "the full text to imitate, sections and all"),
    "media": (
        "list of objects",
        "no",
        "any number, any mix, also none; each with `type` (`image`, `video`, `audio`), `path` (relative to the file, or "
        'to `media_root`) and, for a video, `use_audio` (`true`, `false` or `"if_present"`; `false` if not given)',
    ),
    "pair": (
        "string",
        "no",
        "an id that two rows share, for `contrast_pairs`: one question, other media, another solution",
    ),
    "meta": ("object", "no", "anything; carried along, never read"),
}


def schema_table() -> str:
    """[`FIELDS`] as a Markdown table."""
    lines = ["| field | type | required | meaning |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {kind} | {required} | {text} |" for name, (kind, required, text) in FIELDS.items()]
    return "\n".join(lines)


class DataError(ValueError):
    """Bad rows in a data file: the message names file, line, id, field and remedy of each."""


@dataclass(frozen=True)
class MediaItem:
    """
    One image, video or sound of an example.

    Args:
        type (`str`): `"image"`, `"video"` or `"audio"`.
        path (`str`): Absolute path of the file.
        use_audio (`bool` or `"if_present"`, defaults to `False`):
            Video only. `True`: its sound track is heard too, and a file without one is refused. `"if_present"`: heard
            where there is one.
    """

    type: str
    path: str
    use_audio: bool | str = False


@dataclass(frozen=True)
class Example:
    """One checked row; the fields are those of [`FIELDS`]."""

    id: str
    problem: str
    problem_type: str
    solution: str
    options: tuple[str, ...] | None = None
    context: str | None = None
    reference_reasoning: str | None = None
    target: str | None = None
    media: tuple[MediaItem, ...] = ()
    pair: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


def _check_text(row: Mapping[str, Any], name: str, required: bool) -> Iterator[str]:
    value = row.get(name)
    if value is None and not required:
        return
    if not isinstance(value, str) or not value.strip():
        yield f"{name}: expected a non-empty string, got {value!r}"


def _check_media(items: Any, root: Path) -> Iterator[str]:
    if not isinstance(items, (list, tuple)):
        yield f"media: expected a list of objects, got {items!r}"
        return
    for k, item in enumerate(items):
        where = f"media[{k}]"
        if not isinstance(item, Mapping):
            yield f"{where}: expected an object with `type` and `path`, got {item!r}"
            continue
        if item.get("type") not in MEDIA_TYPES:
            yield f"{where}.type: {item.get('type')!r} is not one of {', '.join(MEDIA_TYPES)}"
        use_audio = item.get("use_audio")
        if use_audio is not None and not isinstance(use_audio, bool) and use_audio != "if_present":
            yield f'{where}.use_audio: expected true, false or "if_present", got {use_audio!r}'
        elif use_audio and item.get("type") in ("image", "audio"):
            yield f"{where}.use_audio: only a video has a sound track to use, this is {item.get('type')}"
        if unknown := sorted(set(item) - {"type", "path", "use_audio"}):
            yield f"{where}: unknown keys {unknown}; free data belongs in `meta`"
        path = item.get("path")
        if not isinstance(path, str) or not path:
            yield f"{where}.path: expected a path, got {path!r}"
            continue
        try:
            full = (root / path).resolve()
            inside, there = full.is_relative_to(root.resolve()), full.is_file()
        except (OSError, RuntimeError, ValueError) as error:  # too long, links in a circle, a null byte
            yield f"{where}.path: {path!r} cannot be a path ({error}); fix the path"
            continue
        if not inside:
            yield f"{where}.path: {path!r} leaves the media root {root}; move the file below it or set `media_root`"
        elif not there:
            yield f"{where}.path: no file at {full}; fix the path or set `media_root`"


def _check_solution(row: Mapping[str, Any]) -> Iterator[str]:
    """A gold answer that the reward cannot read would stop training when its row comes up."""
    try:
        answer_score(row["solution"], row["solution"], row["problem_type"], row.get("options") or None)
    except ValueError as error:
        yield f"solution: {error}; correct it, or the `problem_type`"


def check_row(row: Mapping[str, Any], root: Path) -> list[str]:
    """
    Everything that is wrong with one row, as `"field: what is wrong; remedy"`; empty when the row is good.

    Args:
        row (`Mapping`): The row as read from JSON.
        root (`Path`): Folder that media paths are relative to and must not leave.
    """
    problems = [
        *_check_text(row, "id", True),
        *_check_text(row, "problem", True),
        *_check_text(row, "solution", True),
        *_check_text(row, "context", False),
        *_check_text(row, "reference_reasoning", False),
        *_check_text(row, "target", False),
        *_check_text(row, "pair", False),
    ]
    kind = row.get("problem_type")
    if not isinstance(kind, str) or kind not in PROBLEM_TYPES:
        problems.append(f"problem_type: {kind!r} is unknown; one of {', '.join(PROBLEM_TYPES)}")
    elif kind in CHOICE_TYPES and not row.get("options"):
        problems.append(f"options: required for problem_type {kind!r}; list what to choose from")
    options = row.get("options")
    if options is not None and (
        not isinstance(options, (list, tuple)) or not all(isinstance(o, str) and o.strip() for o in options)
    ):
        problems.append(f"options: expected a list of non-empty strings, got {options!r}")
    problems.extend(_check_media(row["media"] if row.get("media") is not None else (), root))
    if row.get("meta") is not None and not isinstance(row["meta"], Mapping):
        problems.append(f"meta: expected an object, got {row['meta']!r}")
    if unknown := sorted(set(row) - set(FIELDS)):
        problems.append(f"unknown fields {unknown}; free data belongs in `meta`")
    return problems


def _to_example(row: Mapping[str, Any], root: Path) -> Example:
    media = tuple(
        MediaItem(m["type"], str((root / m["path"]).resolve()), m.get("use_audio") or False)
        for m in row.get("media") or ()
    )
    options = tuple(row["options"]) if row.get("options") else None
    return Example(
        id=row["id"],
        problem=row["problem"],
        problem_type=row["problem_type"],
        solution=row["solution"],
        options=options,
        context=row.get("context"),
        reference_reasoning=row.get("reference_reasoning"),
        target=row.get("target"),
        media=media,
        pair=row.get("pair"),
        meta=row.get("meta") or {},
    )


def _read_jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    """Where each line stands, and its JSON; the error, where it is none."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except ValueError as error:
                row = error
            yield f"{path}:{number}", row


def _read_hub(name: str, split: str) -> Iterator[tuple[str, Any]]:
    from datasets import load_dataset

    rows: Any = load_dataset(name, split=split)
    for number, row in enumerate(rows):
        yield f"{name}[{split}]:{number}", {k: v for k, v in row.items() if v is not None}


def check_rows(
    rows: Iterable[tuple[str, Any]], root: Path, first_seen: dict[str, str] | None = None, graded: bool = False
) -> list[Example]:
    """
    Check every row and turn it into an [`Example`].

    Args:
        rows (iterable of `(str, Mapping)`): Where the row stands (for messages), and the row.
        root (`Path`): Folder that media paths are relative to.
        first_seen (`dict[str, str]`, *optional*):
            Ids used before, each with the place of its row; those of `rows` are added.
        graded (`bool`, defaults to `False`): Whether each solution must be one that `answer_reward` can read.

    Raises:
        `DataError`: Naming every bad row (the first 20 in full).
    """
    examples: list[Example] = []
    errors: list[str] = []
    first_seen = {} if first_seen is None else first_seen
    for where, row in rows:
        if isinstance(row, ValueError):
            errors.append(f"{where}: not JSON ({row}); write one object a line, in UTF-8")
            continue
        if not isinstance(row, Mapping):
            errors.append(f"{where}: expected a JSON object, got {row!r}")
            continue
        problems = check_row(row, root)
        if graded and not problems:
            problems.extend(_check_solution(row))
        name = row.get("id")
        if isinstance(name, str) and name in first_seen:
            problems.append(f"id: already used at {first_seen[name]}; ids are unique")
        elif isinstance(name, str):
            first_seen[name] = where
        errors.extend(f"{where} (id {name!r}): {problem}" for problem in problems)
        if not problems:
            examples.append(_to_example(row, root))
    if errors:
        more = f"\n… and {len(errors) - MAX_REPORTED} more" if len(errors) > MAX_REPORTED else ""
        raise DataError(f"{len(errors)} problem(s) in the data:\n" + "\n".join(errors[:MAX_REPORTED]) + more)
    return examples


def load_examples(
    source: str | Path,
    media_root: str | Path | None = None,
    split: str = "train",
    first_seen: dict[str, str] | None = None,
) -> list[Example]:
    """
    Read and check a data file.

    Args:
        source (`str` or `Path`): A `.jsonl` file, or the name of a Hugging Face data set with the same columns.
        media_root (`str` or `Path`, *optional*):
            Folder that media paths are relative to; defaults to the folder of the file (the working directory for a
            data set by name).
        split (`str`, defaults to `"train"`): Split of a data set by name.
        first_seen (`dict[str, str]`, *optional*): Ids of files read before, see [`check_rows`].

    Raises:
        `DataError`: A row is broken, its solution unreadable for its type, an id used twice, or there is no row.
        `FileNotFoundError`: `source` looks like a file (it ends in `.jsonl` or `.json`) and is not there.
    """
    path = Path(source)
    if path.suffix in (".jsonl", ".json") or path.is_file():
        if not path.is_file():
            raise FileNotFoundError(f"no data file at {path.resolve()}; check `train_file` / `validation_file`")
        rows, root = _read_jsonl(path), path.parent
    else:
        rows, root = _read_hub(str(source), split), Path.cwd()
    examples = check_rows(rows, Path(media_root) if media_root else root, first_seen, graded=True)
    if not examples:
        raise DataError(f"{source}: no rows, the file or split is empty; write one JSON object a line")
    return examples
