# SPDX-License-Identifier: Apache-2.0
"""
The completions that constrained decoding can write, as rules on characters and as a regular expression.

They are those that the strict parser of `omni_rewards` accepts, with no white space around the sections, less a few.
The parser refuses whatever looks like a section tag, in brackets and letters of any script. Here a section is safe if
no `<` or look-alike of it is followed by a section's name and a closing bracket; and a character beyond ASCII counts
as a part of such a name, unless it is an ideograph, kana or Hangul. So `a < β > c` is not written, `〈標題〉` is.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Collection, Iterable
from functools import lru_cache
from itertools import pairwise

from omni_rewards import CONTEXT_THINK_ANSWER, THINK_ANSWER, SectionSchema
from omni_rewards._lookalikes import CLOSING_BRACKETS, OPENING_BRACKETS, is_blank

_WORD = frozenset(map(ord, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"))
_IGNORED = frozenset(c for c in range(128) if unicodedata.category(chr(c)) == "Cc" and not chr(c).isspace())
_BRACKETS = frozenset(map(ord, OPENING_BRACKETS + CLOSING_BRACKETS))
PLAIN = ("ぁゖ", "ァヺ", "一鿿", "가힣")  # looks like no Latin letter: first and last of kana, ideographs, Hangul


def is_plain(character: str) -> bool:
    """Whether a character beyond ASCII ends what may become a tag."""
    return any(first <= character <= last for first, last in PLAIN)


def is_word(character: str) -> bool:
    """An ASCII letter, digit or underscore."""
    return ord(character) in _WORD


def is_ignored(character: str) -> bool:
    """A control character that cannot be seen: inside a look-alike it changes nothing."""
    return ord(character) in _IGNORED


@lru_cache(maxsize=1)
def visible_table() -> bytes:
    """1 for each code point whose character alone makes a section that is not empty, 0 for the others."""
    table = bytearray(unicodedata.category(chr(c))[0] in "LNPS" for c in range(sys.maxunicode + 1))
    for code in [c for c in range(sys.maxunicode + 1) if table[c] and unicodedata.category(chr(c)) in ("Lo", "So")]:
        table[code] = not is_blank(chr(code))
    return bytes(table)


def reserved_names(schema: SectionSchema) -> list[str]:
    """Names whose tags may stand in no section: the schema's own, and those that are reserved in all."""
    return sorted({*schema.names, *CONTEXT_THINK_ANSWER.names, *THINK_ANSWER.names})


@lru_cache(maxsize=8)
def section_pattern(schema: SectionSchema, allow_blank: bool = False) -> str:
    """
    The schema as a regular expression: the texts that mode `strict` can write, and no others.

    Plain syntax, without lookaround, back-references or `\\p{…}`, so that engines which compile to automata take it
    (vLLM's `structured_outputs.regex`).

    Args:
        schema ([`SectionSchema`]): The sections.
        allow_blank (`bool`): Whether a section may be empty, as in mode `force_tags`.

    >>> import re
    >>> pattern = section_pattern(SectionSchema(("answer",)))
    >>> bool(re.fullmatch(pattern, "<answer>a < b</answer>")), bool(re.fullmatch(pattern, "<answer> </answer>"))
    (True, False)
    >>> bool(re.fullmatch(pattern, "<answer>yes</ANSWER ></answer>"))
    False
    """
    opening = _ranges(map(ord, OPENING_BRACKETS))
    outside = _ranges(c for c in range(128) if c not in _WORD | _BRACKETS)
    bracket = f"[{opening}][{outside}]*{_no_tag(reserved_names(schema))}"  # begins no tag; up to the next bracket
    if allow_blank:
        content = f"[^{opening}]*(?:{bracket})*"
    else:
        seen = _ranges(c for c, flag in enumerate(visible_table()) if flag and chr(c) not in OPENING_BRACKETS)
        content = f"(?:[^{opening}]*[{seen}][^{opening}]*(?:{bracket})*|[^{opening}]*(?:{bracket})+)"
    return "".join(f"<{name}>{content}</{name}>" for name in schema.names)


def _no_tag(names: Collection[str], at: str = "") -> str:
    """
    What may follow `at`, a beginning of some name behind an opening bracket, up to the next one: no whole tag.

    The text goes on in a name; or leaves all names, and from there runs free; or it may be inside a look-alike, and
    runs without a closing bracket; or it stops.
    """
    going_on = sorted({n[len(at)] for n in names if n.startswith(at) and n != at})
    opening, brackets = _ranges(map(ord, OPENING_BRACKETS)), _ranges(_BRACKETS)
    plain = "".join(map("-".join, PLAIN))
    words = _WORD - {ord(c) for letter in going_on for c in (letter, letter.upper())}
    signs = set(range(128)) - _WORD - _IGNORED - _BRACKETS
    closing = set(map(ord, CLOSING_BRACKETS))
    free = words if at in names else words | closing | (signs if at else set())
    ways = [f"[{_ranges({ord(x), ord(x.upper())})}]{_no_tag(names, at + x)}" for x in going_on]
    ways.append(f"[{_ranges(free)}{plain}][^{opening}]*")
    ways.append(f"[^\\x00-\\x7f{_ranges(b for b in _BRACKETS if b > 127)}{plain}][^{brackets}]*")
    if at in names:
        ways.append(f"[{_ranges(signs)}][^{brackets}]*")
    return f"{f'[{_ranges(_IGNORED)}]*' if at else ''}(?:{'|'.join(ways)})?"


def _ranges(codes: Iterable[int]) -> str:
    """Code points as the inside of a character class."""
    codes = sorted(codes)
    starts = [codes[0], *(b for a, b in pairwise(codes) if b != a + 1)]
    ends = [*(a for a, b in pairwise(codes) if b != a + 1), codes[-1]]
    return "".join(_end(a) if a == b else f"{_end(a)}-{_end(b)}" for a, b in zip(starts, ends, strict=True))


def _end(code: int) -> str:
    is_plain_ascii = code < 128 and chr(code).isalnum()
    return chr(code) if code > 159 or is_plain_ascii else f"\\x{code:02x}"
