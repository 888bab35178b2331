# SPDX-License-Identifier: Apache-2.0
"""
Scores of mathematical answers, by math-verify in a process of its own.

math-verify stops long computations with a signal, which works in the main thread alone and never inside one long
operation such as 9**9**9. A child process has a main thread, and can be ended in the middle of anything.
"""

import atexit
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from ._formulas import Parts, spell, take_apart
from ._scored import UNREADABLE, Scored
from .quantities import comparable_pairs

_MAX_LENGTH = 1000  # characters
_START_SECONDS = 300  # sympy takes its time to load on a busy machine
_ENDED_BY_LIMIT = -signal.SIGPROF
_WRAPPED = re.compile(r"\$\$(.+)\$\$|\$(.+)\$|\\\((.+)\\\)|\\\[(.+)\\\]|\\boxed\{(.+)\}", re.DOTALL)
_FUNCTIONS = "(?:arc)?(?:sin|cos|tan)h?|cot|sec|csc|log|exp|sqrt|max|min|lim|mod|gcd|lcm|inf|[pb]?matrix"
_WORD = re.compile(rf"(?<![\\a-zA-Z])(?!(?:{_FUNCTIONS})(?![a-zA-Z]))[a-zA-Z]{{3,}}")
# What sets two answers apart, or is one side of an equation for math-verify.
_SEPARATOR = re.compile(r"[;:≡≈≠]|\\(?:equiv|approx|neq?)(?![a-zA-Z])|(?<![a-zA-Z])or(?![a-zA-Z])")
_NAME = re.compile(r"\s*\\?[a-zA-Z](?:[a-zA-Z]*|_\w)(?:\([a-z]\))?\s*")
_ASCII = {**{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}, **str.maketrans("、−~", ",- ")}
_HUGE = re.compile(r"\^\s*\{?\s*-?[0-9]{5,}|[0-9]\s*\}?\s*\^[^+=}\\,*\s]*[0-9]\s*\}?\s*\^|[0-9]{5,}\s*!|!\s*!")


def _is_expression(text: str, gold: str) -> bool:
    """
    Whether `text` is one formula, and no prose, list of formulas, or more than 1,000 letters.

    Words of three letters or more, signs that set answers apart, and equations with more than a name on the left, are
    such only where `gold` has them.
    """
    if not text or len(text) > _MAX_LENGTH or "$" in text or "\\boxed" in text or "\n" in text:
        return False
    for pattern in (_WORD, _SEPARATOR):
        if set(pattern.findall(text.casefold())) - set(pattern.findall(gold.casefold())):
            return False
    if _HUGE.search(text) and text != gold:
        return False
    left, equals, right = text.partition("=")
    return not equals or "=" in gold or ("=" not in right and _NAME.fullmatch(left) is not None)


def _unwrap(text: str) -> str:
    text = re.sub(r"(?<!\.)\.$|。$", "", text.translate(_ASCII).strip()).strip()
    while len(text) <= _MAX_LENGTH and (match := _WRAPPED.fullmatch(text)):
        text = next(group for group in match.groups() if group is not None).strip()
    return text


@lru_cache(maxsize=4096)  # as the verdicts are
def _read(text: str, gold: str = "") -> Parts | None:
    """The parts of an answer, its formula spelled for the parser and fit to be read beside that of `gold`."""
    text = _unwrap(text)
    formula, unit, said = take_apart(text if len(text) <= _MAX_LENGTH else "")
    formula = spell(_unwrap(formula))
    return (formula, unit, said) if _is_expression(formula, gold or formula) else None


def score_maths(answer: str, solution: str, seconds: float = 5.0) -> Scored:
    """
    Whether `answer` is one formula equal to the gold one, as it stands or by what the gold one says of its letters.

    Numbers are equal exactly; of their units, one that a side leaves out is not asked of the other. A formula that
    takes more than `seconds` of processor time to read and compare earns 0, as does one that cannot be read in full.
    Raises `ValueError` for such a gold answer, `ImportError` where math-verify is not installed.
    """
    gold, ask = _read(solution), _Verifier.shared().ask
    is_prose = gold is None or len(set(_WORD.findall(gold[0]))) > 1
    if gold is None or is_prose or not ask((gold[0],), seconds):
        raise ValueError(
            f"gold answer {solution!r} is no formula that math-verify can read in full; correct it, or give the row "
            'another problem_type, such as "label", which compares the text as it stands, or "free-form"'
        )
    formula, unit, said = gold
    found, found_unit, found_said = _read(answer, formula) or ("", unit, said)
    if not found or not found_said <= said:
        return UNREADABLE
    assumed = "".join("\n" + " ".join(line) for line in sorted(said))
    for x, y in comparable_pairs(found_unit, unit):
        expected, given = _scaled(formula, y), _scaled(found, x)
        if expected == given or ask((expected + assumed, given), seconds):
            return Scored(1.0, answer.strip())
    return Scored(0.0, answer.strip())


def _scaled(formula: str, factor: Fraction) -> str:
    if factor == 1:
        return formula
    return rf"({formula.rpartition('=')[2]}) \cdot \frac{{{factor.numerator}}}{{{factor.denominator}}}"


class _Verifier:
    """A child process that runs `_maths_worker.py`; one at a time, started anew after a formula was too much for it."""

    _shared: "_Verifier | None" = None
    _shared_lock = threading.Lock()

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self.ask = lru_cache(maxsize=4096)(self._ask)

    @classmethod
    def shared(cls) -> "_Verifier":
        with cls._shared_lock:
            # After a fork the pipes belong to the parent process.
            if cls._shared is None or cls._shared._pid != os.getpid():
                cls._shared = cls()
                atexit.register(cls._shared.stop)
            return cls._shared

    def _ask(self, formulas: tuple[str, ...], seconds: float) -> bool:
        """Whether the first formula can be read, and a second one can be read and is equal to it."""
        request = json.dumps({"formulas": formulas, "seconds": seconds}) + "\n"
        with self._lock:
            process = self._process if self._process and self._process.poll() is None else self._start()
            limit, started = 20 * seconds + 30, time.monotonic()  # of the clock: the machine may be busy
            if reply := _exchange(process, request, limit):
                return bool(json.loads(reply))
            status, is_late = process.wait(), time.monotonic() - started >= limit
            self.stop()
            if not is_late and status != _ENDED_BY_LIMIT:
                raise RuntimeError(f"math-verify's process ended with status {status} at {formulas}")
            return False

    def _start(self) -> "subprocess.Popen[str]":
        if importlib.util.find_spec("math_verify") is None:
            raise ImportError('problem_type "math" needs math-verify: pip install "omni-grpo[math]"')
        worker = Path(__file__).with_name("_maths_worker.py")
        process = self._process = subprocess.Popen(
            [sys.executable, "-P", str(worker)],  # -P: this folder's modules stay out of the way of the library's
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        if not _exchange(process, "", _START_SECONDS):
            self.stop()
            raise RuntimeError(f"math-verify did not start; try: {sys.executable} -P {worker}")
        return process

    def stop(self) -> None:
        """End the child process, if there is one and it is not a forked process that ends."""
        if self._process is not None and self._pid == os.getpid():
            with self._process as process:  # closes the pipes and waits
                process.kill()
            self._process = None


def _exchange(process: "subprocess.Popen[str]", request: str, seconds: float) -> str:
    """The process's next line, after `request`; empty where it ended, by itself or after so many seconds."""
    assert process.stdin is not None and process.stdout is not None
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        process.stdin.write(request)
        process.stdin.flush()
        return process.stdout.readline()
    finally:
        timer.cancel()
