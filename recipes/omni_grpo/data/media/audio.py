# SPDX-License-Identifier: Apache-2.0
"""Reading sound: sound files, and the sound tracks of videos."""

import sys
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError

from omni_grpo.data.media.container import AGAIN, default_track, open_media, sounds, track_notes
from omni_grpo.data.media.missing import EDGE, JITTER, Missing
from omni_grpo.data.media.scan import Scan, scanned, seconds
from omni_grpo.data.media.segment import WHOLE, Segment
from omni_grpo.data.media.settings import MediaError, MediaSettings

PIECE = 2**15  # samples that are resampled at a time: by the frame it takes twice as long


def has_audio(path: str | Path) -> bool:
    """Whether the file has a sound track that can be decoded (it may be silent).

    Raises:
        MediaError: the file is missing, empty, a directory, or not media.
    """
    with open_media(path) as container:
        return bool(sounds(container))


def decode_audio(path: str | Path, settings: MediaSettings, segment: Segment = WHOLE) -> tuple[np.ndarray, list[str]]:
    """The sound of a file, or of a segment; shape `(samples,)`, float32 in [-1, 1], mono, at `settings.sampling_rate`;
    and what there is to say of the choice of a track and of parts left out.

    Channels are averaged. The sound of a video starts with its first frame: a track that begins later is led by
    silence, and what comes before the picture is left out (noted from 0.1 s on). A digitally silent track is sound
    like any other. A segment is, sample for sample, what the whole file has there. Of several sound tracks the default
    one is read.

    Raises:
        MediaError: the file is missing, empty, a directory, not media, without a sound track or without a sample,
            truncated or damaged, or longer than `max_audio_seconds` where `long_audio` is `"refuse"`; or the segment is
            outside the file.
    """
    rate, longest = settings.sampling_rate, settings.max_audio_seconds
    limit = sys.maxsize if longest is None else round(longest * rate)
    with scanned(path, _audio_stream, segment) as found:
        lasts = float(min(found.end, found.span.end - found.zero) - found.start)
        missing = Missing(path, "sound", float(found.end - found.start), settings.max_missing_share)
        notes = track_notes(sounds(found.container))
        if (early := float(found.zero - found.span.start)) > EDGE and found.start == 0:
            notes.append(f"{early:.2f} s of sound before the first frame are left out")
        pieces, total = [], 0
        for piece in _placed(found, rate, limit, missing):
            pieces.append(piece[: limit + 1 - total])
            total += len(pieces[-1])
            if total > limit:
                break
    notes += missing.notes()
    if not any(map(len, pieces)):
        raise MediaError(f"{path}: its sound track holds no sample; {AGAIN}")
    if total > limit:
        if settings.long_audio == "refuse":
            raise MediaError(
                f"{path}: its sound lasts {lasts:.1f} s, more than max_audio_seconds={longest:g}; "
                "raise max_audio_seconds, cut the file, or set long_audio: truncate"
            )
        notes.append(f"sound of {lasts:.1f} s truncated to max_audio_seconds={longest:g}")
    sound = np.concatenate(pieces)[:limit]
    if not np.isfinite(sound).all():
        raise MediaError(f"{path}: its sound holds samples that are not finite numbers; {AGAIN}")
    return sound.clip(-1.0, 1.0), notes


def _audio_stream(container: InputContainer, path: str | Path) -> AudioStream:
    if not (streams := sounds(container)) and container.streams.audio:
        raise MediaError(f"{path}: its sound is coded in a way that cannot be decoded; convert it, or drop the row")
    if not streams:
        raise MediaError(f"{path}: has no sound track; give a file that has one, or drop the row")
    return default_track(streams)


def _placed(found: Scan[AudioStream], rate: int, limit: int, missing: Missing) -> Iterator[np.ndarray]:
    """Pieces `(samples,)` of the sound of a segment, each at its time; silence is where there is none (not past `limit`)."""
    first = at = round(found.start * rate)
    for begins, piece in _heard(found, rate, first):
        silence = min(begins, round(found.end * rate)) - at
        if silence > 0 and missing.add(silence / rate, found.edge if at == first else 0.0):
            yield np.zeros(silence, np.float32)
        yield piece
        at = begins + len(piece)
    silence = round(found.end * rate) - at
    if missing.add(silence / rate, found.edge) and found.has_picture and silence > 0:
        yield np.zeros(max(min(silence, first + limit - at), 0), np.float32)


def _heard(found: Scan[AudioStream], rate: int, first: int) -> Iterator[tuple[int, np.ndarray]]:
    """What can be decoded from sample `first` on: where each piece stands, in samples from the clip's first frame."""
    # The last packet of AAC is padded, and mp4 says by how much.
    end = round(min(found.end, found.span.end - found.zero) * rate)
    at = first
    for begins, stretch in groupby(_stretches(found), itemgetter(0)):
        position = round(begins * rate)
        at = max(at, position)
        for piece in resampled((frame for _, frame in stretch), rate):
            if position >= end:
                return
            kept = piece[max(at - position, 0) : end - position]
            position += len(piece)
            if len(kept):
                yield at, kept
            at += len(kept)


def _decoded(found: Scan[AudioStream]) -> Iterator[AudioFrame]:
    """Frames; what cannot be decoded is missing, and the time stamp of the next frame says for how long."""
    found.stream.codec_context.thread_count = 1
    if found.stream.codec_context.name == "flac":  # whose decoder else makes noise of damage
        found.stream.codec_context.options = {"err_detect": "crccheck+explode"}
    error: FFmpegError | None = None
    is_any = False
    for packet in found.packets:
        try:
            for frame in packet.decode():
                is_any = True
                yield frame
        except FFmpegError as failure:
            error = failure
    if error is not None and not is_any:
        raise error


def _stretches(found: Scan[AudioStream]) -> Iterator[tuple[Fraction, AudioFrame]]:
    """Frames, each with when the unbroken stretch began that it is in, in seconds from the clip's first frame."""
    zero, begins, ends = found.zero, None, Fraction(0)
    for frame in _decoded(found):
        at = ends if frame.pts is None else seconds(frame.pts, frame) - zero
        if begins is None and not found.has_picture and abs(at) <= EDGE:  # what a codec needs to begin
            zero, at = zero + at, Fraction(0)
        if begins is not None and at < ends - JITTER:  # time runs backwards where files were joined
            zero, at = zero - (ends - at), ends
        if begins is None or at > ends + JITTER:
            begins = ends = at
        ends += Fraction(frame.samples, frame.sample_rate)
        yield begins, frame


def resampled(frames: Iterable[AudioFrame], rate: int) -> Iterator[np.ndarray]:
    """Mono pieces `(samples,)` at `rate`; a stream may change its format midway (joined mp3 files do)."""
    for _, alike in groupby(frames, lambda frame: (frame.format.name, frame.layout.name, frame.sample_rate)):
        # Packed ("flt"): reading eight or more planes ends the process in PyAV 18.1.
        resampler = AudioResampler(format="flt", rate=rate, frame_size=PIECE)
        for frame in chain(alike, [None]):  # which flushes the resampler's tail
            for piece in resampler.resample(frame):
                # Averaged here: libswresample weighs two float channels by 0.71 each, which clips.
                yield piece.to_ndarray().reshape(-1, piece.layout.nb_channels).mean(axis=1)
