# SPDX-License-Identifier: Apache-2.0
"""Takes a written answer apart: the formula, the unit after it, and what it says of its letters, such as `n > 0`."""

import re
from fractions import Fraction
from typing import NamedTuple

from ._written import read_number
from .quantities import Quantity, comparable_pairs, read_quantity

_NO_UNIT = Quantity(Fraction(1), "")
_GAP = r"(?:\s|\\[,;:! ]|\\q?quad(?![a-zA-Z]))*"
_TEXT = r"\\(?:text(?:rm|normal)?|math(?:rm|sf)|mbox|operatorname)\s*"
_UNIT = re.compile(
    rf"(.*?[^\s\\_^{{(]){_GAP}(\^\s*(?:\\circ|\{{\s*\\circ\s*\}})|°)?{_GAP}"
    rf"(?:{_TEXT}\{{{_GAP}(?![eijdT]\s*\}})([^\W\d_][^{{}}\\]*?)\s*\}}(?:\^\{{?([23])\}}?)?"
    r"|\\?(%)|(?<=[\s°])([a-zA-Z]+)|([\u4e00-\u9fff]+))?"
)
_OF_ANGLE = re.compile(r"sin|cos|tan|cot|sec|csc")
_KINDS = {
    **dict.fromkeys((">", r"\gt"), "positive"),
    **dict.fromkeys((">=", "≥", r"\ge", r"\geq", r"\geqslant"), "nonnegative"),
    **dict.fromkeys(("<", r"\lt"), "negative"),
    **dict.fromkeys(("<=", "≤", r"\le", r"\leq", r"\leqslant"), "nonpositive"),
    **dict.fromkeys(("!=", "≠", r"\ne", r"\neq"), "nonzero"),
}
_SYMBOL = r"(?:\\[a-zA-Z]+|[a-zA-Z])(?:_\w|_\{\w+\})?"
_ORDER = rf"({'|'.join(map(re.escape, sorted(_KINDS, key=len, reverse=True)))})(?![a-zA-Z])"
_CONDITION = (
    rf"({_SYMBOL}(?:\s*,\s*{_SYMBOL})*)\s*(?:{_ORDER}\s*(-?[\w.\\/{{}}]+)"
    r"|\\in\s*\\mathbb\s*\{?([NZQR])\}?\s*((?:[_^]\s*(?:[*+]|\{[^{}]*\}))?))"
)
_WHEN = r"(?:for|where|if|when|with|given|assuming)(?: all| every| any)?|其中|当|若|对"
_SAID = re.compile(
    rf"(.+?){_GAP}(?:(?:(?:[,;]|\\q?quad|{_WHEN}|{_TEXT}\{{\s*,?\s*(?:{_WHEN})?\s*\}}){_GAP})+\(?|\()"
    rf"({_CONDITION}(?:\s*,{_GAP}{_CONDITION})*){_GAP}\)?\s*时?"
)


class FormulaParts(NamedTuple):
    """A formula as written, its unit as a quantity of one, and what is said of its letters: name, kind and bound."""

    formula: str
    unit: Quantity
    said: frozenset[tuple[str, str, str]]


def take_apart(text: str) -> FormulaParts:
    r"""
    The parts of `text`; a word is a unit if it is known, or after nothing but a number.

    >>> take_apart(r"\sqrt{1/n} \text{ for } n > 0").said, take_apart(r"2\pi \text{ cm}").unit.unit
    (frozenset({('n', 'positive', '0')}), 'cm')
    """
    match = _SAID.fullmatch(re.sub(rf"\b0\s*<\s*({_SYMBOL})", r"\1>0", text.replace("$", " ").strip()))
    # Of several inequalities none is said of the others, and x=1, x>3 are solutions.
    if match is None or re.search(_ORDER, match[1]) or re.match(rf"\s*{re.escape(match[3])}\s*=", match[1]):
        return FormulaParts(*_split_unit(text), frozenset())
    said: set[tuple[str, str, str]] = set()
    for names, order, bound, letters, mark in re.findall(_CONDITION, match[2]):
        for name in re.findall(_SYMBOL, names):
            said.add((name, _KINDS[order], bound) if order else (name, "integer" if letters in "NZ" else "real", "0"))
            if mark or letters == "N":
                said.add((name, "positive" if mark else "nonnegative", "0"))
    letters = re.sub(r"\\[a-zA-Z]+", "", match[1])
    if not all(name in (match[1] if name[0] == "\\" else letters) for name, _, _ in said):
        return FormulaParts(*_split_unit(text), frozenset())
    return FormulaParts(*_split_unit(match[1]), frozenset(said))


def _split_unit(formula: str) -> tuple[str, Quantity]:
    match = _UNIT.fullmatch(formula)
    if match is None:
        return formula, _NO_UNIT
    rest, degree, text, power, *bare = match.groups()
    word = ("°" if degree else "") + (text or next(filter(None, bare), "")) + (f"^{power}" if power else "")
    number, first = read_number(rest), read_quantity(f"1 {word.split(' ')[0]}")
    unit = read_quantity(f"1 {word}") or (first and Quantity(first.value, word))
    is_known = unit is not None and bool(comparable_pairs(unit, _NO_UNIT)) and (text or degree) and "," not in rest
    if unit is None or (number is None and (not is_known or _OF_ANGLE.search(rest))):
        return formula, _NO_UNIT
    return rest, unit
