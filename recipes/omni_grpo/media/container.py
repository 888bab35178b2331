# SPDX-License-Identifier: Apache-2.0
"""Opening video and sound files with PyAV, and telling a whole file from a truncated one."""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Generic, Literal, TypeVar

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.frame import Frame
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from omni_grpo.media.segment import WHOLE, Segment
from omni_grpo.media.settings import MediaError

logger = logging.getLogger(__name__)

INDEXED = ("mov", "avi")  # formats, by the start of their names, whose index lists every packet
PLAYLISTS = {"concat", "hls", "dash", "imf"}  # they make libav read other files than the one that was named
MP4_BOXES = set(b"ftyp styp moov moof mdat sidx mfra free skip wide uuid udta meta pdin emsg".split())
AGAIN = "get the file again, or drop the row"
KEPT_BYTES = 64 * 2**20  # of packets, which are then decoded without reading the file again

OneStream = TypeVar("OneStream", bound=Stream)


@dataclass(frozen=True)
class Span:
    """When a stream, or part of it, starts and ends, in ticks of its time base (seconds = ticks × `time_base`)."""

    start: int | Fraction
    end: int | Fraction
    time_base: Fraction

    @property
    def seconds(self) -> float:
        return float((self.end - self.start) * self.time_base)

    @property
    def first(self) -> Fraction:
        """Its start in seconds."""
        return self.start * self.time_base

    @property
    def last(self) -> Fraction:
        """Its end in seconds."""
        return self.end * self.time_base


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


def pictures(container: InputContainer) -> list[VideoStream]:
    """The video streams that are film: a song's cover is left out."""
    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


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


def seconds(ticks: int, of: Stream | Packet | Frame) -> Fraction:
    """`ticks` of the time base of a stream, a packet or a frame, in seconds."""
    if of.time_base is None:
        raise ValueError(f"{of!r} has no time base")
    return ticks * of.time_base


def shown_time(container: InputContainer, packet: Packet) -> int | None:
    """When a packet is presented, in ticks. AVI has decode times alone, and libav's guess from them is wrong."""
    return packet.dts if container.format.name == "avi" or packet.pts is None else packet.pts


@dataclass
class _Times:
    """When the packets of a stream are presented."""

    shown: list[int] = field(default_factory=list)  # without what is outside the edit list: decoded, never shown
    start: int = sys.maxsize
    end: int = 0
    count: int = 0

    def add(self, packet: Packet, time: int) -> None:
        self.count += 1
        if not packet.is_discard:
            self.shown.append(time)
            self.start = min(self.start, time)
            self.end = max(self.end, time + (packet.duration or 0))

    def span(self, stream: Stream, is_mp4: bool) -> Span:
        start, last, end = self.start, max(self.shown), self.end
        # A packet without a duration gets the mean one. So does mp4 with reordered frames: what it has are the gaps
        # between decode times, which say nothing about how long the last frame is shown.
        if end <= last or (is_mp4 and self.shown != sorted(self.shown)):
            end = last + max((last - start) // max(len(self.shown) - 1, 1), 1)
        return Span(start, end, seconds(1, stream))


@dataclass(frozen=True)
class Scan(Generic[OneStream]):
    """
    A stream that was looked through without decoding it.

    Args:
        container, stream: Opened.
        span ([`Span`]): Of the stream.
        has_picture (`bool`): Whether there is a picture beside the stream, or it is one.
        zero (`Fraction`): The file's first frame (first packet, where there is no picture), in the stream's own seconds.
        start, end (`Fraction`): The segment asked for, in seconds from `zero`.
        packets (iterable): Those that are needed to decode the segment, from the first on.
    """

    container: InputContainer
    stream: OneStream
    span: Span
    has_picture: bool
    zero: Fraction
    start: Fraction
    end: Fraction
    packets: Iterable[Packet]


@contextmanager
def scanned(
    path: str | Path, choose: Callable[[InputContainer, str | Path], OneStream], segment: Segment = WHOLE
) -> Iterator[Scan[OneStream]]:
    """
    A [`Scan`] of the stream that `choose` takes.

    A file is opened once, one whose packets are too many to be kept (`KEPT_BYTES`) a second time.
    """
    with open_media(path) as container:
        found, skipped = scan(container, choose(container, path), path, segment)
        if skipped is None:
            yield found
            return
    with open_media(path) as container:
        stream = choose(container, path)
        yield replace(
            found, container=container, stream=stream, packets=islice(container.demux(stream), skipped, None)
        )


def scan(
    container: InputContainer, stream: OneStream, path: str | Path, segment: Segment = WHOLE
) -> tuple[Scan[OneStream], int | None]:
    """
    Span and packets of a stream, read without decoding. The container is then used up.

    Where the packets are too many to be kept there are none, and the second value says how many to skip.

    Raises [`MediaError`] if something is missing: packets that the index lists (mp4, mov, avi), samples that are
    declared (flac), or part of a packet (flv, caf); or if the segment is outside the file. Mp3, ogg, MPEG-TS and ADTS
    declare nothing that can be trusted: one that was cut may look like a shorter one.
    """
    kind = container.format.name
    picture, sound = (default_track(found) if found else None for found in (pictures(container), sounds(container)))
    times = {track.index: _Times() for track in (stream, picture, sound) if track is not None}
    own = times[stream.index]
    packets: list[Packet] | None = []
    kept = place = skipped = 0
    # Decoding begins at the key frame before the segment; at the first one where frames (AVI) or samples are counted.
    seeks = stream.type == "video" and kind != "avi" and segment.start > 0
    for packet in container.demux(*(container.streams[index] for index in times)):
        time = shown_time(container, packet)
        if packet.stream.index != stream.index:
            if time is not None:
                times[packet.stream.index].add(packet, time)
            continue
        if packet.is_corrupt and kind != "wav":
            raise _truncated(path, f"the packet at {float(seconds(time or 0, packet)):.2f} s is cut short")
        if packet.is_corrupt and packet.size < _sample_bytes(stream):  # a wav from a pipe may end anywhere
            continue
        if time is not None:
            own.add(packet, time)
        if seeks and time is not None and packet.is_keyframe and seconds(time - own.start, packet) <= segment.start:
            packets, kept, skipped = [], 0, place
        place += 1
        kept += packet.size
        if kept > KEPT_BYTES:
            packets = None
        if packets is not None:
            packets.append(packet)
    if not own.shown:
        raise MediaError(f"{path}: its {stream.type} stream holds nothing to present; {AGAIN}")
    if kind.startswith(INDEXED) and own.count < len(stream.index_entries):
        raise _truncated(path, f"{own.count} of {len(stream.index_entries)} {stream.type} packets are there")
    spans = {index: t.span(container.streams[index], kind.startswith("mov")) for index, t in times.items() if t.shown}
    span = spans[stream.index]
    if kind == "flac" and span.end - span.start < (stream.duration or 0):
        raise _truncated(path, f"{stream.duration} samples are declared, {span.end - span.start} are there")
    has_picture = picture is not None and picture.index in spans
    zero = spans[picture.index if has_picture else stream.index].first
    start, end = segment.bounds(max(span.last for span in spans.values()) - zero, path)
    found = Scan(container, stream, span, has_picture, zero, start, end, packets or ())
    return found, skipped if packets is None else None


def declared_bytes(path: Path) -> int:
    """How long an mp4, a RIFF (wav, avi), an AIFF or a matroska file says it is; 0 where it does not say.

    A program that writes into a pipe learns the size too late, and leaves a mark in its place (`_stated`).
    """
    with path.open("rb") as file:
        head = file.read(4096)
        if head[4:8] in MP4_BOXES:
            return _end_of_boxes(file)
        if head[:4] == b"RIFF":
            return max(8 + _stated(head[4:8], "little"), _end_of_data(file) if head[8:12] == b"WAVE" else 0)
    if head[:4] in (b"RF64", b"BW64"):
        return 8 + int.from_bytes(head[20:28], "little")
    if head[:4] == b"FORM":
        return 8 + _stated(head[4:8], "big")
    segment = head.find(b"\x18\x53\x80\x67") + 4 if head[:4] == b"\x1a\x45\xdf\xa3" else 0
    if segment < 4 or not head[segment : segment + 1]:
        return 0
    width = 9 - head[segment].bit_length()  # of an EBML number, by its leading zeros
    size = int.from_bytes(head[segment : segment + width], "big") - (1 << 7 * width)
    return 0 if size == (1 << 7 * width) - 1 else segment + width + size  # all ones: a live recording


def _sample_bytes(stream: Stream) -> int:
    """Bytes of one sample of all channels of a wav."""
    return stream.format.bytes * stream.channels if isinstance(stream, AudioStream) else 0


def _stated(size: bytes, order: Literal["little", "big"]) -> int:
    """A size of four bytes; 0 for the marks of an unknown one: 0, FFFFFFFF, 7FFFFFFF, or less by some headers."""
    value = int.from_bytes(size, order)
    return 0 if 0x7FFFF000 <= value <= 0x80000100 or value >= 0xFFFFF000 else value


def _end_of_data(file: BinaryIO) -> int:
    """Where a wav's chunk of samples ends."""
    at = 12
    while True:
        file.seek(at)
        head = file.read(8)
        size = _stated(head[4:], "little")
        if len(head) < 8 or head[:4] == b"data":
            return at + len(head) + size
        at += 8 + size + size % 2


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
