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


class Tag(NamedTuple):
    """A section tag, or what looks like one."""

    name: str
    closes: bool
    is_exact: bool  # written as the schema wants it; False for look-alikes and for tags of another schema
    start: int
    end: int


def scan_tags(text: str, names: tuple[str, ...]) -> list[Tag]:
    """Tags of the sections `names`, and of the reserved ones, from left to right."""
    tags: list[Tag] = []
    for candidate in _CANDIDATE.finditer(text):
        written = candidate[0]
        name = written.strip("</>")
        if name in names and written in (f"<{name}>", f"</{name}>"):
            tags.append(Tag(name, written[1] == "/", True, *candidate.span()))
        elif shown := _tag_pattern(names).fullmatch(fold(written)):
            tags.append(Tag(shown[2], "/" in shown[1], False, *candidate.span()))
    return tags


@lru_cache(maxsize=32)
def _tag_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    reserved = "|".join(sorted({*names, *_RESERVED_NAMES}))
    return re.compile(rf"<([^\w<>]*)({reserved})(?:[^\w<>][^<>]*)?>", re.IGNORECASE)
