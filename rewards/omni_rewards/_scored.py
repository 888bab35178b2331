# SPDX-License-Identifier: Apache-2.0
"""What a scorer of one answer returns."""

from collections.abc import Sequence
from typing import NamedTuple

Options = Sequence[str] | None


class Scored(NamedTuple):
    """
    Score of one answer and how it was read.

    Args:
        score (`float`): In `[0, 1]`.
        parsed (`str` or `None`): The answer as it was read; `None` where it cannot be read as its type.
        is_spam (`bool`, *optional*):
            Whether it names several options where one is asked, or all of them; `None` where there are none to choose.
    """

    score: float
    parsed: str | None
    is_spam: bool | None = None

    @property
    def reason(self) -> str:
        """Why it earned what it did, a key of `ANSWER_REASONS`."""
        if self.parsed is None:
            return "unreadable"
        return "right" if self.score == 1.0 else "partial" if self.score else "wrong"


UNREADABLE = Scored(0.0, None)
