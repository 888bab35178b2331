# SPDX-License-Identifier: Apache-2.0
"""
Rewrites a formula for math-verify's parser.

What people write and the parser does not know, or takes for something else, is spelled so that it is read in full; what
it would pass over becomes a sign that it refuses.
"""

import re
from collections.abc import Callable

_BASES = dict(zip(("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), "23456789", strict=False))
_BRACES = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"
_FRACTION = r"\\(?:[dtc]?frac|[dt]?binom)(?![a-zA-Z])"
_TEXT = r"\\(?:text(?:rm|normal)?|math(?:rm|it|bf|sf)|mbox|operatorname)\s*"
_TOKEN = r"\s*(\\(?!sqrt|[dtc]?frac)[a-zA-Z]+|[^\s\\{}\[\]()])"  # what a command takes for its argument without braces
# In the order in which they are applied.
_SPELLINGS: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"\\m?(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\.?", ""),
    (r"(?<!\\)\\(?:[ ,;:!]|q?quad(?![a-zA-Z]))", " "),
    (r"(?<![\d.])(\d{1,3}) +(?=\d{3}(?!\d))", r"\1"),
    (rf"{_TEXT}(?:\{{\s*([eijdT])\s*\}}|(?<=\s)([eijd])(?![a-zA-Z]))", r" \1\2"),
    (r"\\gamma(?![a-zA-Z])", r"\\text{smallgamma}"),  # read as Euler's constant
    (
        r"\\[a-zA-Z]+(?:\{[^{}\\]{2,}\})?|I",
        lambda match: r"\text{capitali}" if match[0] == "I" else match[0],
    ),  # as √-1
    (r"\\cbrt(?![a-zA-Z])", r"\\sqrt[3]"),
    (r"^(\s*\\?[a-zA-Z]\w*\s*)(?:\\approx(?![a-zA-Z])|≈)", r"\1="),
    (r"([a-zA-Z])('+)", lambda match: f"{match[1]}_{{{'p' * len(match[2])}}}"),
    (r"(?<!matrix\})\^\s*(?:T(?![a-zA-Z])|\{\s*(?:T|\\top)\s*\}|\\top(?![a-zA-Z]))", "^{(T)}"),  # no transpose
    (r"\\?sqrt\s*(\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))", r"\\sqrt{\1}"),
    (rf"(\\sqrt(?:\[[^\]]*\])?)(?![a-zA-Z\[]){_TOKEN}", r"\1{\2}"),
    (rf"({_FRACTION}){_TOKEN}", r"\1{\2}"),
    (rf"({_FRACTION}\s*{_BRACES}){_TOKEN}", r"\1{\2}"),
    (
        rf"(?<=[\d)])\s*_\s*(?:\{{\s*{_TEXT}\{{\s*(\w+)\s*\}}\s*\}}|{_TEXT}\{{\s*(\w+)\s*\}})",
        lambda match: f"_{{{_BASES.get(match[1] or match[2], '?')}}}",
    ),
    # In another base, a number is another answer.
    (
        r"(?<![\w.^\\])(?:0*(\d+)|\(0*([\dA-F]+)\))\s*_\s*(?:(\d+)|\{\s*(\d+)\s*\})",
        r"\\text{d\1\2b\3\4}",
    ),
    (r"([_^])\s*(\d+)\s+(?=\d)", r"\1{\2}"),
    # The parser passes over these, and takes numbers side by side for a mixed one.
    (r"\.\.|['\"]|\\approx(?![a-zA-Z])|≈|[\d)]\s*_|\^(?:\w|\{[^{}]*\})\s*_|(?<=\d)\s+(?=\.?\d)", "?"),
    (r"\\(?:ldots|phantom|v(?:rule|center|box|skip|space)|hfil)(?![a-zA-Z])", "?"),
    (r"(?:(?<![\w.^\\])\d+|\))\s*(?=[(\[])|\)\s*(?=[\d.])", r"\g<0>\\cdot "),
    (rf"({_FRACTION}\s*{_BRACES}\s*{_BRACES})\s*(?=\\[dtc]?frac|\d)", r"\1\\cdot "),
]
_COMPILED = [(re.compile(pattern), replacement) for pattern, replacement in _SPELLINGS]
_SIGN = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])|±|∓")


def spell(formula: str) -> str:
    r"""
    `formula` as the parser reads all of it, or with a `?` in it, which the parser refuses; both values of `\pm`.

    >>> spell(r"\frac12+\mathrm e"), spell(r"3\ldots"), spell(r"x=1\pm 2")
    ('\\frac{1}{2}+ e', '3?', 'x=1+ 2, 1- 2')
    """
    for pattern, replacement in _COMPILED:
        formula = pattern.sub(replacement, formula)
    plus, minus = (_SIGN.sub(lambda sign: signs[sign[0] in r"\mp∓"], formula) for signs in ("+-", "-+"))  # noqa: B023
    if plus == formula or formula.startswith(r"\{"):
        return formula
    return f"{plus}, {re.sub(r'^[^=]*=', '', minus)}"
