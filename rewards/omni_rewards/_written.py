# SPDX-License-Identifier: Apache-2.0
"""Reads a written answer as a choice, a verdict, a label or a number; `None` or empty where it cannot be read."""

import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal


def normalize(text: str) -> str:
    """Case folded, compatibility forms unified (full-width letters), white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def read_label(text: str) -> str:
    """`text` normalised, without the punctuation and symbols around it."""
    label = normalize(text)
    inside = [index for index, character in enumerate(label) if unicodedata.category(character)[0] not in "PSZC"]
    return label[inside[0] : inside[-1] + 1] if inside else ""


def read_labels(text: str) -> set[str]:
    return {label for part in re.split(r"[,;、]", normalize(text)) if (label := read_label(part))}


def option_texts(options: Sequence[str] | None) -> dict[str, str]:
    """
    Normalised text of each option by its letter.

    Letters are taken off the texts only if all run A, B, C, … in order: in `["I. Newton", "A. Einstein"]` they are
    initials. Raises `ValueError` if there are no options or more than letters.
    """
    if not options or len(options) > len(string.ascii_lowercase):
        raise ValueError(f"a choice row needs 1 to 26 options, got {options!r}")
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
    words = [word for word in re.split(r"[,;、&\s]+", normalize(text)) if word not in ("", "and")]
    bare = [re.fullmatch(r"\(?([a-z])[.):]*", word) for word in words]
    if all(bare):
        found = [match[1] if match[1] in texts else None for match in bare if match]
    else:
        found = [read_choice(part, texts) for part in re.split(r"[,;、]", normalize(text))]
    return {letter for letter in found if letter} if all(found) else set()


def read_yes_no(text: str) -> str | None:
    said = {"yes", "no"} & set(re.findall(r"\w+", normalize(text)))
    return said.pop() if len(said) == 1 else None


_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.[0-9]*)?(?:e[+-]?[0-9]{1,3})?")


def read_number(text: str) -> Decimal | None:
    # Not normalised: compatibility forms would turn 10² into 102.
    written = text.strip().lower().replace("−", "-")  # the minus sign of typography
    has_digits = any(character.isdigit() for character in written.partition("e")[0])
    return Decimal(written.replace(",", "")) if has_digits and _NUMBER.fullmatch(written) else None
