# SPDX-License-Identifier: Apache-2.0
"""
`math`: what is equal, what is refused before math-verify sees it, threads, forks, and formulas that never end.

Some ten seconds: sympy is loaded anew after each process that is ended.
"""

import importlib.util
import os
import signal
import threading
import time

import pytest

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
        ("9^{9^{9^{9}}}", "5"),
        ("9**9**9**9", "5"),
        ("2^{99999999}", "5"),
        ("99999999!", "5"),
        ("5" * 1001, "5"),
    ],
)
def test_lists_prose_partial_readings_and_towers_of_powers_earn_nothing(answer: str, gold: str) -> None:
    """math-verify by itself gives full marks to five of these, and computes the towers for ever."""
    started = time.monotonic()
    assert maths(answer, gold) == 0.0
    assert time.monotonic() - started < 60


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
    verifier = module._Verifier()
    monkeypatch.setattr(module._Verifier, "_shared", verifier)
    monkeypatch.setattr(verifier, "_ask", lambda formulas, seconds: asked.append(tuple(formulas)) or True)
    assert [maths("1+1", "2") for _ in range(5)] == [1.0] * 5
    assert asked == [("2",), ("2", "1+1")]
