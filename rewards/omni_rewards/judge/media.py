# SPDX-License-Identifier: Apache-2.0
"""What a judge sees and hears: pictures, frames and sound of a row as content parts of the chat-completions protocol."""

import base64
import hashlib
import io
import os
import wave
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

MIN_BYTES = 4096  # of a part: a picture of any size can be brought below
_READER = (
    "omni_grpo.data.media.reader"  # by name, and only where media are sent: it takes more than the standard library
)
_MAX_PIXELS = 768**2  # of what is coded anew
_RATE = 16_000  # samples a second, of two bytes each
_ORIENTATION = 0x112  # in EXIF; 1 is upright
_AS_THEY_ARE = {b"\xff\xd8\xff": "jpeg", b"\x89PNG": "png", b"RIFF": "webp"}


@dataclass(frozen=True)
class Medium:
    """
    A picture, the frames of a video, or a sound, which may be a video's.

    Args:
        kind (`str`): `image`, `video` or `audio`.
        path (`str`): The file.
        start, end (`float`): Which seconds of it.
        row (`str`): The row's name, for messages.
        frames (`int`, defaults to 1): How many frames of a video are shown.
        max_bytes (`int`, defaults to 1048576): Largest part.
    """

    kind: str
    path: str
    start: float = 0.0
    end: float | None = None
    row: str = field(default="", compare=False)
    frames: int = 1
    max_bytes: int = 1 << 20

    def reference(self) -> dict[str, Any]:
        """
        What stands for it in the record and in the key of a request: the hash of the file, and how it is cut.

        Raises `ValueError`, with the row's name, where there is no such file.
        """
        with _named(self):
            digest = _hash_of(self.path, os.stat(self.path).st_mtime_ns)
        cut = {name: getattr(self, name) for name in ("start", "end", "frames", "max_bytes")}
        return {"type": self.kind, "sha256": digest, **cut}

    def parts(self) -> tuple[dict[str, Any], ...]:
        """
        What is sent. Raises `ValueError`, with the row's name, for a file that cannot be read, and `ImportError`, with
        the extra, where a decoder is needed and not installed.
        """
        digest = self.reference()["sha256"]
        with _named(self):
            return _parts(self, digest)


def shown(index: int, columns: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Kind and part of each medium of the row's prompt, in TRL's `prompts`; after a video the sound that belongs to it."""
    prompts: Any = columns.get("prompts")
    turns = prompts[index] if prompts and not isinstance(prompts[index], str) else ()
    parts = [part for turn in turns if not isinstance(turn["content"], str) for part in turn["content"] or ()]
    kinds = [[part["type"], "audio"] if part.get("audio_in_video") else [part["type"]] for part in parts]
    return [(kind, part) for part, own in zip(parts, kinds, strict=True) for kind in own if kind != "text"]


def media_of(judge: Any, index: int, columns: Mapping[str, Any]) -> tuple[Medium, ...]:
    """
    What `judge` is to be sent of the row: nothing without `send_media`, else the media that are [`shown`].

    Raises `ValueError`, with the row's name, for a medium that is no file.
    """
    found: list[Medium] = []
    row = repr(columns["id"][index]) if columns.get("id") else f"number {index} of the batch"
    for kind, part in shown(index, columns) if getattr(judge, "send_media", False) else ():
        if not isinstance(path := part.get("path") or part.get(part["type"]), str):
            raise ValueError(f"row {row}: a judge is sent files, its {part['type']} is {path!r:.80}; name a `path`")
        found.append(Medium(kind, path, part.get("start") or 0.0, part.get("end"), row))
    return tuple(found)


def capped(media: Sequence[Medium], most: int, max_bytes: int) -> list[Medium]:
    """The first `most` of `media`, each part at most `max_bytes`; places that are left go to the frames of videos."""
    num_videos = max(sum(medium.kind == "video" for medium in media[:most]), 1)
    frames = max(most - len(media), 0) // num_videos + 1
    return [replace(m, frames=frames if m.kind == "video" else 1, max_bytes=max_bytes) for m in media[:most]]


@contextmanager
def _named(medium: Medium) -> Generator[None]:
    try:
        yield
    except ImportError as error:
        raise ImportError(f'`send_media` needs a decoder ({error}): pip install "omni-grpo[train]"') from error
    except (OSError, ValueError) as error:
        remedy = "mend the file or the path, drop the row, or set `send_media: false`"
        raise ValueError(f"row {medium.row}: the judge cannot be sent {medium.path}: {error}; {remedy}") from error


@lru_cache(maxsize=4096)
def _hash_of(path: str, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=128)  # by content: the completions of a row, and the rewards of a step, show the same
def _parts(medium: Medium, sha256: str) -> tuple[dict[str, Any], ...]:
    with open(medium.path, "rb") as file:
        content = file.read() if medium.kind == "image" else b""
    kinds = [name for begin, name in _AS_THEY_ARE.items() if content.startswith(begin)]
    as_is = [_picture(name, content) for name in kinds if len(content) <= medium.max_bytes]
    if as_is and find_spec("PIL") is None:
        return tuple(as_is)
    reader, longest = import_module(_READER), (medium.max_bytes - 44) / (2 * _RATE)  # 44: a header
    sizes = {"num_frames": medium.frames, "frame_multiple": 1, "max_pixels": _MAX_PIXELS, "pixel_multiple": 1}
    sounds = {"sampling_rate": _RATE, "max_audio_seconds": longest, "long_audio": "truncate"}
    settings = reader.MediaSettings(
        **sizes, **sounds, max_missing_share=1.0
    )  # how much may be missing is the run's to say
    segment = reader.Segment(medium.start, medium.end)
    found, notes = reader.decode_media(medium.kind, medium.path, settings, segment)
    if medium.kind == "image":  # one that goes as it is must be whole, too
        return tuple(as_is if as_is and _is_upright(content) else [_jpeg(found, medium.max_bytes)])
    label = {"type": "text", "text": "; ".join([f"{medium.kind} of the question", *notes]) + ":"}
    if medium.kind == "video":
        return (label, *(_jpeg(frame, medium.max_bytes) for frame in found.frames))
    with wave.open(buffer := io.BytesIO(), "wb") as file:
        file.setparams((1, 2, _RATE, 0, "NONE", ""))
        file.writeframes((found * 32767).astype("<i2").tobytes())
    sound = {"data": base64.b64encode(buffer.getvalue()).decode(), "format": "wav"}
    return (label, {"type": "input_audio", "input_audio": sound})


def _is_upright(content: bytes) -> bool:
    """Whether a picture is kept as it is to be seen: not every server turns one that its camera has marked."""
    with import_module("PIL.Image").open(io.BytesIO(content)) as image:
        image.load()
        return image.getexif().get(_ORIENTATION, 1) == 1


def _jpeg(pixels: Any, max_bytes: int) -> dict[str, Any]:
    import_module("PIL.Image").fromarray(pixels).save(buffer := io.BytesIO(), "JPEG", quality=90)
    small = buffer.tell() <= max_bytes
    return _picture("jpeg", buffer.getvalue()) if small else _jpeg(pixels[::2, ::2], max_bytes)


def _picture(kind: str, content: bytes) -> dict[str, Any]:
    url = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}
