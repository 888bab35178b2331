# SPDX-License-Identifier: Apache-2.0
"""Media files that a browser can play or show, by their ending."""

from __future__ import annotations

import re
from pathlib import Path

MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}
MAX_MEDIA_BYTES = 8_000_000  # a larger file is named or linked, never embedded or sent


def split_fragment(path: str) -> tuple[str, str]:
    """
    A path as logs have it, and which seconds of the file are meant (empty: all), see
    [`~omni_grpo.data.media.segment.Segment.fragment`].

    >>> split_fragment("film.mp4#t=3,7.5"), split_fragment("c#.mp4")
    (('film.mp4', '#t=3,7.5'), ('c#.mp4', ''))
    """
    file = re.sub(r"#t=[\d.]+(,[\d.]+)?$", "", path)
    return file, path[len(file) :]


def media_type(path: str | Path) -> str | None:
    """
    The MIME type of a file that browsers show; `None` for any other.

    >>> media_type("clips/17.MP4"), media_type("clips/17.mkv")
    ('video/mp4', None)
    """
    return MEDIA_TYPES.get(Path(split_fragment(str(path))[0]).suffix.lower())


def media_kind(path: str | Path) -> str | None:
    """`video`, `audio` or `image`; `None` for a file that browsers do not show."""
    found = media_type(path)
    return found.partition("/")[0] if found else None
