# SPDX-License-Identifier: Apache-2.0
"""
Takes a written answer apart for math-verify's parser: the formula, a number's unit, and what is said of letters.

What people write and the parser does not know, or takes for something else, is spelled so that it is read in full; what
it would pass over becomes a sign that it refuses.
"""

import re
from collections.abc import Callable
from fractions import Fraction

from .quantities import Quantity, read_quantity

_TEXT = r"\\(?:text(?:rm|bf|it|normal)?|math(?:rm|it|bf|sf)|mbox|operatorname)\s*"
_BRACES = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"
_FRACTION = r"\\(?:[dtc]?frac|[dt]?binom)(?![a-zA-Z])"
_TOKEN = r"\s*(\\(?!sqrt|[dtc]?frac)[a-zA-Z]+|[^\s\\{}\[\]()])"  # what a command takes for its argument without braces


# In the order in which they are applied.
_SPELLINGS: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"\\m?(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\.?", ""),
    (r"(?<!\\)\\(?:[ ,;:!]|q?quad(?![a-zA-Z]))", " "),
    (r"(?<![\d.])(\d{1,3}) +(?=\d{3}(?!\d))", r"\1"),
    (rf"{_TEXT}(?:\{{\s*([eijdT]|-?[\d.,]+)\s*\}}|(?<=\s)([eijd])(?![a-zA-Z]))", r" \1\2"),
    (r"\\text\{[^{}]*\}", lambda match: match[0].lower()),
    (r"\\gamma(?![a-zA-Z])", r"\\text{smallgamma}"),  # read as Euler's constant
    # Read as √-1.
    (r"\\[a-zA-Z]+(?:\{[^{}\\]{2,}\})?|I", lambda match: r"\text{capitali}" if match[0] == "I" else match[0]),
    (r"\\cbrt(?![a-zA-Z])", r"\\sqrt[3]"),
    (r"\\lg(?![a-zA-Z])", r"\\log_{10}"),
    (r"√", r"\\sqrt "),
    (r"[²³]", lambda match: "^{2}" if match[0] == "²" else "^{3}"),
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
    # A number in another base is a name of its own: the same number in base ten is another answer.
    (r"(?<![\w.^\\])(?:0*(\d+)|\(0*([\dA-F]+)\))\s*_\s*(?:(\d+)|\{\s*(\d+)\s*\})", r"\\text{d\1\2b\3\4}"),
    (r"([_^])\s*(\d+)\s+(?=\d)", r"\1{\2}"),
    # The parser passes over these, and takes numbers side by side for a mixed one.
    (r"\.(?!\d)|\.\d*\s*\\(?:overline|bar|dot)|['\"≈]|[\d)]\s*_|\^(?:\w|\{[^{}]*\})\s*_|(?<=\d)\s+(?=\.?\d)", "?"),
    (r"\\(?:approx|ldots|phantom|v(?:rule|center|box|skip|space)|hfil)(?![a-zA-Z])", "?"),
    (r"(?:(?<![\w.^\\])\d+|\))\s*(?=[(\[])|\)\s*(?=[\d.])", r"\g<0>\\cdot "),
    (rf"({_FRACTION}\s*{_BRACES}\s*{_BRACES})\s*(?=\\[dtc]?frac|\d)", r"\1\\cdot "),
]
_SIGN = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])|±|∓")

_GAP = r"(?:\s|\\[,;:! ]|\\q?quad(?![a-zA-Z]))*"
# What makes letters behind a number others than a unit: 5t is a product, 5! no end of a sentence.
_NO_UNIT = re.compile(r"[$!]|\.$|\d(?:(?![eE][+-]?\d)[a-zA-Z]|\s+[a-zA-Z](?![a-zA-Z]))")

_MEASURED = re.compile(rf"(.*?[^\s\\_^{{(]){_GAP}({_TEXT}\{{[^{{}}]{{2,}}\}}(?:\^\{{?[23]\}}?)?)")

_ONE = Quantity(Fraction(1), "")
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
    The parts of `text`; a number is read with its unit as a `numerical` answer is.

    >>> take_apart(r"\sqrt{1/n} \text{ for } n > 0")[2], take_apart(r"2\pi \text{ cm}")[1].unit
    (frozenset({('n', 'positive', '0')}), 'cm')
    """
    if number := _read_number(text):
        formula = rf"\frac{{{number.value.numerator}}}{{{number.value.denominator}}}"
        return formula, number._replace(value=Fraction(1)), frozenset()
    match = _MEASURED.fullmatch(text)
    if match and (unit := read_quantity(f"1 {match[2]}")) and _is_measured(unit, text):
        return match[1], unit, frozenset()
    match = _SAID.fullmatch(re.sub(rf"\b0\s*<\s*({_SYMBOL})", r"\1>0", text.replace("$", " ").strip()))
    # Of several inequalities none is said of the others, and x=1, x>3 are solutions.
    said: set[tuple[str, str, str]] = set()
    if match is None or re.search(_ORDER, match[1]) or re.match(rf"\s*{re.escape(match[3])}\s*=", match[1]):
        return text, _ONE, frozenset()
    for names, order, bound, numbers, mark in re.findall(_CONDITION, match[2]):
        for name in re.findall(_SYMBOL, names):
            said.add((name, _KINDS[order], bound) if order else (name, "integer" if numbers in "NZ" else "real", "0"))
            said |= {(name, "positive" if mark else "nonnegative", "0")} if mark or numbers == "N" else set()
    letters = re.sub(r"\\[a-zA-Z]+", "", match[1])
    is_of_formula = all(name in (match[1] if name[0] == "\\" else letters) for name, _, _ in said)
    return (match[1], _ONE, frozenset(said)) if is_of_formula else (text, _ONE, frozenset())


def _read_number(text: str) -> Quantity | None:
    """A number with a unit that is known, in a command for text, or Chinese."""
    found = None if _NO_UNIT.search(text) else read_quantity(text)
    if found is None or not found.unit or found.unit[0] > "\u2fff" or _is_measured(found, text):
        return found
    return found if len(found.unit) > 1 and re.search(_TEXT, text) else None


def _is_measured(number: Quantity, text: str) -> bool:
    """Whether the unit is known, one of a single letter in the case that it has: T is no ton."""
    unit = number.unit
    return number.measure is not None and (len(unit) > 1 or not unit.isalpha() or unit in re.sub(_TEXT, "", text))


def spell(formula: str) -> str:
    r"""
    `formula` as the parser reads all of it, or with a `?` in it, which the parser refuses; both values of `\pm`.

    >>> spell(r"\frac12+\mathrm e"), spell(r"3\ldots"), spell(r"x=1\pm 2")
    ('\\frac{1}{2}+ e', '3?', 'x=1+ 2, 1- 2')
    """
    for pattern, replacement in _SPELLINGS:
        formula = re.sub(pattern, replacement, formula)
    plus, minus = (_SIGN.sub(lambda sign: signs[sign[0] in r"\mp∓"], formula) for signs in ("+-", "-+"))  # noqa: B023
    is_one = plus == formula or formula.startswith(r"\{")
    return formula if is_one else f"{plus}, {re.sub(r'^[^=]*=', '', minus)}"
