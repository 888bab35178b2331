# SPDX-License-Identifier: Apache-2.0
"""Reads a written answer as a choice, a verdict, a label or a number; `None` or empty where it cannot be read."""

import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache

MAX_NUMBER_LENGTH = 1000  # characters; nobody means a longer one, and its arithmetic takes time


def normalize(text: str) -> str:
    """Case folded, compatibility forms unified (full-width letters), white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def read_label(text: str) -> str:
    """`text` normalised, without the punctuation and symbols around it."""
    label = normalize(text)
    start, end = 0, len(label)
    while start < end and unicodedata.category(label[start])[0] in "PSZC":
        start += 1
    while start < end and unicodedata.category(label[end - 1])[0] in "PSZC":
        end -= 1
    return label[start:end]


def read_labels(text: str) -> set[str]:
    """The labels of a list set apart by commas, semicolons or 、; a label listed twice is one."""
    return {label for part in re.split(r"[,;、]", normalize(text)) if (label := read_label(part))}


def option_texts(options: Sequence[str] | None) -> dict[str, str]:
    """
    Normalised text of each option by its letter.

    Letters are taken off the texts only if all run A, B, C, … in order: in `["I. Newton", "A. Einstein"]` they are
    initials. Raises `ValueError` if there are no options or more than letters.
    """
    if not options or len(options) > len(string.ascii_lowercase):
        raise ValueError(f"a choice row needs 1 to 26 options, got {options!r}")
    return _option_texts(tuple(options))


@lru_cache(maxsize=1024)  # one question's options come once for each of its completions
def _option_texts(options: tuple[str, ...]) -> dict[str, str]:
    letters = string.ascii_lowercase[: len(options)]
    texts = [normalize(option) for option in options]
    marked = [re.fullmatch(rf"\(?{letter}[.):]+\s*(.*)", text) for letter, text in zip(letters, texts, strict=True)]
    if all(marked):
        texts = [match[1] for match in marked if match]
    return {letter: text.rstrip(".") for letter, text in zip(letters, texts, strict=True)}


def read_choice(text: str, texts: Mapping[str, str]) -> str | None:
    """The letter of the one option that `text` names; a letter followed by another option's text names none."""
    text = normalize(text).rstrip(".")
    match = re.fullmatch(r"\(?([a-z])(?:[.):]+\s*(.*))?", text)
    if match and match[1] in texts and (not match[2] or match[2] == texts[match[1]]):
        return match[1]
    named = [letter for letter, option in texts.items() if option and option == text]
    return named[0] if len(named) == 1 else None  # two options of one text cannot be told apart by it


def read_choices(text: str, texts: Mapping[str, str]) -> set[str]:
    """Letters of the listed options; empty if any entry is not an option."""
    if single := read_choice(text, texts):  # first, because an option's text may hold a comma
        return {single}
    text = normalize(text)
    words = [word for word in re.split(r"[,;、&\s]+", text) if word not in ("", "and")]
    bare = [re.fullmatch(r"\(?([a-z])[.):]*", word) for word in words]
    if all(bare):
        letters = {match[1] for match in bare if match}
        return letters if letters <= texts.keys() else set()
    for mark in (r"[;、]", r"[,;、]\s*(?=\(?[a-z][.):])", r"[,;、]"):  # the texts of options hold commas, too
        found = [read_choice(part, texts) for part in re.split(mark, text)]
        if all(found):
            return {letter for letter in found if letter}
    return set()


def read_yes_no(text: str) -> str | None:
    """`"yes"` or `"no"`, whichever of the two stands in `text` as a whole word; `None` for both or neither."""
    said = {"yes", "no"} & set(re.findall(r"\w+", normalize(text)))
    return said.pop() if len(said) == 1 else None


# Digits and signs as full-width input methods write them, and the minus sign of typography.
_PLAIN_DIGITS = str.maketrans("０１２３４５６７８９．，＋－％−", "0123456789.,+-%-")
# Thousands are set apart by commas, or by one kind of space throughout: plain, no-break, thin, narrow no-break.
_GROUPS = "|".join(rf"[0-9]{{1,3}}(?:{mark}[0-9]{{3}})+" for mark in (",", " ", "\u00a0", "\u2009", "\u202f"))
NUMBER = rf"[+-]?(?:(?:{_GROUPS}|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{{1,3}})?"
_NUMBER = re.compile(NUMBER)


def plain_digits(text: str) -> str:
    """`text` stripped, with ASCII digits and signs; other compatibility forms stay, since 10² is not 102."""
    return text.strip().translate(_PLAIN_DIGITS)


def read_number(text: str) -> Decimal | None:
    """The number that `text` is, exactly; `None` for anything beside it, and for `nan` and `inf`."""
    written = plain_digits(text)
    if len(written) > MAX_NUMBER_LENGTH or not _NUMBER.fullmatch(written):
        return None
    return Decimal(re.sub(r"[,\s]", "", written))
