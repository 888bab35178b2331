# SPDX-License-Identifier: Apache-2.0
"""One JSONL row = one example: its fields and what each must be. `omni_grpo.data.rows.loading` reads files of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import cached_assets_path

from omni_rewards import PROBLEM_TYPES, answer_score

MEDIA_TYPES = ("image", "video", "audio")
MAX_REPORTED = 20

# field -> (type, required, meaning); docs/own_data.md's table is generated from it.
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
        'to `media_root`), for a video `use_audio` (`true`, `false` or `"if_present"`; `false` if not given), and, for a '
        "segment of a video or a sound, its `start` and `end` in seconds (`end` null or not given: to the end)",
    ),
    "pair": (
        "string",
        "no",
        "an id that two rows share, for `contrast_pairs`: one question, other media, another solution",
    ),
    "meta": ("object", "no", "anything; carried along, never read"),
}
_STRINGS = tuple(name for name, (kind, _, _) in FIELDS.items() if kind == "string" and name != "problem_type")


def schema_table() -> str:
    """[`FIELDS`] as a Markdown table."""
    lines = ["| field | type | required | meaning |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {kind} | {required} | {text} |" for name, (kind, required, text) in FIELDS.items()]
    return "\n".join(lines)


class DataError(ValueError):
    """Bad rows in a data file: the message names file, line, id, field and remedy of each."""


def refuse(problems: Sequence[str], what: str) -> None:
    """Raise a [`DataError`] that counts `problems`, says `what` they are and lists them, the first 20 in full."""
    if problems:
        more = [f"… and {len(problems) - MAX_REPORTED} more"] if len(problems) > MAX_REPORTED else []
        raise DataError("\n".join([f"{len(problems)} {what}:", *problems[:MAX_REPORTED], *more]))


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
        start, end (`float`): Video and audio: which seconds of the file, see [`~omni_grpo.data.media.segment.Segment`].
    """

    type: str
    path: str
    use_audio: bool | str = False
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class Example:
    """
    One checked row; the fields are those of [`FIELDS`]. A row of TRL's form may have an empty `problem_type` or
    `solution`, and has `prompt`, its own turns, and `columns`, which are carried to rewards; see
    [`~omni_grpo.data.rows.trl_rows.from_trl_row`].
    """

    id: str
    problem: str = ""
    problem_type: str = ""
    solution: str = ""
    options: tuple[str, ...] | None = None
    context: str | None = None
    reference_reasoning: str | None = None
    target: str | None = None
    media: tuple[MediaItem, ...] = ()
    pair: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    prompt: Sequence[Mapping[str, Any]] | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


def _check_text(row: Mapping[str, Any], name: str, of_trl: bool) -> Iterator[str]:
    value = row.get(name)
    required = name == "id" or (FIELDS[name][1] == "yes" and not of_trl)
    if (value is not None or required) and not (isinstance(value, str) and value.strip()):
        yield f"{name}: expected a non-empty string, got {value!r}"


def pictures_folder() -> Path:
    """Where embedded pictures lie as files, in Hugging Face's cache of assets."""
    return cached_assets_path("omni-grpo", subfolder="pictures")


def _check_media(items: Any, root: Path, roots: Sequence[Path]) -> Iterator[str]:
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
        if unknown := sorted(set(item) - {"type", "path", "use_audio", "start", "end"}):
            yield f"{where}: unknown keys {unknown}; free data belongs in `meta`"
        yield from _check_segment(item, where)
        yield from _check_path(item.get("path"), root, roots, f"{where}.path")


def _check_segment(item: Mapping[str, Any], where: str) -> Iterator[str]:
    given = {name: item[name] for name in ("start", "end") if item.get(name) is not None}
    if given and item.get("type") == "image":
        yield f"{where}.{next(iter(given))}: an image has no time; take `start` and `end` out"
        return
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1e9:
            yield f"{where}.{name}: expected seconds, 0 or more, got {value!r}"
            return
    if "end" in given and (start := given.get("start", 0)) >= given["end"]:
        yield f"{where}: `start` {start:g} must be less than `end` {given['end']:g}; correct them, or leave `end` out"


def _check_path(path: Any, root: Path, roots: Sequence[Path], where: str) -> Iterator[str]:
    if not isinstance(path, str) or not path:
        yield f"{where}: expected a path, got {path!r}"
        return
    try:
        full = (root / path).resolve()
        inside = any(full.is_relative_to(r.resolve()) for r in (root, pictures_folder(), *roots))
        there = full.is_file()
        # The outermost link that leads out: what it leads to is what a further root must name.
        ways = [way for way in reversed((root / path).parents) if way.is_relative_to(root) and way.is_symlink()]
        leads = next((way.resolve() for way in ways if not way.resolve().is_relative_to(root.resolve())), full.parent)
    except (OSError, RuntimeError, ValueError) as error:  # too long, links in a circle, a null byte
        yield f"{where}: {path!r} cannot be a path ({error}); fix the path"
        return
    if not inside:
        yield (
            f"{where}: {path!r} leaves the media root {root} and leads to {full}; move the file below it, or allow "
            f"that folder too: `media_roots: {json.dumps([str(leads)], ensure_ascii=False)}`"
        )
    elif not there:
        yield f"{where}: no file at {full}; fix the path or set `media_root`"


def check_row(
    row: Mapping[str, Any], root: Path, of_trl: bool = False, roots: Sequence[Path] = (), graded: bool = False
) -> list[str]:
    """
    Everything that is wrong with one row, as `"field: what is wrong; remedy"`; empty when the row is good.

    Args:
        row (`Mapping`): The row as read from JSON.
        root (`Path`): Folder that media paths are relative to and must not leave.
        of_trl (`bool`, defaults to `False`): Whether it came in one of TRL's forms, which ask for a prompt alone.
        roots (sequence of `Path`, *optional*): Further folders that links may lead to.
        graded (`bool`, defaults to `False`): Whether the solution must be one that `answer_reward` can read, which would
            else stop training when the row comes up.
    """
    problems = [problem for name in _STRINGS for problem in _check_text(row, name, of_trl)]
    kind = row.get("problem_type")
    if (kind is not None or not of_trl) and (not isinstance(kind, str) or kind not in PROBLEM_TYPES):
        problems.append(f"problem_type: {kind!r} is unknown; one of {', '.join(PROBLEM_TYPES)}")
    elif isinstance(kind, str) and PROBLEM_TYPES[kind].needs_options and not row.get("options"):
        problems.append(f"options: required for problem_type {kind!r}; list what to choose from")
    options = row.get("options")
    if options is not None and (
        not isinstance(options, (list, tuple)) or not all(isinstance(o, str) and o.strip() for o in options)
    ):
        problems.append(f"options: expected a list of non-empty strings, got {options!r}")
    problems.extend(_check_media(row["media"] if row.get("media") is not None else (), root, roots))
    if row.get("meta") is not None and not isinstance(row["meta"], Mapping):
        problems.append(f"meta: expected an object, got {row['meta']!r}")
    if unknown := sorted(set(row) - set(FIELDS)):
        problems.append(f"unknown fields {unknown}; free data belongs in `meta`")
    if graded and not problems and kind and row.get("solution"):
        try:
            answer_score(row["solution"], row["solution"], kind, options or None)
        except ValueError as error:
            problems.append(f"solution: {error}; correct it, or the `problem_type`")
    return problems
