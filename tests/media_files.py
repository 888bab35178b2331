# SPDX-License-Identifier: Apache-2.0
"""Small real media files for tests: videos whose frame k has a known grey level, tones of a known frequency."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from av.stream import Disposition
from PIL import Image

GREY_STEP = 9  # far more than a lossy codec moves a flat frame
ONE = 1 << 16  # 1.0 in the 16.16 fixed point of an mp4 display matrix
DISPLAY_MATRICES = {  # clockwise degrees -> a, b, c, d of x' = a·x + c·y, y' = b·x + d·y
    0: (ONE, 0, 0, ONE),
    90: (0, ONE, -ONE, 0),
    180: (-ONE, 0, 0, -ONE),
    270: (0, -ONE, ONE, 0),
    "mirrored": (-ONE, 0, 0, ONE),
    "90 mirrored": (0, ONE, ONE, 0),
}


def grey_frames(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """`count` (at most 25) flat frames `(height, width, 3)`; `frame_numbers` tells which is which."""
    return [np.full((height, width, 3), 20 + GREY_STEP * k, np.uint8) for k in range(count)]


def frame_numbers(frames: np.ndarray) -> list[int]:
    """Which of the `grey_frames` each of `frames` `(T, H, W, 3)` is."""
    return [round((float(frame.mean()) - 20) / GREY_STEP) for frame in frames]


def quadrants(width: int = 64, height: int = 48) -> np.ndarray:
    """A frame `(height, width, 3)` with a red, a green, a blue and a black corner, clockwise from the top left."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[: height // 2, : width // 2, 0] = 255
    frame[: height // 2, width // 2 :, 1] = 255
    frame[height // 2 :, width // 2 :, 2] = 255
    return frame


def tone(hz: float, seconds: float = 1.0, rate: int = 44_100, amplitude: float = 0.5) -> np.ndarray:
    """A sine `(samples,)`, float32."""
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_sound(path: Path, sound: np.ndarray, rate: int = 44_100, subtype: str | None = None) -> Path:
    """A sound file of the kind its name says; `sound` is `(samples,)` or `(samples, channels)`."""
    soundfile.write(path, sound, rate, subtype=subtype)
    return path


def write_image(path: Path, pixels: np.ndarray) -> Path:
    """An image file of the kind its name says; `pixels` is `(height, width, 3)`."""
    Image.fromarray(pixels).save(path)
    return path


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    fps: int = 8,
    times_ms: Sequence[int] | None = None,
    sound: np.ndarray | None = None,
    sound_rate: int = 44_100,
    sound_start: float = 0.0,
    codec: str = "libx264",
    pix_fmt: str = "yuv444p",
    gop: int = 12,
    b_frames: bool | int = True,
    mux: dict[str, str] | None = None,
) -> Path:
    """A video of `frames` at a constant `fps`, or shown at `times_ms` (the last one for 1/`fps` seconds).

    `sound` `(samples,)` becomes an AAC (Opus in webm) track that begins `sound_start` seconds into the clip.
    """
    tick = Fraction(1, 1000) if times_ms is not None else Fraction(1, fps)
    times = list(times_ms) if times_ms is not None else list(range(len(frames)))
    ends = [*times[1:], times[-1] + round(1 / (fps * tick))]
    lasts = {start: end - start for start, end in zip(times, ends, strict=True)}
    with av.open(str(path), "w", options=mux or {}) as container:
        video = container.add_stream(codec, rate=fps)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt, video.gop_size, video.codec_context.time_base = pix_fmt, gop, tick
        video.codec_context.thread_count = 1
        video.options = {} if b_frames is True else {"bf": str(int(b_frames))}
        if sound is not None:
            opus = path.suffix == ".webm"
            audio = container.add_stream("libopus" if opus else "aac", rate=48_000 if opus else sound_rate)
            audio.layout = "mono"
            block = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format="fltp", layout="mono")
            block.rate, block.pts = sound_rate, round(sound_start * sound_rate)
            container.mux([*audio.encode(block), *audio.encode()])
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = time, tick
            _mux(container, video.encode(frame), lasts)
        _mux(container, video.encode(), lasts)
    return path


def write_tracks(
    path: Path,
    films: Sequence[Sequence[np.ndarray]],
    sounds: Sequence[np.ndarray],
    default: tuple[int, int],
    starts: tuple[int, ...] = (0, 0),
) -> Path:
    """A file of several tracks: `films` at 8 frames a second, from frame `starts` on, `sounds` at 16 kHz; `default`
    numbers those to be played."""
    codec = {".mkv": ("ffv1", "yuv444p"), ".mp4": ("libx264", "yuv420p")}[path.suffix]
    with av.open(str(path), "w") as container:
        encoded: list[av.Packet] = []
        for place, frames in enumerate(films):
            stream = container.add_stream(codec[0], rate=8)
            stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], codec[1]
            stream.disposition = Disposition.default if place == default[0] else Disposition(0)
            for time, pixels in enumerate(frames, starts[place]):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = time, Fraction(1, 8)
                encoded += stream.encode(frame)
            encoded += stream.encode()
        for place, sound in enumerate(sounds):
            stream = container.add_stream("aac", rate=16_000)
            stream.layout, stream.metadata["language"] = "mono", ("deu", "eng", "fra")[place]
            stream.disposition = Disposition.default if place == default[1] else Disposition(0)
            block = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            block.rate, block.pts = 16_000, 0
            encoded += [*stream.encode(block), *stream.encode()]
        container.mux(encoded)
    return path


def set_display_matrix(path: Path, turn: int | str) -> Path:
    """Make an mp4's first track ask to be shown turned: a key of `DISPLAY_MATRICES`."""
    a, b, c, d = DISPLAY_MATRICES[turn]
    content = bytearray(path.read_bytes())
    header = content.index(b"tkhd")
    matrix = header + 8 + (32 if content[header + 4] == 1 else 20) + 16
    content[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def cut_file(path: Path, keep: float) -> Path:
    """Truncate a file to the share `keep` of its bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


def _mux(container: av.container.OutputContainer, packets: list[av.Packet], lasts: dict[int, int]) -> None:
    for packet in packets:
        packet.duration = lasts[packet.pts]
        container.mux(packet)
