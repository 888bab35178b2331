# SPDX-License-Identifier: Apache-2.0
"""
Records of published data sets, rewritten as rows of `omni_grpo.data.rows.schema`.

Two layouts are read, each a JSON list: `humanomniv2` (HumanOmniV2's rewrites of EMER, Social-IQ and Video-R1) and
`r1_omni` (R1-Omni's cold-start and RLVR files). A record that does not fit is named with its place in the file; nothing
is guessed or replaced.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from omni_rewards import CONTEXT_THINK_ANSWER, THINK_ANSWER, Sections, SectionSchema, answer_score, parse_sections

# A published reference is one of these; only the first two are whole enough to imitate.
_TARGET_SCHEMAS = (CONTEXT_THINK_ANSWER, THINK_ANSWER)
_REFERENCE_SCHEMAS = (*_TARGET_SCHEMAS, SectionSchema(("context", "answer")), SectionSchema(("answer",)))
_HUMANOMNIV2_FIELDS = {"problem", "problem_type", "options", "data_type", "path", "video", "solution", "answer"}


def from_humanomniv2(record: Mapping[str, Any], index: int) -> dict[str, Any]:
    """
    One HumanOmniV2 record as a row.

    `solution` is split into `context` and gold answer and kept whole as `target` where it has a `<think>` section;
    `path` (or its duplicate `video`) becomes a video with `use_audio: "if_present"`, an image, or an image with a
    sound. Fields of no use to the schema, such as `clean_list`, go to `meta`.

    Args:
        record (`Mapping`): The record as read from JSON.
        index (`int`): Its position in the file, part of the row's id.

    Raises:
        `ValueError`: Naming the record, when a field is missing or malformed, `answer` and the `<answer>` section
            disagree, or the gold answer cannot be read as its `problem_type`.

    >>> from_humanomniv2({"problem": "Is she lying?", "problem_type": "judge", "data_type": "video",
    ...                   "path": "clips/7.mp4", "solution": "<answer>No</answer>", "answer": "No"}, 3)
    ... # doctest: +NORMALIZE_WHITESPACE
    {'id': '7-3', 'problem': 'Is she lying?', 'problem_type': 'judge', 'solution': 'No',
     'media': [{'type': 'video', 'path': 'clips/7.mp4', 'use_audio': 'if_present'}]}
    """
    with _naming(record, index):
        return _row(
            index,
            _humanomniv2_media(record),
            reference=_text(record, "solution"),
            answer=record.get("answer"),
            meta={name: value for name, value in record.items() if name not in _HUMANOMNIV2_FIELDS},
            problem=_text(record, "problem"),
            problem_type=_text(record, "problem_type"),
            options=_options(record),
        )


def from_r1_omni(record: Mapping[str, Any], index: int) -> dict[str, Any]:
    """
    One R1-Omni record as a row of type `label`.

    The `<video>` and `<audio>` marks are taken off the question; `<audio>` makes the video's sound
    `use_audio: "if_present"`. A cold-start answer (`<think>`, `<answer>`) is kept as `target`; an RLVR answer is the
    bare label.

    Args:
        record (`Mapping`): The record as read from JSON.
        index (`int`): Its position in the file, part of the row's id.

    Raises:
        `ValueError`: Naming the record, when it is not one question with one answer about one video, or the answer
            has tags but no single label in them.

    >>> row = from_r1_omni({"video": "dfew/12.mp4", "conversations": [
    ...     {"from": "human", "value": "<video>\\n<audio>\\nWhich emotion is most obvious?"},
    ...     {"from": "gpt", "value": "happy"}]}, 0)
    >>> row["problem"], row["solution"], row["media"][0]["use_audio"]
    ('Which emotion is most obvious?', 'happy', 'if_present')
    """
    with _naming(record, index):
        path, turns = _relative_path(record.get("video")), record.get("conversations")
        told = turns if isinstance(turns, list) and all(isinstance(turn, Mapping) for turn in turns) else []
        if [turn.get("from") for turn in told] != ["human", "gpt"]:
            raise ValueError(f"conversations must be one human turn and one gpt turn, got {turns!r}")
        question, reference = (_text(turn, "value") for turn in told)
        if "<video>" not in question:
            raise ValueError(f"the question must hold the <video> mark, got {question!r}")
        return _row(
            index,
            [{"type": "video", "path": path, "use_audio": "if_present" if "<audio>" in question else False}],
            reference=reference if "<" in reference else f"<answer>{reference}</answer>",
            meta={name: value for name, value in record.items() if name not in ("video", "conversations")},
            problem=re.sub(r"<(?:video|audio)>\s*", "", question).strip(),
            problem_type="label",
        )


LAYOUTS: dict[str, Callable[[Mapping[str, Any], int], dict[str, Any]]] = {
    "humanomniv2": from_humanomniv2,
    "r1_omni": from_r1_omni,
}


@contextmanager
def _naming(record: Mapping[str, Any], index: int) -> Iterator[None]:
    """What is raised in the block names the record."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"record {index} ({record.get('path', record.get('video'))}): {error}") from error


def _row(
    index: int, media: list[dict[str, Any]], reference: str, meta: dict[str, Any], answer: Any = None, **fields: Any
) -> dict[str, Any]:
    """The row of a record; `fields` are those of the schema that need no look at the reference."""
    sections, is_target = _split_reference(reference)
    solution = sections.texts["answer"].strip()
    # The gold answer must earn the maximum under the check that training will use, and so must its second copy.
    for name, copy in (("<answer>", solution), ("answer", solution if answer is None else str(answer))):
        if answer_score(copy, solution, fields["problem_type"], fields.get("options")) != 1.0:
            raise ValueError(f"the {name} {copy!r} disagrees with the solution's answer {solution!r}")
    row = {
        "id": f"{PurePosixPath(media[0]['path']).stem}-{index}",
        **fields,
        "solution": solution,
        "context": sections.texts.get("context", "").strip(),
        "target": reference.strip() if is_target else None,
        "media": media,
        "meta": meta,
    }
    return {name: value for name, value in row.items() if value}


def _split_reference(reference: str) -> tuple[Sections, bool]:
    """Sections of a published reference, and whether it is whole enough to be a target."""
    for schema in _REFERENCE_SCHEMAS:
        if (sections := parse_sections(reference, schema)).ok:
            return sections, schema in _TARGET_SCHEMAS
    reason = parse_sections(reference).reason
    raise ValueError(f"the solution is not well formed ({reason}): {reference[:200]!r}")


def _options(record: Mapping[str, Any]) -> list[str] | None:
    options = record.get("options") or None
    if options is not None and not (isinstance(options, list) and all(isinstance(option, str) for option in options)):
        raise ValueError(f"options must be a list of texts, got {options!r}")
    return options


def _humanomniv2_media(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    path, kind = record.get("path", record.get("video")), record.get("data_type")
    if record.get("video", path) != path:
        raise ValueError(f"path {path!r} and video {record['video']!r} differ")
    if isinstance(path, Mapping):
        if set(path) != {"image", "audio"}:
            raise ValueError(f"a path of several files must name image and audio, got {dict(path)}")
        return [{"type": name, "path": _relative_path(path[name])} for name in ("image", "audio")]
    if kind not in ("video", "image"):
        raise ValueError(f"data_type must be video or image, got {kind!r}")
    return [{"type": kind, "path": _relative_path(path)} | ({"use_audio": "if_present"} if kind == "video" else {})]


def _relative_path(path: Any) -> str:
    if not isinstance(path, str) or not path.strip():
        raise ValueError(f"expected the path of a media file, got {path!r}")
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise ValueError(f"{path!r} must be relative to the media root; path_prefix can take a root off")
    return str(pure)


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text, got {value!r}")
    return value
