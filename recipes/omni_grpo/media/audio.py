# SPDX-License-Identifier: Apache-2.0
"""Reading sound: sound files, and the sound tracks of videos."""

import logging
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from omni_grpo.media.container import AGAIN, Span, moving_pictures, open_media, scanned, seconds
from omni_grpo.media.settings import MediaError, MediaSettings

logger = logging.getLogger(__name__)


def has_audio(path: str | Path) -> bool:
    """Whether the file has a sound track that can be decoded (it may be silent).

    Raises:
        MediaError: the file is missing, empty, a directory, or not media.
    """
    with open_media(path) as container:
        return bool(_audio_streams(container))


def read_audio(path: str | Path, settings: MediaSettings) -> np.ndarray:
    """The sound of a file; shape `(samples,)`, float32 in [-1, 1], mono, at `settings.sampling_rate`.

    Channels are averaged. The sound of a video starts with its first frame: a track that begins later is led by
    silence, and what comes before the picture is left out (logged from 0.1 s on). A digitally silent track is sound
    like any other.

    Raises:
        MediaError: the file is missing, empty, a directory, not media, without a sound track or without a sample,
            truncated or damaged, or longer than `max_audio_seconds` where `long_audio` is `"refuse"`.
    """
    sound, notes = decode_audio(path, settings)
    log_notes(path, notes)
    return sound


def log_notes(path: str | Path, notes: Iterable[str]) -> None:
    """Warn of what [`decode_audio`] left out."""
    for note in notes:
        logger.warning("%s: %s", path, note)


def decode_audio(path: str | Path, settings: MediaSettings) -> tuple[np.ndarray, list[str]]:
    """As [`read_audio`], with what there is to say of parts left out, unsaid."""
    rate, longest = settings.sampling_rate, settings.max_audio_seconds
    limit = None if longest is None else round(longest * rate)
    pieces: list[np.ndarray] = []
    notes: list[str] = []
    total = 0
    with scanned(path, _audio_stream) as (container, stream, span, packets):
        for piece in _sound(container, stream, span, packets, rate, notes):
            pieces.append(piece)
            total += len(piece)
            if limit is not None and total > limit:
                break
    if total == 0:
        raise MediaError(f"{path}: its sound track holds no sample; {AGAIN}")
    if limit is not None and total > limit:
        if settings.long_audio == "refuse":
            raise MediaError(
                f"{path}: its sound lasts {span.seconds:.1f} s, more than max_audio_seconds={longest:g}; "
                "raise max_audio_seconds, cut the file, or set long_audio: truncate"
            )
        notes.append(f"sound of {span.seconds:.1f} s truncated to max_audio_seconds={longest:g}")
    sound = np.concatenate(pieces)[:limit]
    if not np.isfinite(sound).all():
        raise MediaError(f"{path}: its sound holds samples that are not finite numbers; {AGAIN}")
    return sound.clip(-1.0, 1.0), notes


def _audio_streams(container: InputContainer) -> list[AudioStream]:
    return [stream for stream in container.streams.audio if stream.codec_context is not None]


def _audio_stream(container: InputContainer, path: str | Path) -> AudioStream:
    if not (streams := _audio_streams(container)):
        raise MediaError(f'{path}: has no sound track; set use_audio to false or "if_present" on this row')
    return streams[0]


def _sound(
    container: InputContainer, stream: AudioStream, span: Span, packets: Iterable[Packet], rate: int, notes: list[str]
) -> Iterator[np.ndarray]:
    """Pieces `(samples,)` of the sound, from the clip's first frame (or the file's first sample) to the sound's end."""
    stream.codec_context.thread_count = 1
    frames = (frame for packet in packets for frame in packet.decode())
    first = next(frames, None)
    if first is None:
        return
    position = _lead_samples(container, first, rate)  # of the next piece, from the clip's start
    if position > 0:
        yield np.zeros(position, np.float32)
    elif -position > rate // 10:
        notes.append(f"{-position / rate:.2f} s of sound before the first frame are left out")
    end = None
    if (
        container.format.name.startswith("mov") and first.pts is not None
    ):  # the last AAC packet is padded, and mp4 says by how much
        end = position + round((seconds(span.end, stream) - seconds(first.pts, first)) * rate)
    for piece in resampled(chain([first], frames), rate):
        yield piece[max(-position, 0) : None if end is None else max(end - position, 0)]
        position += len(piece)


def _lead_samples(container: InputContainer, first: AudioFrame, rate: int) -> int:
    """Samples by which the sound starts after the picture; negative where it starts before, 0 without a picture."""
    pictures = moving_pictures(container)
    if not pictures or pictures[0].start_time is None or first.pts is None:
        return 0
    return round((seconds(first.pts, first) - seconds(pictures[0].start_time, pictures[0])) * rate)


def resampled(frames: Iterable[AudioFrame], rate: int) -> Iterator[np.ndarray]:
    """Mono pieces `(samples,)` at `rate`; a stream may change its format midway (joined mp3 files do)."""
    resampler, source = None, None
    for frame in frames:
        if (form := (frame.format.name, frame.layout.name, frame.sample_rate)) != source:
            yield from _mono(resampler, None)
            # Packed ("flt"): reading eight or more planes ends the process in PyAV 18.1.
            resampler, source = None if _is_wanted(frame, rate) else AudioResampler(format="flt", rate=rate), form
        if resampler is None:
            yield _samples(frame)
        else:
            yield from _mono(resampler, frame)
    yield from _mono(resampler, None)


def _is_wanted(frame: AudioFrame, rate: int) -> bool:
    """Mono at `rate`, of a kind that [`_samples`] reads: the resampler would hand out the same samples, slowly."""
    wanted_kind = frame.format.name.removesuffix("p") in ("flt", "s16")
    return wanted_kind and frame.layout.nb_channels == 1 and frame.sample_rate == rate


def _samples(frame: AudioFrame) -> np.ndarray:
    """A mono frame's samples, float32 `(samples,)`; a copy, since libav uses the frame's memory again."""
    plane: Any = frame.planes[0]  # a buffer, which its type does not say
    if frame.format.name.startswith("s16"):
        return np.frombuffer(plane, np.int16, frame.samples) / np.float32(32768)
    return np.frombuffer(plane, np.float32, frame.samples) + np.float32(0)  # -0.0 becomes 0.0, as in a mean


def _mono(resampler: AudioResampler | None, frame: AudioFrame | None) -> Iterator[np.ndarray]:
    """What comes out for `frame`, or at the end for `None`, which flushes the resampler's tail."""
    for piece in resampler.resample(frame) if resampler else ():
        # Averaged here: libswresample weighs two float channels by 0.71 each, which clips.
        yield piece.to_ndarray().reshape(-1, piece.layout.nb_channels).mean(axis=1)
