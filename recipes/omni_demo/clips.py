# SPDX-License-Identifier: Apache-2.0
"""One clip to disk: H.264 with AAC in mp4, or png and wav. The bytes depend on the specification alone."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image
from scipy.signal import resample_poly

from omni_demo.config import DemoDataConfig
from omni_demo.faces import MARGIN_PX, NEUTRAL_EXPRESSION, face_image
from omni_demo.prosody import PROSODY
from omni_demo.questions import ClipSpec
from omni_demo.voices import NATIVE_RATE_HZ, Speaker

_NEUTRAL_S = 0.3  # the face before the expression
_LEAD_S = (0.05, 0.25)  # quiet before the speech
_TAIL_S = 0.05
_TREMOR_HZ = 9.0
_NOISE = 0.001  # a quiet room; digital silence would be a signal of its own


def speech(spec: ClipSpec, config: DemoDataConfig, speaker: Speaker) -> np.ndarray:
    """
    The sound of a clip: mono float32 in [-1, 1], `config.duration_s` long, shape `(num_samples,)`.

    A phrase that would not fit is said faster.
    """
    if spec.voice is None or spec.voice_name is None or spec.phrase is None:
        raise ValueError(f"{spec.stem} has no voice")
    rng = random.Random(f"{spec.seed}/sound")
    manner = PROSODY[spec.voice].jittered(rng)
    rate_hz = config.sample_rate_hz
    num_samples = round(config.duration_s * rate_hz)
    lead = round(rng.uniform(*_LEAD_S) * rate_hz)
    room = num_samples - lead - round(_TAIL_S * rate_hz)
    divisor = math.gcd(rate_hz, NATIVE_RATE_HZ)
    wpm = manner.rate_wpm
    while True:
        said = speaker.speak(spec.phrase, spec.voice_name, wpm, manner.pitch, manner.pitch_range)
        wave = resample_poly(said.astype(np.float64), rate_hz // divisor, NATIVE_RATE_HZ // divisor)
        if len(wave) <= room:
            break
        if wpm > 400:
            raise ValueError(f"{spec.phrase!r} does not fit into {config.duration_s} s")
        wpm *= 1.12
    seconds = np.arange(len(wave)) / rate_hz
    wave *= 1 - manner.tremor * (0.5 + 0.5 * np.sin(2 * np.pi * _TREMOR_HZ * seconds))
    wave *= 10 ** (manner.level_db / 20) / max(1e-9, float(np.sqrt(np.mean(wave**2))))
    sound = np.random.default_rng(rng.getrandbits(64)).normal(0, _NOISE, num_samples)
    sound[lead : lead + len(wave)] += np.tanh(wave)  # a loud voice is squeezed, not clipped
    return sound.astype(np.float32)


def write_clip(spec: ClipSpec, config: DemoDataConfig, speaker: Speaker, root: Path) -> None:
    """Write the files of one clip below `root`; each appears under its name only when it is whole."""
    stem = root / spec.stem
    stem.parent.mkdir(parents=True, exist_ok=True)
    sound = speech(spec, config, speaker) if spec.voice else None
    if _is_video(spec):
        if sound is None:
            sound = np.zeros(round(config.duration_s * config.sample_rate_hz), np.float32)
        with _whole(stem.with_suffix(".mp4")) as path:
            _write_mp4(path, _frames(spec, config) if spec.face else _grey_frames(config), sound, config)
    if spec.mix.startswith("image"):
        with _whole(stem.with_suffix(".png")) as path:
            _face(spec, config, neutral=False).crop(_window(config.frame_size_px)).save(path, format="PNG")
    if sound is not None and not _is_video(spec):
        with _whole(stem.with_suffix(".wav")) as path:
            soundfile.write(path, sound, config.sample_rate_hz, subtype="PCM_16", format="WAV")


def clip_paths(spec: ClipSpec) -> tuple[str, ...]:
    """The files of a clip, below the data folder."""
    endings = {"video": (".mp4",), "image": (".png",), "audio": (".wav",)}
    sides = ["video"] if _is_video(spec) else spec.mix.split("+")
    return tuple(spec.stem + ending for side in sides for ending in endings[side])


def _is_video(spec: ClipSpec) -> bool:
    return spec.mix in ("video", "video+audio", "video+silence", "grey+audio")


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A name to write to that becomes `path` when the block ends well, and goes away when it does not."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _face(spec: ClipSpec, config: DemoDataConfig, neutral: bool) -> Image.Image:
    if spec.identity is None or spec.expression is None:
        raise ValueError(f"{spec.stem} has no face")
    expression = NEUTRAL_EXPRESSION if neutral else spec.expression
    return face_image(spec.identity, expression, spec.background, config.frame_size_px)


def _window(size_px: int, dx: int = 0, dy: int = 0) -> tuple[int, int, int, int]:
    """The box that a frame shows of a picture with margins."""
    left, top = MARGIN_PX + dx, MARGIN_PX + dy
    return left, top, left + size_px, top + size_px


def _frames(spec: ClipSpec, config: DemoDataConfig) -> Iterator[av.VideoFrame]:
    """A neutral face, then the expression, on a head that sways a little."""
    rng = random.Random(f"{spec.seed}/motion")
    phases, speeds = [rng.uniform(0, 2 * math.pi) for _ in "xy"], [rng.uniform(0.5, 1.1) for _ in "xy"]
    pictures = [_planes(_face(spec, config, neutral)) for neutral in (True, False)]
    switch = round(_NEUTRAL_S * config.fps)
    for index in range(config.num_frames):
        # Even steps: a chroma sample covers two pixels.
        dx, dy = (2 * round(2 * math.sin(phase + speed * index)) for phase, speed in zip(phases, speeds, strict=True))
        left, top, right, bottom = _window(config.frame_size_px, dx, dy)
        luma, *chroma = pictures[index >= switch]
        planes = [luma[top:bottom, left:right]]
        planes += [plane[top // 2 : bottom // 2, left // 2 : right // 2] for plane in chroma]
        packed = np.concatenate(
            [plane.reshape(-1, config.frame_size_px) for plane in map(np.ascontiguousarray, planes)]
        )
        frame = av.VideoFrame.from_ndarray(packed, format="yuv420p")
        frame.pts, frame.time_base = index, Fraction(1, config.fps)
        yield frame


def _grey_frames(config: DemoDataConfig) -> Iterator[av.VideoFrame]:
    """Nothing to see."""
    size = config.frame_size_px
    for index in range(config.num_frames):
        frame = av.VideoFrame.from_ndarray(np.full((size * 3 // 2, size), 128, np.uint8), format="yuv420p")
        frame.pts, frame.time_base = index, Fraction(1, config.fps)
        yield frame


def _planes(picture: Image.Image) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Y of shape (S, S), U and V of shape (S / 2, S / 2)."""
    size = picture.width
    packed = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24").reformat(format="yuv420p").to_ndarray()
    chroma = packed[size:].reshape(2, size // 2, size // 2)
    return packed[:size], chroma[0], chroma[1]


def _write_mp4(path: Path, frames: Iterator[av.VideoFrame], sound: np.ndarray, config: DemoDataConfig) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=config.fps)
        video.width = video.height = config.frame_size_px
        video.pix_fmt = "yuv420p"
        video.thread_count = 1  # more threads write other bytes
        video.options = {"crf": str(config.video_crf), "preset": "ultrafast", "x264-params": "threads=1"}
        audio = container.add_stream("aac", rate=config.sample_rate_hz, layout="mono")
        audio.bit_rate = config.audio_bit_rate
        audio.options = {"aac_coder": "fast"}
        for frame in frames:
            container.mux(video.encode(frame))
        container.mux(video.encode())
        samples = (np.clip(sound, -1, 1) * 32767).astype(np.int16)[None]  # (1, num_samples)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = config.sample_rate_hz
        container.mux(audio.encode(frame))
        container.mux(audio.encode())
