# SPDX-License-Identifier: Apache-2.0
"""Reading videos: which frames, upright, with the times they stand for."""

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from omni_grpo.data.media.container import AGAIN, default_track, pictures, track_notes
from omni_grpo.data.media.image import fitted_size
from omni_grpo.data.media.missing import Missing
from omni_grpo.data.media.scan import Scan, Span, scanned, seconds, shown_time
from omni_grpo.data.media.segment import WHOLE, Segment
from omni_grpo.data.media.settings import MediaError, MediaSettings

MAX_PIXELS = 2**26  # of a frame: twice those of 8K; a few bytes can ask for any size
Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Video:
    """Frames sampled from a clip.

    Args:
        frames (`np.ndarray`): `(T, H, W, 3)`, uint8 RGB, upright.
        fps (`float`): Sampled frames a second, `T` over the clip's length: what the processor must be told.
        timestamps (`np.ndarray`): `(T,)`, seconds from the file's first frame at which the frames were sampled.
    """

    frames: np.ndarray
    fps: float
    timestamps: np.ndarray


def decode_video(path: str | Path, settings: MediaSettings, segment: Segment = WHOLE) -> tuple[Video, list[str]]:
    """Sample the frames of a clip, a file or a segment of it, by presentation time, whatever its frame rate; with what
    there is to say of the choice of a track and of what is missing.

    The clip is cut into T equal parts and the frame on show in the middle of each is taken: the last one whose
    presentation time is not after that instant, among those that begin in the clip (where none does, the one on show).
    Rotation and mirroring that the file asks for are applied, pixels are taken as square. A size that changes midway is
    brought to the first one. The file is decoded once, on one thread, from the key frame before the clip up to the last
    frame needed, and only chosen frames are kept: `T × H × W × 3` bytes. Of several video tracks the default one is read.

    Raises:
        MediaError: the file is missing, empty, a directory, not media, a still image, without a video stream,
            truncated or damaged, or thinner than 1:200 where the size is bounded; or the segment is outside the file.
    """
    with scanned(path, _video_stream, segment) as found:
        missing = Missing(path, "picture", float(found.end - found.start), settings.max_missing_share)
        for hole in found.holes:
            first, last = (min(max(at - found.zero, found.start), found.end) for at in (hole.start, hole.end))
            missing.add(float(last - first))
        missing.add(float(found.end - max(found.span.end - found.zero, found.start)), found.edge)
        notes = [*track_notes(pictures(found.container)), *missing.notes()]
        clip = Span(found.zero + found.start, min(found.zero + found.end, found.span.end))
        if clip.start >= clip.end:  # although that much may be missing
            raise MediaError(f"{path}: its picture ends before {segment.start:g} s; lower `start`, or drop the row")
        instants = sample_instants(clip, frame_count(float(clip.length), settings))
        shown = shown_at(_begun_in(clip, _timed_frames(found)), instants)
        sampled = _as_rgb(shown, found.stream, path, settings)
        if (first := next(sampled, None)) is None:
            raise MediaError(f"{path}: not one frame can be decoded; {AGAIN}")
        frames = np.fromiter(chain([first], sampled), np.dtype((np.uint8, first.shape)), len(instants))
    timestamps = np.array([float(instant - found.zero) for instant in instants])
    return Video(frames, len(frames) / float(clip.length), timestamps), notes


def frame_count(seconds: float, settings: MediaSettings) -> int:
    """How many frames to sample from a clip.

    >>> frame_count(3.0, MediaSettings()), frame_count(2.99, MediaSettings(video_sampling="fps"))
    (8, 6)
    """
    if settings.video_sampling == "uniform":
        return settings.num_frames
    wanted = int(seconds * settings.fps / settings.frame_multiple + 0.5) * settings.frame_multiple
    return min(max(wanted, settings.min_frames), settings.max_frames)


def sample_instants(span: Span, count: int) -> list[Fraction]:
    """The midpoints of `count` equal parts of `span`; exact, so that no rounding moves a frame.

    >>> [float(instant) for instant in sample_instants(Span(Fraction(10), Fraction(18)), 4)]
    [11.0, 13.0, 15.0, 17.0]
    """
    return [span.start + span.length * Fraction(2 * part + 1, 2 * count) for part in range(count)]


def shown_at(timed: Iterable[tuple[Fraction, Item]], instants: Sequence[Fraction]) -> Iterator[Item]:
    """For each of the ascending `instants` the last item whose time is not after it (before all of them: the first).

    Takes from `timed`, which ascends too, only as far as it must, and holds one item.

    >>> list(shown_at([(0, "a"), (10, "b"), (20, "c")], [Fraction(9), Fraction(10), Fraction(11), Fraction(99)]))
    ['a', 'b', 'b', 'c']
    """
    pending = deque(instants)
    shown: list[Item] = []  # none or one
    for time, item in timed:
        while shown and pending and pending[0] < time:
            pending.popleft()
            yield shown[0]
        if not pending:
            return
        shown = [item]
    yield from shown * len(pending)


def _begun_in(clip: Span, timed: Iterable[tuple[Fraction, Item]]) -> Iterator[tuple[Fraction, Item]]:
    """Of ascending items those whose time is in `clip`; where there is none, the last one before it.

    >>> list(_begun_in(Span(Fraction(5), Fraction(20)), [(0, "a"), (10, "b"), (20, "c")]))
    [(10, 'b')]
    >>> list(_begun_in(Span(Fraction(5), Fraction(9)), [(0, "a"), (10, "b")]))
    [(0, 'a')]
    """
    before: list[tuple[Fraction, Item]] = []
    for time, item in timed:
        if time >= clip.end:
            break
        if time < clip.start:
            before = [(time, item)]
        else:
            before = []
            yield time, item
    yield from before


def _as_rgb(
    shown: Iterable[VideoFrame], stream: VideoStream, path: str | Path, settings: MediaSettings
) -> Iterator[np.ndarray]:
    """Frames `(H, W, 3)`, upright, at the size that `settings` ask for; one that is shown again is converted once."""
    reformatter, last, size, upright = VideoReformatter(), None, None, np.empty(0)
    for frame in shown:
        if frame is not last:
            last, size = frame, size or fitted_size(frame.height, frame.width, settings, path)
            rgb = reformatter.reformat(frame, size[1], size[0], "rgb24", interpolation="BICUBIC", threads=1)
            upright = _upright(rgb.to_ndarray(), frame, stream)
        yield upright


def _video_stream(container: InputContainer, path: str | Path) -> VideoStream:
    if container.format.name.endswith("_pipe"):
        raise MediaError(f'{path}: is a still image; give it as {{"type": "image"}}')
    streams = pictures(container)
    if not streams and any(stream.codec_context is None for stream in container.streams.video):
        raise MediaError(f"{path}: its picture is coded in a way that cannot be decoded; convert it, or drop the row")
    if not streams:
        raise MediaError(f'{path}: has no video stream; give it as {{"type": "audio"}}, or drop the row')
    stream = default_track(streams)
    if stream.width * stream.height > MAX_PIXELS:
        raise MediaError(
            f"{path}: its frames are {stream.width}×{stream.height} pixels; scale it down, or drop the row"
        )
    return stream


def _timed_frames(found: Scan[VideoStream]) -> Iterator[tuple[Fraction, VideoFrame]]:
    found.stream.codec_context.thread_count = 1  # workers are the parallelism; damage is raised where it is met
    found.stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    is_avi = found.container.format.name == "avi"
    times: list[int] = []  # AVI: the k-th frame to come out is on show at the k-th of the decode times
    for packet in found.packets:
        if is_avi and (time := shown_time(found.container, packet)) is not None:
            heapq.heappush(times, time)
        for frame in packet.decode():
            time = heapq.heappop(times) if is_avi else frame.pts
            if time is not None:
                yield seconds(time, found.stream), frame


def _upright(rgb: np.ndarray, frame: VideoFrame, stream: VideoStream) -> np.ndarray:
    """`rgb` `(H, W, 3)` turned and mirrored as the frame's display matrix (or a `rotate` tag) says."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        clockwise = float(stream.metadata.get("rotate", stream.metadata.get("ROTATE", 0)))
        return np.rot90(rgb, -round(clockwise / 90))
    # x' = a·x + c·y, y' = b·x + d·y
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5]
    swaps_axes = abs(b) > abs(a)
    right, down = (c, b) if swaps_axes else (a, d)
    turned = rgb.transpose(1, 0, 2) if swaps_axes else rgb
    return turned[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]
