# SPDX-License-Identifier: Apache-2.0
"""Media files to arrays: the one door to `image.py`, `video.py` and `audio.py`.

Every reader returns what the file holds or raises [`MediaError`]; none hands out part of a file without a word.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from omni_grpo.data.media.audio import has_audio, read_audio
from omni_grpo.data.media.container import require_file
from omni_grpo.data.media.image import read_image
from omni_grpo.data.media.segment import WHOLE, Segment
from omni_grpo.data.media.settings import MediaError, MediaSettings
from omni_grpo.data.media.video import Video, read_video

__all__ = [
    "MediaError",
    "MediaReader",
    "MediaSettings",
    "Segment",
    "Video",
    "has_audio",
    "media_fingerprint",
    "read_audio",
    "read_image",
    "read_media",
    "read_video",
]

READER_VERSION = 2  # raise it when the same file and settings give other arrays: caches are then made anew


class MediaReader(Protocol):
    """What [`read_media`] is, and the `read` of a cache: an item of a kind (`video`, `audio`, `image`) from a file."""

    def __call__(self, kind: str, path: str | Path, settings: MediaSettings, segment: Segment = WHOLE) -> Any: ...


def read_media(kind: str, path: str | Path, settings: MediaSettings, segment: Segment = WHOLE) -> Any:
    """An item read by the reader of its kind: `video` a [`Video`], `audio` and `image` an array."""
    if kind == "image":
        return read_image(path, settings)
    return {"video": read_video, "audio": read_audio}[kind](path, settings, segment)


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
