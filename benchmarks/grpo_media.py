# SPDX-License-Identifier: Apache-2.0
"""How large the measured work is, and the media that fill its prompts up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image

from omni_grpo import MediaSettings
from omni_grpo.data.rows.schema import Example, MediaItem

PATCH = 28  # pixels a side of one image token
TEXT = "What is in the picture?"


@dataclass(frozen=True)
class Shape:
    """
    Size of the work.

    Args:
        prompt (`int`): Tokens of a prompt, about; the picture's share is a square.
        completion (`int`): Tokens of each completion, exactly.
        group (`int`): Completions of a prompt.
        prompts (`int`): Distinct prompts of a micro-batch, each with media of its own.
    """

    prompt: int
    completion: int
    group: int
    prompts: int = 1


def write_pictures(folder: Path, shape: Shape, text_tokens: int) -> list[Path]:
    """Pictures of noise, one a prompt, whose tokens fill a prompt up."""
    side = max(1, round(max(1, shape.prompt - text_tokens) ** 0.5))
    pictures = []
    for i in range(shape.prompts):
        noise = np.random.default_rng(i).integers(0, 255, (side * PATCH, side * PATCH, 3), dtype=np.uint8)
        pictures.append(folder / f"picture{side}_{i}.png")
        Image.fromarray(noise).save(pictures[-1])
    return pictures


def write_clips(
    folder: Path, shape: Shape, text_tokens: int, frames: int = 4, seconds: float = 2.9, sound_tokens: int = 36
) -> tuple[list[Path], MediaSettings]:
    """
    Clips of noise with a tone, one a prompt, and the settings under which they fill a prompt up.

    Args:
        folder (`Path`): Where they are written.
        shape ([`Shape`]): Of the work.
        text_tokens, sound_tokens (`int`): Tokens of a prompt that are not picture.
        frames (`int`): Frames that the model sees, an even number.
        seconds (`float`): Length of a clip.
    """
    side = PATCH * max(2, round((max(8, shape.prompt - text_tokens - sound_tokens) / (frames // 2)) ** 0.5))
    clips = []
    for i in range(shape.prompts):
        rng = np.random.default_rng(i)
        clips.append(folder / f"clip{side}_{i}.mp4")
        with av.open(str(clips[-1]), "w") as container:
            video, audio = (
                container.add_stream("libx264", rate=8),
                container.add_stream("aac", rate=16_000, layout="mono"),
            )
            video.width = video.height = side
            video.pix_fmt = "yuv420p"
            for _ in range(int(8 * seconds)):
                frame = av.VideoFrame.from_ndarray(
                    rng.integers(0, 255, (side, side, 3), dtype=np.uint8), format="rgb24"
                )
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
            tone = np.sin(0.1 * (i + 1) * np.arange(int(16_000 * seconds)))[None].astype(np.float32)
            sound = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            sound.sample_rate = 16_000
            container.mux(audio.encode(sound))
            container.mux(audio.encode(None))
    pixels = side * side
    return clips, MediaSettings(
        num_frames=frames, min_pixels=pixels, max_pixels=pixels, max_audio_seconds=seconds + 0.1
    )


def clip_examples(clips: list[Path]) -> list[Example]:
    return [Example(p.stem, TEXT, "free-form", "noise", media=(MediaItem("video", str(p), True),)) for p in clips]


def image_examples(pictures: list[Path]) -> list[Example]:
    return [Example(p.stem, TEXT, "free-form", "noise", media=(MediaItem("image", str(p)),)) for p in pictures]
