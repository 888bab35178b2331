# SPDX-License-Identifier: Apache-2.0
"""Text and numbers as HTML. Completions are untrusted: every string on the page goes through `text`."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable
from typing import Any

# Controls that HTML forbids, and lone surrogates, which UTF-8 cannot hold. Newline and tab stay.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
NOTHING = "–"


def text(value: Any) -> str:
    """Any value as HTML text or attribute value; unprintable characters become `�`.

    >>> text('<b title="x">')
    '&lt;b title=&quot;x&quot;&gt;'
    """
    return html.escape(_UNPRINTABLE.sub("\ufffd", str(value)), quote=True)


def number(value: Any) -> float | None:
    """A finite number, or `None` for anything else (missing, text, true, NaN)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def percent(value: Any) -> str:
    """A share in [0, 1] with one decimal, without the sign: `0.825` -> `82.5`; an en dash when there is none."""
    share = number(value)
    return NOTHING if share is None else f"{100 * share:.1f}"


def points(value: Any) -> str:
    """A difference of shares in signed percentage points: `-0.05` -> `−5.0`; an en dash when there is none."""
    difference = number(value)
    return NOTHING if difference is None else f"{100 * difference:+.1f}".replace("-", "−")


def interval(value: Any, points_: bool = False) -> str:
    """`[0.76, 0.876]` -> `76.0 – 87.6`, or in signed points; empty when it is not two numbers."""
    if not isinstance(value, list | tuple) or len(value) != 2 or None in (number(value[0]), number(value[1])):
        return ""
    low, high = (points(end) if points_ else percent(end) for end in value)
    return f"{low} to {high}" if points_ else f"{low} – {high}"


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


def table(caption: str, header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in a box that scrolls sideways; cells are HTML, the first of each row is its header."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = ""
    for first, *rest in rows:
        body += f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>\n"
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(caption)}"><table>'
        f"<caption>{text(caption)}</caption><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"
    )


def note(message: str) -> str:
    """A visible remark, for example on a part that is missing."""
    return f'<p class="note">{text(message)}</p>\n'
