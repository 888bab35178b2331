# SPDX-License-Identifier: Apache-2.0
"""Section tags in a text, and what looks like one, in time linear in the text."""

import re
from collections.abc import Iterator
from functools import cache, lru_cache
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
    exact = {
        written: tag for name in names for written, tag in ((f"<{name}>", (name, False)), (f"</{name}>", (name, True)))
    }
    tags: list[Tag] = []
    for written, shown, (start, end) in _tag_like(text, _tag_pattern(names)):
        if tag := exact.get(written):
            tags.append(Tag(*tag, True, start, end))
        else:
            tags.append(Tag(shown[2].lower(), "/" in shown[1] or "\\" in shown[1], False, start, end))
    return tags


@lru_cache(maxsize=32)
def _tag_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    reserved = "|".join(sorted({*names, *_RESERVED_NAMES}))
    return re.compile(rf"<([^\w<>]*)({reserved})(?:[^\w<>][^<>]*)?>", re.IGNORECASE)


def _tag_like(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[str, re.Match[str], tuple[int, int]]]:
    """What is written, the match of how it looks, and where it stands."""
    if text.isascii() and not _CONTROL.search(text):  # most texts: each character is what it looks like
        yield from ((match[0], match, match.span()) for match in pattern.finditer(text))
        return

    @cache
    def read(written: str) -> re.Match[str] | None:
        return pattern.fullmatch(fold(written))

    for candidate in _CANDIDATE.finditer(text):
        if match := read(candidate[0]):
            yield candidate[0], match, candidate.span()
