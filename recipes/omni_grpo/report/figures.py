# SPDX-License-Identifier: Apache-2.0
"""Numbers as the pages show them, and the tables that they stand in; `templates/parts.html.j2` draws both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

NOTHING = "–"


class Glyph(NamedTuple):
    """A bar from 0 to 100 %: the value as a dot, its interval as a band, chance as a tick, in the colour `tone`."""

    value: float
    ci95: Sequence[float] | None
    chance: float | None
    tone: str


class Cell(NamedTuple):
    """A figure in a table, with its interval and a drawing of both."""

    text: str
    spread: str = ""
    glyph: Glyph | None = None
    css: str = "value"


class Table(NamedTuple):
    """A table as a page shows it; the first cell of each row is its header."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]


def share(value: Any, ci95: Any = None, chance: Any = None, tone: str = "other-1") -> str | Cell:
    """The cell of a share with its interval; an en dash where there is none."""
    if number(value) is None:
        return NOTHING
    return Cell(percent(value), interval(ci95), Glyph(value, ci95 if interval(ci95) else None, number(chance), tone))


def accuracy(figures: Mapping[str, Any] | None, tone: str) -> str | Cell:
    """The cell of a group's accuracy; an en dash where it was not measured."""
    found = figures or {}
    return share(found.get("accuracy"), found.get("ci95"), found.get("chance"), tone)


def number(value: Any) -> float | None:
    """A finite number, or `None` for anything else (missing, text, true, NaN)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def percent(value: Any) -> str:
    """A share in [0, 1] with one decimal, without the sign: `0.825` -> `82.5`; an en dash when there is none."""
    return _shown(value, ".1f", 100)


def points(value: Any) -> str:
    """A difference of shares in signed percentage points: `-0.05` -> `−5.0`; an en dash when there is none."""
    return _shown(value, "+.1f", 100)


def short(value: Any) -> str:
    """A number in at most three digits, more where it has more before the point; an en dash when there is none."""
    return _shown(value, ".0f" if abs(number(value) or 0) >= 100 else ".3g")


def signed(value: Any) -> str:
    """A correlation with its sign and two decimals; an en dash when there is none."""
    return _shown(value, "+.2f")


def _shown(value: Any, form: str, scale: int = 1) -> str:
    found = number(value)
    return NOTHING if found is None else f"{scale * found:{form}}".replace("-", "−")


def interval(value: Any, ends: Any = percent, between: str = " – ") -> str:
    """`[0.76, 0.876]` -> `76.0 – 87.6`; empty when it is not two numbers."""
    if not isinstance(value, list | tuple) or len(value) != 2 or None in map(number, value):
        return ""
    return between.join(map(ends, value))


def spread(value: Any) -> str:
    """The interval of a difference in points: `+1.2 to +3.4`; empty when it is not two numbers."""
    return interval(value, points, " to ")


def duration(seconds: Any) -> str:
    """Seconds in words that fit the size: `42 s`, `6.5 min`, `3 h 20 min`; an en dash when there is none."""
    value = number(seconds)
    if value is None:
        return NOTHING
    if value < 100:
        return f"{value:.0f}\u00a0s"
    if value < 100 * 60:
        return f"{value / 60:.1f}\u00a0min"
    return f"{int(value // 3600)}\u00a0h {int(value % 3600 // 60)}\u00a0min"


def p_value(value: Any) -> str:
    """`0.0123` -> `0.012`; below a thousandth `< 0.001`; an en dash when there is none."""
    p = number(value)
    return NOTHING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
