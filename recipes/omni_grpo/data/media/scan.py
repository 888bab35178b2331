# SPDX-License-Identifier: Apache-2.0
"""Looking through a stream's packets without decoding them: how long it is, what is missing, what a segment needs."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice, pairwise
from math import inf
from pathlib import Path
from statistics import median
from typing import Generic

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.frame import Frame
from av.packet import Packet
from av.stream import Stream

from omni_grpo.data.media.container import AGAIN, OneStream, default_track, open_media, pictures, sounds, truncated
from omni_grpo.data.media.missing import EDGE
from omni_grpo.data.media.segment import WHOLE, Segment
from omni_grpo.data.media.settings import MediaError

INDEXED = ("mov", "avi")  # formats, by the start of their names, whose index lists every packet
MAX_SECONDS = 48 * 3600
KEPT_BYTES = 64 * 2**20  # of packets, which are then decoded without reading the file again


def seconds(ticks: int, of: Stream | Packet | Frame) -> Fraction:
    """`ticks` of the time base of a stream, a packet or a frame, in seconds."""
    if of.time_base is None:
        raise ValueError(f"{of!r} has no time base")
    return ticks * of.time_base


def shown_time(container: InputContainer, packet: Packet) -> int | None:
    """When a packet is presented, in ticks. AVI has decode times alone, and libav's guess from them is wrong."""
    return packet.dts if container.format.name == "avi" or packet.pts is None else packet.pts


@dataclass(frozen=True)
class Span:
    """When a stream, or part of it, starts and ends, in seconds of its own."""

    start: Fraction
    end: Fraction

    @property
    def length(self) -> Fraction:
        return self.end - self.start


@dataclass
class _Times:
    """When the packets of a stream are presented, in its ticks."""

    shown: list[int] = field(default_factory=list)  # without what is outside the edit list: decoded, never shown
    start: int = sys.maxsize
    end: int = 0
    count: int = 0
    lasts: int = 0  # a packet, as the file says

    def add(self, packet: Packet, time: int) -> None:
        self.count += 1
        self.lasts = packet.duration or self.lasts
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
        return Span(seconds(start, stream), seconds(end, stream))

    def holes(self, stream: Stream) -> list[Span]:
        """Where frames of a constant rate, which is the one that the file states, are missing."""
        ordered = sorted(self.shown)
        gaps = [later - earlier for earlier, later in pairwise(ordered)]
        if not gaps or abs(median(gaps) - self.lasts) > 1:
            return []
        wide = [(a + self.lasts, b) for a, b in pairwise(ordered) if b - a > 1.5 * self.lasts]
        return [Span(seconds(a, stream), seconds(b, stream)) for a, b in wide]


@dataclass(frozen=True)
class Scan(Generic[OneStream]):
    """
    A stream that was looked through without decoding it.

    Args:
        container, stream: Opened.
        span ([`Span`]): Of the stream.
        has_picture (`bool`): Whether there is a picture beside the stream, or it is one.
        zero (`Fraction`): When the file's first frame (first packet, where there is no picture) is shown, in the same
            seconds.
        start, end (`Fraction`): The segment asked for, in seconds from `zero`.
        edge (`float`): Seconds by which tracks may begin and end apart before something counts as missing: any, where
            the file lists its packets.
        holes (list of [`Span`]): Where frames are missing in the picture.
        packets (iterable): Those that are needed to decode the segment, from the first on.
    """

    container: InputContainer
    stream: OneStream
    span: Span
    has_picture: bool
    zero: Fraction
    start: Fraction
    end: Fraction
    edge: float
    holes: list[Span]
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
        packets = container.demux(stream)
        yield replace(found, container=container, stream=stream, packets=islice(packets, skipped, None))


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
    for packet in _usable(container.demux(*(container.streams[index] for index in times)), container, stream, path):
        time = shown_time(container, packet)
        if time is not None:
            times[packet.stream.index].add(packet, time)
        if packet.stream.index != stream.index:
            continue
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
    edge = inf if kind.startswith(INDEXED) else EDGE
    if edge == inf and own.count < len(stream.index_entries):
        raise truncated(path, f"{own.count} of {len(stream.index_entries)} {stream.type} packets are there")
    spans = {index: t.span(container.streams[index], kind.startswith("mov")) for index, t in times.items() if t.shown}
    span = spans[stream.index]
    if kind == "flac" and span.length < seconds(stream.duration or 0, stream):
        there = span.length / seconds(1, stream)
        raise truncated(path, f"{stream.duration} samples are declared, {there} are there")
    has_picture = picture is not None and picture.index in spans
    zero = spans[picture.index if picture is not None and has_picture else stream.index].start
    length = max(span.end for span in spans.values()) - zero
    if length > MAX_SECONDS:
        raise MediaError(f"{path}: lasts {float(length):.0f} s by its time stamps, which cannot be right; {AGAIN}")
    start, end = segment.bounds(length, path)
    holes = own.holes(stream) if stream.type == "video" and _states_rate(container, path) else []
    found = Scan(container, stream, span, has_picture, zero, start, end, edge, holes, packets or ())
    return found, skipped if packets is None else None


def _states_rate(container: InputContainer, path: str | Path) -> bool:
    """Whether a file can say that its frames come at a constant rate; in others a gap may be meant."""
    if container.format.name != "matroska,webm":
        return container.format.name == "mpegts"
    with Path(path).open("rb") as file:
        return b"\x23\xe3\x83" in file.read(2**16)  # DefaultDuration


def _usable(
    packets: Iterable[Packet], container: InputContainer, stream: Stream, path: str | Path
) -> Iterator[Packet]:
    """Packets without those of `stream` that are incomplete, or depend on one that is; other streams' as they come."""
    kind, is_lost = container.format.name, False
    sample = stream.format.bytes * stream.channels if isinstance(stream, AudioStream) else 0
    for packet in packets:
        if packet.stream.index == stream.index:
            if packet.is_corrupt and kind not in ("wav", "mpegts"):
                time = float(seconds(shown_time(container, packet) or 0, packet))
                raise truncated(path, f"the packet at {time:.2f} s is cut short")
            if packet.is_corrupt and kind == "wav" and packet.size < sample:  # from a pipe, it may end anywhere
                continue
            if packet.is_corrupt or packet.is_keyframe:  # MPEG-TS: lost on its way; pictures up to the next key frame
                is_lost = packet.is_corrupt and kind == "mpegts"
            if is_lost and packet.size:
                continue
        yield packet
