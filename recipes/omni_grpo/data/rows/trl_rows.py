# SPDX-License-Identifier: Apache-2.0
"""
TRL's own forms of a row, in ours: `prompt` (a text or turns), `messages`, `completion`, `image`, `images`.

Pictures are paths, or embedded as `datasets` has them. An embedded one is written once to a file that its content names,
so that it is to every cache and every log what a picture by path is: one file, the same in each run.
"""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from omni_grpo.data.rows.schema import FIELDS, pictures_folder

TURNS = ("prompt", "messages")
PICTURES = ("image", "images")
TRL_COLUMNS = (*TURNS, *PICTURES, "completion")
_MALFORMED = (ArithmeticError, AttributeError, LookupError, OSError, SyntaxError, TypeError, ValueError)


def without_pictures(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as TRL is shown it: its pictures stand in the prompt already."""
    return {name: value for name, value in row.items() if name not in PICTURES}


def is_trl_row(row: Mapping[str, Any]) -> bool:
    """Whether a row has a column that TRL's forms have and ours does not."""
    return any(row.get(name) is not None for name in (*TURNS, *PICTURES))


def from_trl_row(row: Mapping[str, Any], where: str, root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    A row in one of TRL's forms, in ours.

    Pictures stand where TRL puts them: at the marks `{"type": "image"}` of the prompt, or before the text of its first
    turn of the user's. The last turn of `messages`, if it is the assistant's, or `completion` becomes the `target`. TRL
    asks for a prompt alone, so that `id`, `problem_type` and `solution` may be missing.

    Args:
        row (`Mapping`): The row as it was read.
        where (`str`): Where it stands, its `id` if it has none.
        root (`Path`): Folder that paths are relative to.

    Returns:
        `(dict, dict)`: Fields of [`~omni_grpo.data.rows.schema.FIELDS`]; and `prompt` (turns with marks for `media`, in that
        order; `None` where the row has a `problem` alone) and `columns`, which rewards of the user's own may read.

    Raises:
        `ValueError`: `"field: what is wrong; remedy"`.
    """
    row = {name: value for name, value in row.items() if value is not None}
    own = {name: row[name] for name in row if name in FIELDS} | {"id": str(row.get("id", where))}
    columns = {name: row[name] for name in row if name not in (*FIELDS, *TRL_COLUMNS)}
    if alone := sorted({"audio", "audios", "video", "videos"} & columns.keys()):
        raise ValueError(f"{alone[0]}: only pictures are read from a column of their own; name the file in `media`")
    given = [name for name in PICTURES if name in row]
    if len(given) > 1 or row.get("media"):
        named = " and ".join(name for name in (*TRL_COLUMNS, "media") if name in row)
        raise ValueError(
            f"{named}: name all media in one: in `media` beside a `problem`, in `images`, or in the prompt"
        )
    try:
        pictures = row["images"] if given == ["images"] and isinstance(row["images"], list) else map(row.get, given)
        paths = [_path_of(picture, root) for picture in pictures]
        columns |= {name: paths if name == "images" else paths[0] for name in given}
        turns, said = row.get("prompt") or row.get("messages") or row["problem"], row.get("completion") or []
        turns = [{"role": "user", "content": turns}] if isinstance(turns, str) else list(turns)
        said = [{"role": "assistant", "content": said}] if isinstance(said, str) else said
        if not row.get("prompt") and turns[-1]["role"] == "assistant":
            said = [turns.pop()]
        prompt, own["media"] = _with_media(turns, paths, root)
        target, shown = _with_media(said, [], root)
        if shown:
            raise ValueError("a completion is text alone")
        asked = _text([turn for turn in prompt if turn["role"] == "user"])
        own = {"problem": asked or None, "target": _text(target) or None} | own
    except (*_MALFORMED, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{' and '.join(name for name in TRL_COLUMNS if name in row)}: not a form of TRL's ({error}); write the prompt as a "
            'text, or as turns with `role` and `content` and with {"type": "image"} where each picture of `image` or '
            "`images` stands; give the file of any other medium as the `path` of its part"
        ) from error
    return own, {"prompt": prompt if any(row.get(name) for name in TURNS) else None, "columns": columns}


def _with_media(turns: list[Any], paths: list[str], root: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Turns whose content is a list of texts and of marks for media, pictures placed by TRL's own rule; and the media."""
    from trl.data_utils import prepare_multimodal_messages

    prompt, media = [], []
    for turn in prepare_multimodal_messages([_without_blanks(turn) for turn in turns], paths):
        content = []
        for part in turn["content"]:
            if (kind := part["type"]) == "text":
                content.append({"type": "text", "text": "" + part["text"]})
            else:
                file = _path_of(part[kind], root)
                content.append({"type": kind})
                media.append({name: value for name, value in part.items() if name != kind} | {"path": file})
        prompt.append({"role": turn["role"], "content": content})
    return prompt, media


def _without_blanks(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A turn without the keys that Arrow fills up with nulls; a medium's file under the name of its type, as in TRL."""
    parts = turn["content"]
    if not isinstance(parts, str):
        file = ("path", "url")
        parts = [{p["type"] if k in file else k: v for k, v in p.items() if v is not None} for p in parts]
    return {"role": turn["role"], "content": parts}


def _text(turns: list[dict[str, Any]]) -> str:
    return "\n".join(part["text"] for turn in turns for part in turn["content"] if part["type"] == "text")


def _path_of(picture: Any, root: Path) -> str:
    """The absolute path of a picture; an embedded one is written to a file first."""
    path, content = picture, picture
    if isinstance(picture, Mapping):
        path, content = picture.get("path"), picture.get("bytes")
    elif isinstance(picture, Image.Image):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG" if picture.mode in ("1", "L", "LA", "I;16", "P", "RGB", "RGBA") else "TIFF")
        content = buffer.getvalue()
    if isinstance(content, bytes):
        return _written(content)
    if not isinstance(path, str) or not path:
        raise ValueError(f"expected a path, or a picture as `datasets.Image` holds it, got {picture!r:.200}")
    return str(root / path)


def _written(content: bytes) -> str:
    with Image.open(io.BytesIO(content)) as image:
        path = pictures_folder() / f"{hashlib.sha256(content).hexdigest()}.{str(image.format).lower()}"
    if not path.is_file():
        draft = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
        draft.write_bytes(content)
        os.replace(draft, path)
    return str(path)
