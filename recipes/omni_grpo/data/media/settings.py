# SPDX-License-Identifier: Apache-2.0
"""How media files are read: frames, sizes, sampling rate, caps."""

from dataclasses import dataclass
from typing import Literal


class MediaError(ValueError):
    """A media file cannot be used. The message names the file, what is wrong with it and the remedy."""


@dataclass(frozen=True)
class MediaSettings:
    """How a media file becomes arrays; equal settings and equal bytes give equal arrays.

    Args:
        video_sampling (`str`, defaults to `"uniform"`):
            `"uniform"` takes exactly `num_frames` frames, `"fps"` takes `fps` frames a second. Either way the clip is
            cut into equal parts and the frame shown in the middle of each part is taken. A clip with fewer frames than
            parts shows some of its frames more than once, spread evenly.
        num_frames (`int`, defaults to `8`):
            Frames of a clip under `"uniform"`; a multiple of `frame_multiple`.
        fps (`float`, defaults to `2.0`):
            Frames a second under `"fps"`; the number of frames is rounded to a multiple of `frame_multiple`.
        min_frames (`int`, defaults to `4`):
            Fewest frames under `"fps"`; a multiple of `frame_multiple`.
        max_frames (`int`, defaults to `768`):
            Most frames under `"fps"`; a longer clip is sampled more thinly, never cut.
        frame_multiple (`int`, defaults to `2`):
            Frames in a temporal patch of the vision tower, or a multiple of it.
        min_pixels (`int`, *optional*):
            Smallest area of a frame or an image, in pixels. `None` sets no lower bound.
        max_pixels (`int`, *optional*):
            Largest area of a frame or an image, in pixels. `None` sets no upper bound. With both `None` the size is
            left to the processor.
        pixel_multiple (`int`, *optional*):
            Where a bound is set, both sides become multiples of this many pixels; by default of the model's own, 28
            where no model is known.
        sampling_rate (`int`, defaults to `16_000`):
            Samples a second of the sound handed out.
        max_audio_seconds (`float`, *optional*, defaults to `30.0`):
            Longest sound accepted; `None` accepts any length.
        long_audio (`str`, defaults to `"refuse"`):
            What happens to longer sound: `"refuse"` raises [`MediaError`], `"truncate"` keeps the beginning and logs
            the file's name.
        max_missing_share (`float`, defaults to `0.05`):
            How much of a clip its sound, or its picture, may lack (a track that begins late or ends early, packets that
            were lost): silence, or the frame before, takes its place, and the log says so. A file that lacks more is
            refused.
        load_audio_from_video (`bool`, defaults to `False`):
            Whether the processor interleaves a video with its sound track by time.

    Raises:
        ValueError: a value is out of range; the message names the field, the value and what is allowed.

    >>> MediaSettings(num_frames=7)
    Traceback (most recent call last):
    ...
    ValueError: num_frames=7 must be a positive multiple of frame_multiple=2
    """

    video_sampling: Literal["uniform", "fps"] = "uniform"
    num_frames: int = 8
    fps: float = 2.0
    min_frames: int = 4
    max_frames: int = 768
    frame_multiple: int = 2
    min_pixels: int | None = None
    max_pixels: int | None = None
    pixel_multiple: int | None = None
    sampling_rate: int = 16_000
    max_audio_seconds: float | None = 30.0
    long_audio: Literal["refuse", "truncate"] = "refuse"
    max_missing_share: float = 0.05
    load_audio_from_video: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("video_sampling", ("uniform", "fps")), ("long_audio", ("refuse", "truncate"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {allowed}")
        positive = ("fps", "frame_multiple", "pixel_multiple", "sampling_rate")
        for name in (*positive, "min_pixels", "max_pixels", "max_audio_seconds"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name}={value} must be more than 0")
        if not 0 <= self.max_missing_share <= 1:
            raise ValueError(f"max_missing_share={self.max_missing_share} must be a share from 0 to 1")
        for name in ("num_frames",) if self.video_sampling == "uniform" else ("min_frames", "max_frames"):
            value = getattr(self, name)
            if value < 1 or value % self.frame_multiple:
                raise ValueError(f"{name}={value} must be a positive multiple of frame_multiple={self.frame_multiple}")
        if self.min_frames > self.max_frames:
            raise ValueError(f"min_frames={self.min_frames} is more than max_frames={self.max_frames}")
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels={self.min_pixels} is more than max_pixels={self.max_pixels}")
