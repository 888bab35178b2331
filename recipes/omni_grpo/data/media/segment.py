# SPDX-License-Identifier: Apache-2.0
"""Part of a file: the seconds that a row refers to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

from omni_grpo.data.media.settings import MediaError

# Lengths are quoted in rounded seconds: an end past the file's by no more than this is its end.
ROUNDING = Fraction(1, 100)


@dataclass(frozen=True)
class Segment:
    """
    The seconds [`start`, `end`) of a file, counted from its first frame, or from the first sample of a mere sound.

    Args:
        start (`float`, defaults to `0.0`): Where it begins.
        end (`float`, *optional*): Where it ends; `None` for the end of the file.

    >>> Segment(3, 7.5).fragment, Segment(3).fragment, Segment().fragment
    ('#t=3,7.5', '#t=3', '')
    """

    start: float = 0.0
    end: float | None = None

    @property
    def fragment(self) -> str:
        """As players take it behind an address (W3C Media Fragments); empty for a whole file."""
        if self == WHOLE:
            return ""
        return f"#t={self.start:.12g}" + ("" if self.end is None else f",{self.end:.12g}")

    def bounds(self, length: Fraction, path: str | Path) -> tuple[Fraction, Fraction]:
        """
        Start and end in seconds of a file that lasts `length` seconds, as the decimals that were written.

        Raises:
            MediaError: the segment is outside the file, or empty.
        """
        start, end = Fraction(str(self.start)), length if self.end is None else Fraction(str(self.end))
        if end > length + ROUNDING or not 0 <= start < min(end, length):
            raise MediaError(
                f"{path}: the file lasts {float(length):.3f} s and the row asks for {self.start:g} s to "
                f"{'its end' if self.end is None else f'{self.end:g} s'}; set `end` to at most "
                f"{floor(length * 1000) / 1000:g} or leave it out, and `start` to less than `end`"
            )
        return start, min(end, length)

    def overlaps(self, other: Segment) -> bool:
        """Whether both show some of the same seconds of a file."""
        first, last = sorted((self, other), key=lambda segment: segment.start)
        return first.end is None or last.start < first.end


WHOLE = Segment()


def segment_of(item: Mapping[str, Any]) -> Segment:
    """What `start` and `end` of a row's medium, or of a part of a prompt, say."""
    end = item.get("end")
    return Segment(float(item.get("start") or 0), None if end is None else float(end))
