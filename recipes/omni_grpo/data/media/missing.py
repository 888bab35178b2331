# SPDX-License-Identifier: Apache-2.0
"""What a track lacks of the clip that it belongs to, and how much may be lacking."""

from dataclasses import dataclass
from math import ceil
from pathlib import Path

from omni_grpo.data.media.settings import MediaError

EDGE = 0.1  # seconds by which tracks may begin and end apart: codecs pad, and cut, what they are given
JITTER = 0.015  # seconds by which time stamps may be off: less than a packet of any codec


@dataclass
class Missing:
    """
    Seconds that a track does not cover.

    Args:
        path (`str` or `Path`): The file.
        track (`str`): What errors call the track.
        length (`float`): Seconds of the clip.
        allowed (`float`): Share of it that may be missing.
    """

    path: str | Path
    track: str
    length: float
    allowed: float
    seconds: float = 0.0

    def add(self, seconds: float, tolerance: float = 0.0) -> bool:
        """Count a stretch, unless it is within `tolerance`; whether what is missing is still within what is allowed."""
        self.seconds += seconds if seconds > tolerance else 0.0
        return self.share <= self.allowed

    @property
    def share(self) -> float:
        """What is missing, as a share of the clip."""
        return min(round(self.seconds / self.length, 9), 1.0)

    def notes(self) -> list[str]:
        """
        What is to be said in the log, once everything is counted.

        Raises:
            MediaError: more is missing than is allowed.
        """
        said = f"{self.seconds:.2f} s of its {self.track} are missing ({self.share:.1%} of {self.length:.2f} s)"
        if self.share > self.allowed:
            raise MediaError(
                f"{self.path}: {said}, more than max_missing_share={self.allowed:g}; get the file again, drop the row, or "
                f"set max_missing_share to {min(ceil(self.share * 100 + 1e-6) / 100, 1):g} to take it as it is"
            )
        return [said] if self.seconds else []
