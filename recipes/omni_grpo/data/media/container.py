# SPDX-License-Identifier: Apache-2.0
"""Opening video and sound files with PyAV, and choosing among their tracks."""

import logging
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from omni_grpo.data.media.declared_size import declared_bytes
from omni_grpo.data.media.settings import MediaError

logger = logging.getLogger(__name__)

AGAIN = "get the file again, or drop the row"
# Libav's names of the containers that are read; none of them names other files. The images are told, not read.
FORMATS = (
    *["mov", "matroska", "webm", "avi", "flv", "mpegts", "mpeg", "gif", "asf", "rm", "mxf", "nut", "ivf", "dv"],
    *["wav", "w64", "aiff", "caf", "au", "mp3", "aac", "flac", "ogg", "ac3", "eac3", "dts", "amr", "ape", "wv", "tta"],
    *["png_pipe", "jpeg_pipe", "webp_pipe", "bmp_pipe", "tiff_pipe"],
)
# What a file that only points to others holds in its first bytes.
PLAYLIST = re.compile(
    rb"(?P<hls>#EXTM3U)|(?P<concat>ffconcat)|(?P<dash><MPD)|(?P<imf>CompositionPlaylist)|(?P<sdp>c=IN )|(?P<rtsp>rtsp://)"
    rb"|(?P<pls>\[playlist\])|(?P<asx><asx)|(?P<xspf>xspf\.org)"
)
# What libraries raise on absurd bytes; `NameError` and `ImportError` are our own.
LIBRARY_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, LookupError, MemoryError, OSError),
    *(ReferenceError, RuntimeError, SyntaxError, SystemError, TypeError, ValueError, struct.error, zlib.error),
)

OneStream = TypeVar("OneStream", bound=Stream)


def require_file(path: str | Path) -> Path:
    """`path` as a `Path`; raises [`MediaError`] unless it is a file with something in it."""
    path = Path(path)
    if path.is_dir():
        raise MediaError(f"{path}: is a directory; name a file in it")
    if not path.exists():
        raise MediaError(f"{path}: there is no such file; correct the row's path, or media_root")
    if not path.is_file():
        raise MediaError(f"{path}: is a pipe, a socket or a device; write what it gives to a file, and name that")
    if path.stat().st_size == 0:
        raise MediaError(f"{path}: the file is empty (0 bytes); {AGAIN}")
    return path


@contextmanager
def named(path: str | Path) -> Iterator[None]:
    """Whatever a library raises in the block, on bytes that nobody foresaw, becomes a [`MediaError`] that names `path`.

    Libav's errors are of one class, but what PyAV, Pillow and NumPy make of absurd values in a file is of any.
    """
    try:
        yield
    except MediaError:
        raise
    except FFmpegError as error:
        raise MediaError(f"{path}: cannot be decoded, it is damaged ({error.strerror}); {AGAIN}") from error
    except LIBRARY_ERRORS as error:
        raise MediaError(
            f"{path}: cannot be read, it is damaged ({type(error).__name__}: {error}); {AGAIN}"
        ) from error


@contextmanager
def open_media(path: str | Path) -> Iterator[InputContainer]:
    """The opened container; whatever fails, here or in the `with` block, becomes a [`MediaError`].

    A container of [`FORMATS`], told by its content, is read from this one file: libav is given its descriptor, so that
    no name can lead it elsewhere, and may use no protocol but that. One that is shorter than its headers declare (mp4,
    mov, matroska, webm, wav, aiff, avi) is refused.
    """
    path = require_file(path)
    with named(path), path.open("rb") as file:
        missing = declared_bytes(file) - os.fstat(file.fileno()).st_size
        if missing > 1:  # some writers count a padding byte that they do not write
            raise truncated(path, f"{missing} bytes are missing")
        file.seek(0)
        options = {"fd": str(file.fileno()), "protocol_whitelist": "fd", "format_whitelist": ",".join(FORMATS)}
        try:
            container = av.open("fd:", options=options, metadata_errors="replace")
        except FFmpegError as error:
            raise _not_opened(path, error) from error
        with container:
            if not container.streams:
                raise MediaError(f"{path}: holds no stream, its index is damaged or truncated; {AGAIN}")
            yield container


def _not_opened(path: Path, error: FFmpegError) -> MediaError:
    with path.open("rb") as file:
        head = file.read(4096)
    if found := PLAYLIST.search(head):
        return MediaError(f"{path}: is a playlist ({found.lastgroup}); name the media file itself")
    return MediaError(
        f"{path}: is not a video or sound file of a kind that is read (such as mp4, mkv, webm, wav, mp3), or is truncated "
        f"before its index ({error.strerror}); convert it, {AGAIN}"
    )


def truncated(path: str | Path, what: str) -> MediaError:
    """The refusal of a file of which only a part is there."""
    return MediaError(f"{path}: the file is truncated, {what}; {AGAIN}")


def pictures(container: InputContainer) -> list[VideoStream]:
    """The video streams that are film and can be decoded: a song's cover is left out."""
    films = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    return [stream for stream in films if stream.codec_context is not None]


def sounds(container: InputContainer) -> list[AudioStream]:
    """The sound tracks that can be decoded."""
    return [stream for stream in container.streams.audio if stream.codec_context is not None]


def default_track(streams: Sequence[OneStream]) -> OneStream:
    """The stream that players take: the first that is marked as default, or the first."""
    return next((stream for stream in streams if stream.disposition & Disposition.default), streams[0])


def track_notes(streams: Sequence[Stream]) -> list[str]:
    """What is to be said of a choice among several streams of a kind."""
    if len(streams) < 2:
        return []
    taken = default_track(streams)
    language = f", language {taken.language}" if taken.language not in (None, "und") else ""
    return [f"has {len(streams)} {taken.type} tracks; the default one is read (stream {taken.index}{language})"]


def log_notes(path: str | Path, notes: Iterable[str]) -> None:
    """Warn of what the readers of `path` chose or left out."""
    for note in notes:
        logger.warning("%s: %s", path, note)
