# SPDX-License-Identifier: Apache-2.0
"""Section tags in a text, and what looks like one, in time linear in the text."""

import re
from functools import lru_cache
from typing import NamedTuple

from ._lookalikes import CLOSING_BRACKETS, OPENING_BRACKETS, fold

# Reserved in every schema: a two-section text may not carry a <context> either.
_RESERVED_NAMES = ("context", "think", "answer")

# From a bracket to the next one, so that no character is looked at by more than one candidate.
_CANDIDATE = re.compile(rf"[{OPENING_BRACKETS}][^{OPENING_BRACKETS}{CLOSING_BRACKETS}]*[{CLOSING_BRACKETS}]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")


class Tag(NamedTuple):
    """A section tag, or what looks like one."""

    name: str
    closes: bool
    is_exact: bool  # written as the schema wants it; False for look-alikes and for tags of another schema
    start: int
    end: int


def scan_tags(text: str, names: tuple[str, ...]) -> list[Tag]:
    """Tags of the sections `names`, and of the reserved ones, from left to right."""
    is_plain = text.isascii() and not _CONTROL.search(text)  # most texts: each character is what it looks like
    known = _exact_tags(names).copy()  # a text writes the same few again and again
    tags: list[Tag] = []
    for candidate in (_tag_pattern(names) if is_plain else _CANDIDATE).finditer(text):
        written = candidate[0]
        if written not in known:
            known[written] = _look_alike(written, names)
        if tag := known[written]:
            tags.append(Tag(*tag, *candidate.span()))
    return tags


@lru_cache(maxsize=32)
def _exact_tags(names: tuple[str, ...]) -> dict[str, tuple[str, bool, bool] | None]:
    return {f"<{slash}{name}>": (name, slash == "/", True) for name in names for slash in ("", "/")}


def _look_alike(written: str, names: tuple[str, ...]) -> tuple[str, bool, bool] | None:
    """Name, whether it closes, and that it is not exact, of what looks like a tag; `None` of what does not."""
    shown = _tag_pattern(names).fullmatch(fold(written))
    return (shown[2], "/" in shown[1], False) if shown else None


@lru_cache(maxsize=32)
def _tag_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    reserved = "|".join(sorted({*names, *_RESERVED_NAMES}))
    return re.compile(rf"<([^\w<>]*)({reserved})(?:[^\w<>][^<>]*)?>", re.IGNORECASE)
