# SPDX-License-Identifier: Apache-2.0
"""Decode once: frames and waveforms kept on disk, by what is in the file and how it is read."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL
from safetensors.numpy import load, save

from omni_grpo.data.media.container import log_notes, require_file
from omni_grpo.data.media.entry_store import EntryStore
from omni_grpo.data.media.reader import READER_VERSION, decode_media
from omni_grpo.data.media.segment import WHOLE, Segment
from omni_grpo.data.media.settings import MediaSettings
from omni_grpo.data.media.video import Video

LAYOUT_VERSION = 2  # of what [`_pack`] writes
DECODERS = [LAYOUT_VERSION, READER_VERSION, av.__version__, sorted(av.library_versions.items()), PIL.__version__]
# A file that changed this shortly ago may change again within one tick of its file system's clock.
SETTLED_NS = 2 * 10**9
_SIZE = ("min_pixels", "max_pixels", "pixel_multiple")
_STREAM = ("video_sampling", "fps", "min_frames", "max_frames", "frame_multiple")
_SOUND = ("sampling_rate", "max_audio_seconds", "long_audio", "max_missing_share")


class DecodeCache:
    """
    Reads media as `media.read_media` does, from disk where the same bytes were read the same way before.

    An entry's name is made of the file's content and ending, the segment, the settings that matter to its modality, and the versions
    of the readers: a file that is moved or copied is found again, one that is changed is not. Its content is hashed
    once, and remembered by path, size, times and inode. Warnings of the first reading are repeated at each.

    Args:
        folder (`str` or `Path`): Where entries lie; any number of processes may share it.
        max_mb (`int`): Most MB on disk; the least recently used go first.

    Attributes:
        decoded (`int`): Items that were decoded, not found.

    Raises:
        `ValueError`: The folder cannot be made, or `max_mb` is not positive.
    """

    def __init__(self, folder: str | Path, max_mb: int) -> None:
        if max_mb <= 0:
            raise ValueError(f"decode_cache_mb: must be more than 0 for a cache, got {max_mb}")
        self.store = EntryStore(Path(folder), max_mb * 2**20)
        self.decoded = 0

    def read(self, kind: str, path: str | Path, settings: MediaSettings, segment: Segment = WHOLE) -> Any:
        """
        The item, as `media.read_media` gives it.

        Raises:
            `MediaError`: As the readers do; failures are not kept.
        """
        path = require_file(path)
        state = _state(path)
        key = entry_key(kind, self._content(path, state), path.suffix, settings, segment)
        if (entry := self.store.read(key)) is not None:
            item, notes = _unpack(entry)
        else:
            item, notes = decode_media(kind, path, settings, segment)
            self.decoded += 1
            if _state(path) == state:  # not replaced while it was read
                self.store.write(key, _pack(item, notes))
        log_notes(path, notes)
        return item

    def _content(self, path: Path, state: list[Any]) -> str:
        """SHA-256 of the file; a file that looks as it did is not read again, in this run or the next."""
        key = hashlib.sha256(json.dumps(state).encode()).hexdigest()
        if (entry := self.store.read(key)) is not None:
            return entry.decode()
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        if time.time_ns() - max(state[2], state[3]) >= SETTLED_NS and _state(path) == state:
            self.store.write(key, content.encode())
        return content


def open_decode_cache(folder: str | None, max_mb: int, output_dir: str | Path) -> DecodeCache | None:
    """
    The cache that a run's fields `decode_cache` and `decode_cache_mb` describe; `None` for 0 MB. Without a folder it is
    `decode_cache` beside the run's own folder, where the run's other stages find it.
    """
    return DecodeCache(folder or Path(output_dir).parent / "decode_cache", max_mb) if max_mb else None


def entry_key(kind: str, content: str, suffix: str, settings: MediaSettings, segment: Segment = WHOLE) -> str:
    """Changes with everything that decides the arrays: 64 hexadecimal digits. The ending guides libav's guess."""
    if kind == "video":
        frames = ("num_frames",) if settings.video_sampling == "uniform" else _STREAM
        names = (*frames, *_SIZE, "max_missing_share")
    else:
        names = _SOUND if kind == "audio" else _SIZE
    values = {name: getattr(settings, name) for name in names}
    whole = json.dumps([DECODERS, kind, content, suffix.lower(), values, asdict(segment)], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()


def _state(path: Path) -> list[Any]:
    status = path.stat()
    return [str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _pack(item: Video | np.ndarray, notes: list[str]) -> bytes:
    arrays = {name: np.asarray(value) for name, value in vars(item).items()} if isinstance(item, Video) else {"": item}
    return save({**arrays, "notes": np.frombuffer(json.dumps(notes).encode(), np.uint8)})


def _unpack(entry: bytes) -> tuple[Video | np.ndarray, list[str]]:
    arrays = load(entry)
    notes = json.loads(arrays.pop("notes").tobytes())
    if "fps" not in arrays:
        return arrays[""], notes
    return Video(arrays["frames"], float(arrays["fps"]), arrays["timestamps"]), notes
