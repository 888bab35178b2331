# SPDX-License-Identifier: Apache-2.0
"""Opening video and sound files with PyAV, and telling a whole file from a truncated one."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, TypeVar

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.frame import Frame
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from omni_grpo.media.settings import MediaError

PLAYLISTS = {"concat", "hls", "dash", "imf"}  # they make libav read other files than the one that was named
MP4_BOXES = set(b"ftyp styp moov moof mdat sidx mfra free skip wide uuid udta meta pdin emsg".split())
AGAIN = "get the file again, or drop the row"
KEPT_BYTES = 64 * 2**20  # of packets, which are then decoded without reading the file again

OneStream = TypeVar("OneStream", bound=Stream)


@dataclass(frozen=True)
class Span:
    """When a stream starts and ends, in ticks of its time base (seconds = ticks × `time_base`)."""

    start: int
    end: int
    time_base: Fraction

    @property
    def seconds(self) -> float:
        return float((self.end - self.start) * self.time_base)


def require_file(path: str | Path) -> Path:
    """`path` as a `Path`; raises [`MediaError`] unless it is a file with something in it."""
    path = Path(path)
    if path.is_dir():
        raise MediaError(f"{path}: is a directory; name a file in it")
    if not path.is_file():
        raise MediaError(f"{path}: there is no such file; correct the row's path, or media_root")
    if path.stat().st_size == 0:
        raise MediaError(f"{path}: the file is empty (0 bytes); {AGAIN}")
    return path


@contextmanager
def open_media(path: str | Path) -> Iterator[InputContainer]:
    """The opened container; whatever libav fails on, here or in the `with` block, becomes a [`MediaError`].

    Only this one file is read: no network, no playlist that names other files. One that is shorter than its headers
    declare (mp4, mov, matroska, webm, wav, aiff, avi) is refused.
    """
    path = require_file(path)
    missing = declared_bytes(path) - path.stat().st_size
    if missing > 1:  # some writers count a padding byte that they do not write
        raise _truncated(path, f"{missing} bytes are missing")
    opened = False
    try:
        # "file:" keeps a name such as "http:clip.mp4" from being taken for an address.
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
            opened = True
            if container.format.name in PLAYLISTS:
                raise MediaError(f"{path}: is a playlist ({container.format.name}); name the media file itself")
            if not container.streams:
                raise MediaError(f"{path}: holds no stream, its index is damaged or truncated; {AGAIN}")
            yield container
    except FFmpegError as error:
        if opened:
            raise MediaError(f"{path}: cannot be decoded, it is damaged ({error.strerror}); {AGAIN}") from error
        raise MediaError(
            f"{path}: is not a video or sound file, or is truncated before its index ({error.strerror}); {AGAIN}"
        ) from error


def moving_pictures(container: InputContainer) -> list[VideoStream]:
    """The video streams that are film: a song's cover is left out."""
    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def seconds(ticks: int, of: Stream | Packet | Frame) -> Fraction:
    """`ticks` of the time base of a stream, a packet or a frame, in seconds."""
    if of.time_base is None:
        raise ValueError(f"{of!r} has no time base")
    return ticks * of.time_base


def shown_time(container: InputContainer, packet: Packet) -> int | None:
    """When a packet is presented, in ticks. AVI has decode times alone, and libav's guess from them is wrong."""
    return packet.dts if container.format.name == "avi" or packet.pts is None else packet.pts


@contextmanager
def scanned(
    path: str | Path, choose: Callable[[InputContainer, str | Path], OneStream]
) -> Iterator[tuple[InputContainer, OneStream, Span, Iterable[Packet]]]:
    """The opened container, the stream that `choose` takes from it, its span, and its packets from the first on.

    A file is opened once, one whose packets are too many to be kept (`KEPT_BYTES`) a second time.
    """
    with open_media(path) as container:
        stream = choose(container, path)
        span, packets = scan(container, stream, path)
        if packets is not None:
            yield container, stream, span, packets
            return
    with open_media(path) as container:
        stream = choose(container, path)
        yield container, stream, span, container.demux(stream)


def scan(container: InputContainer, stream: Stream, path: str | Path) -> tuple[Span, list[Packet] | None]:
    """The span of a stream, read from its packets without decoding them, and the packets, `None` if they are too many.

    The container is then used up.

    Raises [`MediaError`] if something is missing: packets that the index lists (mp4, mov, avi), samples that are
    declared (flac), or part of a packet (flv, caf). Mp3, ogg, MPEG-TS and ADTS declare nothing that can be trusted: one
    that was cut may look like a shorter one.
    """
    times: list[int] = []
    end, count = 0, 0
    packets: list[Packet] | None = []
    kept = 0
    for packet in container.demux(stream):
        kept += packet.size
        if kept > KEPT_BYTES:
            packets = None
        if packets is not None:
            packets.append(packet)
        time = shown_time(container, packet)
        if packet.is_corrupt:
            raise _truncated(path, f"the packet at {float(seconds(time or 0, packet)):.2f} s is cut short")
        if time is None:
            continue
        count += 1
        if not packet.is_discard:  # outside the edit list: decoded, never shown
            times.append(time)
            end = max(end, time + (packet.duration or 0))
    if not times:
        raise MediaError(f"{path}: its {stream.type} stream holds nothing to present; {AGAIN}")
    if count < len(stream.index_entries):
        raise _truncated(path, f"{count} of {len(stream.index_entries)} {stream.type} packets are there")
    start, last = min(times), max(times)
    # A packet without a duration gets the mean one. So does mp4 with reordered frames: what it has are the gaps between
    # decode times, which say nothing about how long the last frame is shown.
    if end <= last or (container.format.name.startswith("mov") and times != sorted(times)):
        end = last + max((last - start) // max(len(times) - 1, 1), 1)
    if container.format.name == "flac" and end - start < (stream.duration or 0):
        raise _truncated(path, f"{stream.duration} samples are declared, {end - start} are there")
    return Span(start, end, seconds(1, stream)), packets


def declared_bytes(path: Path) -> int:
    """How long an mp4, a RIFF (wav, avi), an AIFF or a matroska file says it is; 0 where it does not say."""
    with path.open("rb") as file:
        head = file.read(4096)
        if head[4:8] in MP4_BOXES:
            return _end_of_boxes(file)
    if head[:4] == b"RIFF":
        size = int.from_bytes(head[4:8], "little")
        return 0 if size == 0xFFFFFFFF else 8 + size
    if head[:4] == b"FORM":
        return 8 + int.from_bytes(head[4:8], "big")
    segment = head.find(b"\x18\x53\x80\x67") + 4 if head[:4] == b"\x1a\x45\xdf\xa3" else 0
    if segment < 4 or not head[segment : segment + 1]:
        return 0
    width = 9 - head[segment].bit_length()  # of an EBML number, by its leading zeros
    size = int.from_bytes(head[segment : segment + width], "big") - (1 << 7 * width)
    return 0 if size == (1 << 7 * width) - 1 else segment + width + size  # all ones: a live recording


def _end_of_boxes(file: BinaryIO) -> int:
    """Where the last of an mp4's top-level boxes ends; what is no box (padding behind them) is left out."""
    end = 0
    while True:
        file.seek(end)
        head = file.read(16)
        size = int.from_bytes(head[8:16] if head[:4] == b"\0\0\0\1" else head[:4], "big")
        if head[4:8] not in MP4_BOXES or size < 8:  # 0: to the end of the file
            return end
        end += size


def _truncated(path: str | Path, what: str) -> MediaError:
    return MediaError(f"{path}: the file is truncated, {what}; {AGAIN}")
