# SPDX-License-Identifier: Apache-2.0
"""
`math`: what is equal, what is refused, what is assumed, threads, forks, and formulas that never end.

More pairs stand in `answer_pairs/math.tsv`.

Some ten seconds: sympy is loaded anew after each process that is ended.
"""

import importlib.util
import os
import signal
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_rewards import AnswerReward, answer_reward, answer_score
from omni_rewards import maths as module

pytest.importorskip("math_verify")


def maths(answer: str, gold: str) -> float:
    return answer_score(answer, gold, "math")


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("0.5", r"\frac{1}{2}"),
        (r"\boxed{\frac{2}{4}}", "1/2"),
        ("$x^2+2x+1$", "(x+1)^2"),
        (r"\(2(x+1)\)", "2x+2"),
        (r"\sqrt{8}", r"2\sqrt{2}"),
        ("1,000", "1000"),
        ("x = 5.", "5"),
        ("5", "x=5"),
        (r"\{2, 1\}", r"\{1,2\}"),
        ("x > 3", "3 < x"),
        ("50\\%", "0.5"),
        (r"\sin(x)", r"\sin x"),
        ("10²", "100"),
        (r"x²+√2", r"x^2+\sqrt{2}"),
    ],
)
def test_another_spelling_of_the_same_is_right(answer: str, gold: str) -> None:
    assert maths(answer, gold) == 1.0


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("6", "5"),
        ("$4$ or $5$", "5"),
        ("$4$, $5$", "5"),
        ("4 or 5", "5"),
        ("4, 5", "5"),
        (r"\{4,5\}", "5"),
        (r"\boxed{4} \boxed{5}", "5"),
        (r"5 \text{ or } 6", "5"),
        (r"5 \approx 6", "5"),
        (r"5 \\ 6", "5"),
        ("5?6", "5"),
        ("5~6", "5"),
        ("4|5", "4"),
        ("6 = 5", "5"),
        ("x = 4 = 5", "5"),
        ("y = 5", "x = 5"),
        ("I think it is 5", "5"),
        ("nan", "5"),
        ("5/0", "5"),
        ("$", "5"),
        ("[1, 2]", "(1, 2)"),
        (r"\{1, 2\}", "(1, 2)"),
        ("(1, 2)", r"\{1, 2\}"),
        ("x^2=-2", "x^2=-1"),
        ("2^T", "2"),
        ("f(x)=2x", "f'(x)=2x"),
        ("2 1/2", r"\frac{3}{2}"),
        ("2(3)", "5"),
        (r"\sin 30", r"\sin 30^\circ"),
        ("10²", "102"),
        ("5或6", "5"),
        ("1 or 2", "(1, 2)"),
        ("1; 2", "(1, 2)"),
        (r"6 \equiv 5", "5"),
        ("6≡5", "5"),
        ("9^{9^{9^{9}}}", "5"),
        ("9**9**9**9", "5"),
        ("2^{99999999}", "5"),
        ("99999999!", "5"),
        ("5" * 1001, "5"),
    ],
)
def test_lists_prose_partial_readings_and_towers_of_powers_earn_nothing(answer: str, gold: str) -> None:
    """
    math-verify by itself gives full marks to half of these, and computes the towers for ever.

    Mutants: a point taken for a set; two equations without a solution taken for one; a spelling taken out.
    """
    started = time.monotonic()
    assert maths(answer, gold) == 0.0
    assert time.monotonic() - started < 60


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(-400, 400))
def test_numbers_of_any_size_are_equal_exactly_or_not_at_all(a: int, b: int, power: int) -> None:
    """
    The right digits are right whatever power of ten they are of, and other digits are wrong.

    Mutants: math-verify's own `sympy_numeric_eq`, which rounds to six decimals; `evalf(chop=True)` of the difference.
    """
    gold = rf"{a}\times10^{{{power}}}"
    assert maths(rf"{b}\times10^{{{power}}}", gold) == float(a == b)
    assert maths(rf"{a}0 \cdot 10^{{{power - 1}}}", gold) == 1.0
    assert maths(rf"\frac{{{b}x}}{{{10**6}!}}", rf"\frac{{{a}x}}{{{10**6}!}}") == 0.0 or a == b


@pytest.mark.parametrize(
    ("answer", "gold", "score"),
    [
        (r"\frac{1}{3}", "0.333333", 0.0),
        (r"\frac{2}{3}", "0.6666666", 0.0),
        (r"\frac{22}{7}", "3.14286", 0.0),
        (r"\frac{1}{900000}", "0.000001", 0.0),
        (r"\log_{10} 2", "0.301030", 0.0),
        ("1", "0.9999999", 0.0),
        (r"\frac{1}{2}", "0.5000001", 0.0),
        ("0.1234568", "0.1234567", 0.0),
        ("0.33333334", r"\frac{1}{3}", 0.0),
        ("1234567.1", "1234567", 0.0),
        (r"\sqrt{2}+10^{-100}", r"\sqrt{2}", 0.0),
        (r"\sqrt{2+10^{-300}}", r"\sqrt{2}", 0.0),
        (r"\sqrt{2+e^{-1000}}", r"\sqrt{2}", 0.0),
        (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}", 1.0),
    ],
)
def test_a_rounded_decimal_is_another_number(answer: str, gold: str, score: float) -> None:
    """Mutant: numbers compared to 15 digits."""
    assert maths(answer, gold) == maths(gold, answer) == score


UNREADABLE = [
    r"3\ldots",
    "3...",
    "3…",
    r"3\cdots",
    r"4\foo",
    r"4\oplus 2",
    r"10_n",
    "2 3",
    r"2\phantom{3}",
    r"30^\circ 15'",
    r"\forall x>0, f(x)=0",
    r"\exists x, x=2",
    r"x=2 \iff y=1",
    r"x=2 \implies y=1",
    r"x>0 \land x<2",
    r"\neg x=2",
    r"2\pmod 7",
    r"A \subseteq B",
    r"\frac{22}{7} \approx 3.14",
    r"1, 2, \ldots, n",
    r"3.\overline{3}",
    "3.(3)",
    r"3.\dot{3}",
    r"3.1\bar{6}",
    r"101_{\text{two}}",
]


@pytest.mark.parametrize("formula", UNREADABLE)
def test_what_cannot_be_read_in_full_is_not_read_and_the_remedies_of_its_error_work(formula: str) -> None:
    """Mutants: math-verify's `parse`, which reads what it knows; a refused sign taken out of the spellings."""
    for gold in ("2", "3", "4", "5", "x=2", "f(x)=0", "x>0", "y=1", r"\frac{22}{7}", "3.14", "1, 2"):
        assert maths(formula, gold) == 0.0
    with pytest.raises(ValueError, match="read in full") as raised:
        maths(formula, formula)
    for remedy in ("label", "free-form"):
        assert f'"{remedy}"' in str(raised.value)
        assert answer_score(formula, formula, remedy) == 1.0


@pytest.mark.parametrize(
    "part", [r"\mathrm i", r"\text{i}", r"\mathrm{e}", r"\operatorname{e}", r"\cbrt{2}", r"\sqrt(2)"]
)
@pytest.mark.parametrize("whole", ["5{}", "2+{}", r"1-\frac1{{{}}}", "x={}", "[0, {}]"])
def test_no_part_of_a_formula_is_dropped(whole: str, part: str) -> None:
    """
    Another part makes another formula, and the same part in another spelling the same one.

    Mutants: `units=True` in math-verify's normal form; a spelling of `_formulas.py` taken out.
    """
    gold = whole.format(part)
    plain = {r"\cbrt{2}": r"\sqrt[3]{2}", r"\sqrt(2)": r"\sqrt{2}"}.get(part, part.strip("}")[-1])
    assert maths(whole.format(plain), gold) == 1.0
    for other in ("1", "0", "{-" + plain + "}", plain + "^2"):
        assert maths(whole.format(other), gold) == 0.0


@pytest.mark.parametrize(
    "given",
    [
        ", n>0",
        r" \text{ for } n > 0",
        r" \quad (n>0)",
        r", \text{ where } n > 0",
        r", n \in \mathbb{N}^*",
        r" \text{ for all } n \geq 1",
        "，其中 n>0",
        " if 0 < n",
    ],
)
def test_a_condition_of_the_gold_answer_is_assumed_and_one_of_the_answer_alone_is_not(given: str) -> None:
    """
    `√(1/n)` is `1/√n` where the gold answer says `n > 0`, and nowhere else.

    Mutants: letters are positive by default; an answer's conditions are assumed; they are dropped unread.
    """
    gold, right = r"\sqrt{1/n}", r"\frac1{\sqrt n}"
    assert maths(right, gold + given) == maths(right + given, gold + given) == 1.0
    assert maths(right, gold) == maths(right + given, gold) == 0.0
    for wrong in (r"-\frac1{\sqrt n}", right + ", m>0", right + ", n<0", right + ", n \\leq 5", "n>0"):
        assert maths(wrong, gold + given) == 0.0


def test_a_bound_says_only_what_follows_from_it() -> None:
    """Mutants: the number of a bound is not looked at; a letter of which anything is said is positive."""
    gold, answer = r"\sqrt{1/n}", r"\frac1{\sqrt n}"
    for bound in ("n > -1", "n < 5", r"n \neq 0", r"n \in \mathbb{R}", r"n \in \mathbb{Z}"):
        assert maths(answer, f"{gold}, {bound}") == 0.0
        assert maths(r"\sqrt{\frac1n}", f"{gold}, {bound}") == 1.0
    assert maths(answer, f"{gold}, n > 3") == 1.0


def test_inequalities_and_further_solutions_are_no_conditions() -> None:
    """Mutant: whatever follows a comma is a condition, and half an answer is enough."""
    for gold in ("x > 3, x < 5", "x=5, x>10", "x=2, y>0"):
        first, last = gold.split(", ")
        assert maths(f"{last}, {first}", gold) == 1.0
        assert maths(first, gold) == maths(first.removeprefix("x="), gold) == 0.0


@pytest.mark.parametrize(
    ("gold", "wrong"), [("R-r", "r-R"), ("x=5", "X=5"), ("1", r"\frac{v}{V}"), (r"\Delta", r"\delta"), ("I^2R", "-R")]
)
def test_a_letter_is_itself(gold: str, wrong: str) -> None:
    """Mutants: letters in lower case throughout; `I` as the square root of -1."""
    assert maths(wrong, gold) == 0.0
    assert maths(gold, gold) == 1.0


def test_a_number_has_its_base_and_a_unit_its_size() -> None:
    """Mutants: the base of a number dropped, as by the parser; units dropped from both sides."""
    for same in ("101_{2}", "(101)_2", "0101_2"):
        assert maths(same, "101_2") == 1.0
    for other in ("101_3", "101", "5", "111_2", "12_3", r"101_\text{two}"):
        assert maths(other, "101_2") == 0.0
    for same in ("5", r"5\,\mathrm{cm}", r"50 \text{ mm}"):
        assert maths(same, r"5 \text{ cm}") == 1.0
    for other in (r"5 \text{ m}", r"5 \text{ kg}", r"5 \text{ cm}^2", "5t", r"5 \text{ or } 6"):
        assert maths(other, r"5 \text{ cm}") == 0.0


def test_it_works_off_the_main_thread_and_in_many_threads_at_once() -> None:
    """math-verify's own time limit is a signal, and raises there."""
    scores: dict[int, float] = {}

    def work(k: int) -> None:
        scores[k] = maths(f"{k}+{k}", str(2 * k if k % 2 else 2 * k + 1))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scores == {k: float(k % 2) for k in range(8)}


def test_a_formula_that_takes_too_long_earns_nothing_and_the_next_one_is_read(monkeypatch) -> None:
    """Past the check for towers: the process is ended in the middle of a single operation and started anew."""
    monkeypatch.setattr(module, "_HUGE", module.re.compile(r"(?!)"))
    verifier = module._Verifier.shared()
    assert maths("2+3", "5") == 1.0
    before = verifier._process
    reward = AnswerReward(math_seconds=0.5)
    assert reward.read("8^{9^{9^{9}}}", "5", "math").score == 0.0
    assert before.wait(timeout=60) == module._ENDED_BY_LIMIT
    assert maths("3+3", "6") == 1.0
    assert verifier._process is not before


def test_a_process_that_dies_for_another_reason_is_an_error_and_no_verdict(monkeypatch) -> None:
    """Mutant: every end is taken for the limit, and a right answer earns nothing."""
    verifier = module._Verifier.shared()
    assert maths("4+3", "7") == 1.0
    os.kill(verifier._process.pid, signal.SIGSTOP)  # so that it cannot answer before it dies
    threading.Timer(0.5, verifier._process.kill).start()
    with pytest.raises(RuntimeError, match="ended with status -9"):
        maths("4+4", "8")
    assert maths("4+4", "8") == 1.0


def test_a_forked_process_asks_a_verifier_of_its_own() -> None:
    """Mutant: one verifier for both: two readers on one pipe."""
    parent = module._Verifier.shared()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, str(module._Verifier.shared() is parent).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 10) == b"False"
    os.close(read), os.close(write)
    assert module._Verifier.shared() is parent


def test_without_the_library_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setattr(module._Verifier, "_shared", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "omni-grpo\[math\]"'):
        maths("5", "5")
    completion = "<think>a</think><answer>B</answer>"
    assert answer_reward([completion], ["B"], ["label"]) == [1.0]  # the other types need no library


def test_the_same_question_is_computed_once(monkeypatch) -> None:
    asked: list[tuple] = []
    monkeypatch.setattr(module._Verifier, "_ask", lambda self, formulas, seconds: asked.append(formulas) or True)
    monkeypatch.setattr(module._Verifier, "_shared", module._Verifier())
    assert [maths("1+1", "2") for _ in range(5)] == [1.0] * 5
    assert asked == [(r"\frac{2}{1}",), (r"\frac{2}{1}", "1+1")]
