# SPDX-License-Identifier: Apache-2.0
"""
The child process of `maths.py`: reads a line of JSON, one or two formulas, and writes whether they can be read and are
equal.

math-verify looks for something that it can read in a text, and holds numbers for equal to six places. Here its parser
reads a whole formula or none, and expressions are compared exactly; which sets, intervals and equations are equal is
left to math-verify. Lines after the first formula say of its letters what may be assumed, such as `n positive 0`.

The process ends itself where a line takes more processor time than it may, whatever it is doing, so that none is left
behind computing when the parent is gone.
"""

import importlib
import json
import logging
import os
import re
import resource
import signal
import sys
from functools import lru_cache
from typing import Any

_MAX_BYTES = 8 << 30
_DIGITS = 1000  # to which numbers are compared that no simpler form shows to be equal, and twice the digits written
_WARM_UP = (r"\frac{1}{2}", "x=5", r"\{4,5\}", "(1,2)", "9^{2}", r"\sqrt{2}", r"\text{yes}", "2 x", r"\pm 2", "x>3")
_OF_ANGLE = re.compile(r"sin|cos|tan|cot|sec|csc")
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_SET = re.compile(r"^\\\{|\bor\b")


def serve() -> None:
    """Answer until the input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the libraries print is no reply
    logging.disable(logging.CRITICAL)
    sys.set_int_max_str_digits(0)  # the limit of processor time holds for long numbers, too
    judge = _Judge()
    for formula in _WARM_UP:  # the grammar is loaded piece by piece, which is not to count for a formula
        judge.are_equal([formula])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(
        resource.RLIMIT_AS, (_MAX_BYTES if hard == resource.RLIM_INFINITY else min(_MAX_BYTES, hard), hard)
    )
    replies.write("ready\n")
    replies.flush()
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])  # the signal ends the process
        replies.write(json.dumps(judge.are_equal(request["formulas"])) + "\n")
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.flush()


class _Judge:
    """math-verify's parser and its rules of comparison, over exact arithmetic."""

    def __init__(self) -> None:
        self._sympy: Any = importlib.import_module("sympy")
        self._latex: Any = importlib.import_module("latex2sympy2_extended.latex2sympy2")
        self._grader: Any = importlib.import_module("math_verify.grader")
        self._latex._Latex2Sympy.parse_number = self._parse_number
        self._are_letters_of = self._grader.sympy_compare_symbols
        self._grader.sympy_numeric_eq = self._grader.sympy_symbolic_eq = self._same
        self._grader.sympy_compare_symbols = self._same_symbol
        self._grader.solve = self._solve
        self._read = lru_cache(maxsize=64)(self._read)  # a gold formula comes once for each of its answers

    def are_equal(self, formulas: list[str]) -> bool:
        """Whether the first formula can be read, and the last one can be read and is equal to it."""
        formulas[0], *said = formulas[0].split("\n")
        is_real = not self._grader.should_treat_as_complex(" ".join(formulas)) or None
        pair = [self._read(formula, is_real) for formula in (formulas[0], formulas[-1])]
        for text, other in zip((formulas[0], formulas[-1]), reversed(pair), strict=True):
            if other is None or (_SET.search(text) and isinstance(other, (self._sympy.Tuple, self._sympy.Interval))):
                return False  # math-verify takes a point for a set
        assumed: dict[str, dict[str, bool]] = {}
        for name, kind, bound in (line.lstrip("\\").split() for line in said):
            # What is above a number that is not below zero is above zero.
            is_of_use = bound == "0" or (bound.isdigit() and kind in ("positive", "nonnegative"))
            assumed.setdefault(name, {})[kind if is_of_use else "real"] = True
        symbols = {symbol for expression in pair for symbol in expression.free_symbols if symbol.name in assumed}
        known = {
            symbol: self._sympy.Symbol(symbol.name, **{"real": True, **assumed[symbol.name]}) for symbol in symbols
        }
        return bool(self._grader.verify(*(expression.xreplace(known) for expression in pair), timeout_seconds=None))

    def _read(self, formula: str, is_real: bool | None) -> Any:
        """The expression that a formula is, or `None`."""
        options = {"is_real": is_real, "convert_degrees": bool(_OF_ANGLE.search(formula))}
        case = self._latex.ConversionConfig(lowercase_symbols=False)
        normal = self._latex.NormalizationConfig(malformed_operators=True, boxed="none")
        try:
            latex = self._latex.normalize_latex(formula, normal)
            tokens = self._latex._Latex2Sympy().create_parser(latex).getTokenStream()
            tokens.fill()
            # \cdots is no \cdot
            if any(_COMMAND.fullmatch(t.text) and latex[t.stop + 1 : t.stop + 2].isalpha() for t in tokens.tokens):
                return None
            found = self._latex.latex2sympy(latex, normalization_config=None, conversion_config=case, **options)
        except Exception:  # what the parser and sympy raise is often no more than that
            return None
        return found if isinstance(found, (self._sympy.Basic, self._sympy.MatrixBase)) else None

    def _parse_number(self, text: str) -> Any:
        return self._sympy.Rational(text.replace(",", ""))

    def _solve(self, *equation: Any) -> Any:
        return self._sympy.solve(*equation) or [self._sympy.Dummy()]  # two equations without a solution are not one

    def _same(self, a: Any, b: Any, *_digits: int) -> bool:
        """Whether two expressions are exactly equal."""
        if isinstance(a, self._sympy.MatrixBase):
            a, b = a.doit(), b.doit()
            return a.shape == b.shape and all(map(self._same, a.flat(), b.flat()))
        imaginary = {symbol: self._sympy.I for symbol in a.free_symbols | b.free_symbols if symbol.name == "i"}
        a, b = a.doit().subs(imaginary), b.doit().subs(imaginary)
        difference = a - b
        if difference.free_symbols:
            return bool(self._sympy.simplify(difference).is_zero)
        written = sum(n.p.bit_length() + n.q.bit_length() for n in difference.atoms(self._sympy.Rational)) // 3
        parts = difference.evalf(2, maxn=_DIGITS + written).as_real_imag()  # a precision of 1: no digit is certain
        return all(part == 0 or (part.is_Float and part._prec == 1) for part in parts)

    def _same_symbol(self, a: Any, b: Any) -> bool:
        r"""The same where one of them is a letter; `\text{even}` is one, and `even` is read as a product."""
        return self._same(a, b) or (a.is_Symbol != b.is_Symbol and self._are_letters_of(a, b))


if __name__ == "__main__":
    serve()
