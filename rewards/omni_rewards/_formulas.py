# SPDX-License-Identifier: Apache-2.0
"""
Takes a written answer apart for math-verify's parser: the formula, the unit after it, and what it says of its letters.

What people write and the parser does not know, or takes for something else, is spelled so that it is read in full; what
it would pass over becomes a sign that it refuses.
"""

import re
from collections.abc import Callable
from fractions import Fraction

from ._written import read_number
from .quantities import Quantity, comparable_pairs, read_quantity

_TEXT = r"\\(?:text(?:rm|bf|it|normal)?|math(?:rm|it|bf|sf)|mbox|operatorname)\s*"
_BASES: dict[str, str] = dict(
    zip(("two", "three", "four", "five", "six", "seven", "eight", "nine"), "23456789", strict=True)
)
_BRACES = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"
_FRACTION = r"\\(?:[dtc]?frac|[dt]?binom)(?![a-zA-Z])"
_TOKEN = r"\s*(\\(?!sqrt|[dtc]?frac)[a-zA-Z]+|[^\s\\{}\[\]()])"  # what a command takes for its argument without braces


def _repeating(match: re.Match[str]) -> str:
    """`0.1\\overline{6}`, `0.\\dot{1}4285\\dot{7}` or `0.(3)` as a fraction."""
    once, again = match[1] + match[2], re.sub(r"\D", "", match[3])
    below = int("9" * len(again) + "0" * len(match[2]))
    return rf"{{\frac{{{int(once + again) - int(once or 0)}}}{{{below}}}}}"


# In the order in which they are applied.
_SPELLINGS: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"\\m?(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\.?", ""),
    (r"(?<!\\)\\(?:[ ,;:!]|q?quad(?![a-zA-Z]))", " "),
    (r"(?<![\d.])(\d{1,3}) +(?=\d{3}(?!\d))", r"\1"),
    (rf"{_TEXT}(?:\{{\s*([eijdT]|-?[\d.,]+)\s*\}}|(?<=\s)([eijd])(?![a-zA-Z]))", r" \1\2"),
    (r"\\gamma(?![a-zA-Z])", r"\\text{smallgamma}"),  # read as Euler's constant
    (
        r"\\[a-zA-Z]+(?:\{[^{}\\]{2,}\})?|I",
        lambda match: r"\text{capitali}" if match[0] == "I" else match[0],
    ),  # as √-1
    (r"\\cbrt(?![a-zA-Z])", r"\\sqrt[3]"),
    (r"\\lg(?![a-zA-Z])", r"\\log_{10}"),
    (r"√", r"\\sqrt "),
    (r"[²³]", lambda match: "^{2}" if match[0] == "²" else "^{3}"),
    (r"^(\s*\\?[a-zA-Z]\w*\s*)(?:\\approx(?![a-zA-Z])|≈)", r"\1="),
    (r"([a-zA-Z])('+)", lambda match: f"{match[1]}_{{{'p' * len(match[2])}}}"),
    (r"(?<!matrix\})\^\s*(?:T(?![a-zA-Z])|\{\s*(?:T|\\top)\s*\}|\\top(?![a-zA-Z]))", "^{(T)}"),  # no transpose
    (r"\\?sqrt\s*(\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))", r"\\sqrt{\1}"),
    (rf"(\\sqrt(?:\[[^\]]*\])?)(?![a-zA-Z\[]){_TOKEN}", r"\1{\2}"),
    (rf"({_FRACTION}){_TOKEN}", r"\1{\2}"),
    (rf"({_FRACTION}\s*{_BRACES}){_TOKEN}", r"\1{\2}"),
    (r"\*\*", "^"),
    (r"(\d\.\d+)e([+-]?\d+)", r"\1\\cdot10^{\2}"),
    (r"\^\s*(-\w+)", r"^{\1}"),
    (r"(?<![\w.])(\d+) +(\d+)/(\d+)(?![\w.])", r"\1\\frac{\2}{\3}"),
    (r"(?<![\w.])(\d*)\.(\d*)(\\(?:overline|bar)\s*\{\d+\}|\\dot\{?\d\}?(?:\d*\\dot\{?\d\}?)?)", _repeating),
    (r"(?<![\w.])(\d*)\.()\((\d+)\)", _repeating),
    # A number in another base is a name of its own: the same number in base ten is another answer.
    (rf"(?<=[\d)])\s*_\s*(\{{?)\s*{_TEXT}\{{\s*(\w+)\s*\}}", lambda match: f"_{match[1]}{_BASES.get(match[2], '?')}"),
    (r"(?<![\w.^\\])(?:0*(\d+)|\(0*([\dA-F]+)\))\s*_\s*(?:(\d+)|\{\s*(\d+)\s*\})", r"\\text{d\1\2b\3\4}"),
    (r"([_^])\s*(\d+)\s+(?=\d)", r"\1{\2}"),
    # The parser passes over these, and takes numbers side by side for a mixed one.
    (r"\.\.|['\"]|\\approx(?![a-zA-Z])|≈|[\d)]\s*_|\^(?:\w|\{[^{}]*\})\s*_|(?<=\d)\s+(?=\.?\d)", "?"),
    (r"\\(?:ldots|phantom|v(?:rule|center|box|skip|space)|hfil)(?![a-zA-Z])", "?"),
    (r"(?:(?<![\w.^\\])\d+|\))\s*(?=[(\[])|\)\s*(?=[\d.])", r"\g<0>\\cdot "),
    (rf"({_FRACTION}\s*{_BRACES}\s*{_BRACES})\s*(?=\\[dtc]?frac|\d)", r"\1\\cdot "),
]
_COMPILED = [(re.compile(pattern), replacement) for pattern, replacement in _SPELLINGS]
_SIGN = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])|±|∓")

_GAP = r"(?:\s|\\[,;:! ]|\\q?quad(?![a-zA-Z]))*"
_UNIT = re.compile(
    rf"(.*?[^\s\\_^{{(]){_GAP}(\^\s*(?:\\circ|\{{\s*\\circ\s*\}})|°)?{_GAP}"
    rf"(?:{_TEXT}\{{{_GAP}(?![eijdT]\s*\}})([^\W\d_][^{{}}\\]*?)\s*\}}(?:\^\{{?([23])\}}?)?"
    r"|\\?(%)|(?<=[\s°])([a-zA-Z]+)|([\u4e00-\u9fff]+))?"
)
_OF_ANGLE = re.compile(r"sin|cos|tan|cot|sec|csc")
_NO_UNIT = Quantity(Fraction(1), "")

_KINDS = {
    **dict.fromkeys((">", r"\gt"), "positive"),
    **dict.fromkeys((">=", "≥", r"\ge", r"\geq", r"\geqslant"), "nonnegative"),
    **dict.fromkeys(("<", r"\lt"), "negative"),
    **dict.fromkeys(("<=", "≤", r"\le", r"\leq", r"\leqslant"), "nonpositive"),
    **dict.fromkeys(("!=", "≠", r"\ne", r"\neq"), "nonzero"),
}
_SYMBOL = r"(?:\\[a-zA-Z]+|[a-zA-Z])(?:_\w|_\{\w+\})?"
_ORDER = rf"({'|'.join(map(re.escape, sorted(_KINDS, key=len, reverse=True)))})(?![a-zA-Z])"
_IN_SET = r"\\in\s*\\mathbb\s*\{?([NZQR])\}?\s*((?:[_^]\s*(?:[*+]|\{[^{}]*\}))?)"
_CONDITION = rf"({_SYMBOL}(?:\s*,\s*{_SYMBOL})*)\s*(?:{_ORDER}\s*(-?[\w.\\/{{}}]+)|{_IN_SET})"
_WHEN = r"(?:for|where|if|when|with|given|assuming)(?: all| every| any)?|其中|当|若|对"
_SAID = re.compile(
    rf"(.+?){_GAP}(?:(?:(?:[,;]|\\q?quad|{_WHEN}|{_TEXT}\{{\s*,?\s*(?:{_WHEN})?\s*\}}){_GAP})+\(?|\()"
    rf"({_CONDITION}(?:\s*,{_GAP}{_CONDITION})*){_GAP}\)?\s*时?"
)


# A formula, its unit as a quantity of one, and what is said of its letters: name, kind and bound.
Parts = tuple[str, Quantity, frozenset[tuple[str, str, str]]]


def take_apart(text: str) -> Parts:
    r"""
    The parts of `text`; a word is a unit if it is known, or after nothing but a number.

    >>> take_apart(r"\sqrt{1/n} \text{ for } n > 0")[2], take_apart(r"2\pi \text{ cm}")[1].unit
    (frozenset({('n', 'positive', '0')}), 'cm')
    """
    match = _SAID.fullmatch(re.sub(rf"\b0\s*<\s*({_SYMBOL})", r"\1>0", text.replace("$", " ").strip()))
    # Of several inequalities none is said of the others, and x=1, x>3 are solutions.
    said: set[tuple[str, str, str]] = set()
    if match is None or re.search(_ORDER, match[1]) or re.match(rf"\s*{re.escape(match[3])}\s*=", match[1]):
        return *_split_unit(text), frozenset(said)
    for names, order, bound, numbers, mark in re.findall(_CONDITION, match[2]):
        for name in re.findall(_SYMBOL, names):
            said.add((name, _KINDS[order], bound) if order else (name, "integer" if numbers in "NZ" else "real", "0"))
            said |= {(name, "positive" if mark else "nonnegative", "0")} if mark or numbers == "N" else set()
    letters = re.sub(r"\\[a-zA-Z]+", "", match[1])
    is_of_formula = all(name in (match[1] if name[0] == "\\" else letters) for name, _, _ in said)
    return *_split_unit(match[1] if is_of_formula else text), frozenset(said if is_of_formula else ())


def _split_unit(formula: str) -> tuple[str, Quantity]:
    match = _UNIT.fullmatch(formula)
    rest, degree, text, power, *bare = match.groups() if match else (formula, *[None] * 6)
    word = ("°" if degree else "") + (text or next(filter(None, bare), "")) + (f"^{power}" if power else "")
    number, first = read_number(rest), read_quantity(f"1 {word.split(' ')[0]}")
    unit = read_quantity(f"1 {word}") or (first and Quantity(first.value, word))
    is_known = unit is not None and comparable_pairs(unit, _NO_UNIT) and (text or degree) and "," not in rest
    if unit is None or (number is None and (not is_known or _OF_ANGLE.search(rest))):
        return formula, _NO_UNIT
    return rest, unit


def spell(formula: str) -> str:
    r"""
    `formula` as the parser reads all of it, or with a `?` in it, which the parser refuses; both values of `\pm`.

    >>> spell(r"\frac12+\mathrm e"), spell(r"3\ldots"), spell(r"x=1\pm 2")
    ('\\frac{1}{2}+ e', '3?', 'x=1+ 2, 1- 2')
    """
    for pattern, replacement in _COMPILED:
        formula = pattern.sub(replacement, formula)
    plus, minus = (_SIGN.sub(lambda sign: signs[sign[0] in r"\mp∓"], formula) for signs in ("+-", "-+"))  # noqa: B023
    is_one = plus == formula or formula.startswith(r"\{")
    return formula if is_one else f"{plus}, {re.sub(r'^[^=]*=', '', minus)}"
