# SPDX-License-Identifier: Apache-2.0
"""Media files to arrays: the one door to `image.py`, `video.py` and `audio.py`.

Every reader returns what the file holds or raises [`MediaError`]; none hands out part of a file without a word.
"""

import hashlib
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from omni_grpo.data.media.audio import decode_audio
from omni_grpo.data.media.container import log_notes, require_file
from omni_grpo.data.media.image import read_image
from omni_grpo.data.media.segment import WHOLE, Segment
from omni_grpo.data.media.settings import MediaSettings
from omni_grpo.data.media.video import decode_video

READER_VERSION = 2  # raise it when the same file and settings give other arrays: caches are then made anew


class MediaReader(Protocol):
    """What [`read_media`] is, and the `read` of a cache: an item of a kind (`video`, `audio`, `image`) from a file."""

    def __call__(self, kind: str, path: str | Path, settings: MediaSettings, segment: Segment = WHOLE) -> Any: ...


def read_media(kind: str, path: str | Path, settings: MediaSettings, segment: Segment = WHOLE) -> Any:
    """An item of its kind, as [`decode_media`] has it; what there is to say of it is logged as warnings."""
    item, notes = decode_media(kind, path, settings, segment)
    log_notes(path, notes)
    return item


read_audio = partial(read_media, "audio")
read_video = partial(read_media, "video")


def decode_media(
    kind: str, path: str | Path, settings: MediaSettings, segment: Segment = WHOLE
) -> tuple[Any, list[str]]:
    """An item (`video`: a [`Video`], `audio` and `image`: an array), and what there is to say of it, unsaid."""
    if kind == "image":
        return read_image(path, settings), []
    return {"video": decode_video, "audio": decode_audio}[kind](path, settings, segment)


def media_fingerprint(path: str | Path, settings: MediaSettings, segment: Segment = WHOLE) -> str:
    """A key for caches: equal for the same seconds of equal bytes under equal settings, wherever the file lies; 64
    hexadecimal digits.

    Raises:
        MediaError: the file is missing, empty or a directory.
    """
    with require_file(path).open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    key = json.dumps([READER_VERSION, content, asdict(settings), asdict(segment)], sort_keys=True)
    return hashlib.sha256(key.encode()).hexdigest()
