# SPDX-License-Identifier: Apache-2.0
"""Reads a written answer as a label or a number, without what stands around it; `_options` and `_verdicts` read the rest."""

import re
import unicodedata
from decimal import Decimal

MAX_NUMBER_LENGTH = 1000  # characters; nobody means a longer one, and its arithmetic takes time


def on_one_line(text: str) -> str:
    """Compatibility forms unified (full-width letters), white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def normalize(text: str) -> str:
    """The same, and case folded."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


# Markdown's emphasis and LaTeX's delimiters. A star or a dollar sign between letters or digits is one of the answer.
_AROUND = re.compile(
    r"(?<![A-Za-z0-9])(\*{1,3}|_{1,3}|`{1,3}|\${1,2})(?=\S)(?P<a>[^$]+?)(?<=\S)\1(?![A-Za-z0-9])|"
    r"\\[(\[](?P<b>.+?)\\[)\]]|\\(?:boxed|text|textbf|textit|mathrm|mathbf|mathit)\s?\{(?P<c>[^{}]*)\}"
)
_QUOTED = re.compile(r"(?:\"(.*)\"|'(.*)'|“(.*)”|‘(.*)’|「(.*)」|\[([^\[\]]*)\]|【([^【】]*)】)[.。]?")


def unwrap(text: str) -> str:
    """
    `text` without emphasis, LaTeX delimiters, or quotation marks and square brackets around all of it.

    >>> unwrap("**73**"), unwrap(r"\\(\\boxed{42}\\)"), unwrap('["B"]'), unwrap("$20")
    ('73', '42', 'B', '$20')
    """
    before = None
    while text != before and len(text) <= MAX_NUMBER_LENGTH:
        before = text
        text = _AROUND.sub(lambda match: match["a"] or match["b"] or match["c"] or "", text).strip()
        if match := _QUOTED.fullmatch(text):
            text = next(group for group in match.groups() if group is not None).strip()
    return text


def read_label(text: str) -> str:
    """`text` normalised, without the punctuation and symbols around it."""
    label = normalize(text)
    start, end = 0, len(label)
    while start < end and unicodedata.category(label[start])[0] in "PSZC":
        start += 1
    while start < end and unicodedata.category(label[end - 1])[0] in "PSZC":
        end -= 1
    return label[start:end]


HAN_AND = "(?:以及|[和与及])"
# A Chinese "and" is one between words of two characters or more; 温和 and 平和 are words themselves.
_LABEL_MARK = re.compile(rf"[,;、/&|+\n]|\band\b|(?<=\w\w)(?<![温平柔缓祥谦])\s*{HAN_AND}\s*(?=\w\w)")


def read_labels(text: str) -> set[str]:
    """
    The labels of a list set apart by commas, semicolons, slashes, line breaks, "and" or their like; each is one.

    >>> sorted(read_labels("happy, sad and angry")), sorted(read_labels("1. happy\\n2. sad"))
    (['angry', 'happy', 'sad'], ['happy', 'sad'])
    """
    parts = _LABEL_MARK.split(unicodedata.normalize("NFKC", text).casefold())
    return {label for part in parts if (label := read_label(re.sub(r"^\s*[0-9]{1,2}[.)]", "", part)))}


# Digits and signs as full-width input methods write them, and the minus sign of typography.
_PLAIN_DIGITS = str.maketrans("０１２３４５６７８９．，＋－％−＄￥", "0123456789.,+-%-$¥")
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
