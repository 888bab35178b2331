# SPDX-License-Identifier: Apache-2.0
"""Reading images, and bringing images and frames to the size the vision tower takes."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ExifTags import Base

from omni_grpo.data.media.container import AGAIN, named, require_file
from omni_grpo.data.media.settings import MediaError, MediaSettings

MAX_ASPECT = 200  # of Qwen's own resize
# By the EXIF orientation: flip left-right, rotate 180, flip top-bottom, transpose, rotate 270, transverse, rotate 90.
UPRIGHT = {2 + k: Image.Transpose(turn) for k, turn in enumerate((0, 3, 1, 5, 4, 6, 2))}


def read_image(path: str | Path, settings: MediaSettings) -> np.ndarray:
    """An image file as RGB; shape `(H, W, 3)`, uint8, upright (EXIF orientation applied).

    What is transparent becomes white. 16-bit grey is scaled to 8 bits. Of an animation the first picture is read.

    Raises:
        MediaError: the file is missing, empty, not an image, truncated, or thinner than 1:200 where the size is
            bounded.
    """
    path = require_file(path)
    with named(path):
        try:
            with Image.open(path) as image:
                image.load()  # which turns a TIFF
                # Pillow's exif_transpose writes all tags anew, and fails on one of an odd type that nobody needs.
                turn = UPRIGHT.get(image.getexif().get(Base.Orientation, 1))
                rgb = _on_white(image if turn is None else image.transpose(turn))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = "is not an image" if isinstance(error, Image.UnidentifiedImageError) else "is a damaged image"
            raise MediaError(f"{path}: {reason} ({error}); {AGAIN}") from error
    height, width = fitted_size(rgb.shape[0], rgb.shape[1], settings, path)
    if (height, width) == rgb.shape[:2]:
        return rgb
    return np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))


def fitted_size(height: int, width: int, settings: MediaSettings, path: str | Path) -> tuple[int, int]:
    """Height and width with the area in bounds, both multiples of `pixel_multiple`, aspect kept as nearly as it can.

    Without a bound the size stays as it is. A side never falls below `pixel_multiple`, whatever `max_pixels` says.

    Raises:
        MediaError: there is a bound, and a side is more than 200 times the other.

    >>> fitted_size(360, 640, MediaSettings(max_pixels=128 * 28 * 28), "clip.mp4")
    (224, 420)
    """
    if settings.min_pixels is None and settings.max_pixels is None:
        return height, width
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise MediaError(f"{path}: {width}×{height} pixels is thinner than 1:{MAX_ASPECT}; crop it, or drop the row")
    step = settings.pixel_multiple or 28

    def rounded(rounding: Callable[[float], int], scale: float) -> tuple[int, int]:
        return max(step, rounding(height * scale / step) * step), max(step, rounding(width * scale / step) * step)

    fitted = rounded(round, 1.0)
    if settings.max_pixels is not None and math.prod(fitted) > settings.max_pixels:
        return rounded(math.floor, math.sqrt(settings.max_pixels / (height * width)))
    if settings.min_pixels is not None and math.prod(fitted) < settings.min_pixels:
        return rounded(math.ceil, math.sqrt(settings.min_pixels / (height * width)))
    return fitted


def _on_white(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) // 257).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(image.convert("RGB"))  # a copy: torch warns of memory that is not its own to write
