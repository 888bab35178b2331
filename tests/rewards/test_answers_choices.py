# SPDX-License-Identifier: Apache-2.0
"""How choices are read, and what is earned by answers that know nothing of the gold set."""

from collections.abc import Iterator
from itertools import combinations
from statistics import fmean

import pytest

from omni_rewards import AnswerReward, answer_score

OPTIONS = ["A. praise", "B. taunt", "C. calm, patient", "D. He asks: why?"]
BARE = ["praise", "taunt", "calm, patient", "He asks: why?"]
SIZES = range(2, 7)


def letters(n: int) -> str:
    return "ABCDEF"[:n]


def subsets(n: int) -> Iterator[str]:
    return (",".join(chosen) for k in range(1, n + 1) for chosen in combinations(letters(n), k))


def score(answer: str, gold: str, n: int, **settings) -> float:
    options = [f"{letter}. text {letter}" for letter in letters(n)]
    return AnswerReward(**settings).read(answer, gold, "emer_ov_mc", options).score


@pytest.mark.parametrize("n", SIZES)
def test_choosing_everything_earns_no_more_than_a_blind_guess_for_every_gold_set(n: int) -> None:
    """Mutant: plain F1, under which choosing all of six earns 0.29, 0.5, 0.67, 0.8 for one to four right ones."""
    everything = ",".join(letters(n))
    for gold in subsets(n):
        if gold == everything:
            continue
        assert score(everything, gold, n) == 0.0
        blind = fmean(score(guess, gold, n) for guess in subsets(n))
        assert score(everything, gold, n, chance_corrected=False) > 0.0 <= score(everything, gold, n) < blind


@pytest.mark.parametrize("n", SIZES)
def test_only_the_gold_set_earns_the_maximum(n: int) -> None:
    for gold in subsets(n):
        assert [answer for answer in subsets(n) if score(answer, gold, n) == 1.0] == [gold]


@pytest.mark.parametrize("n", SIZES)
def test_before_it_is_cut_off_at_zero_every_blind_answer_earns_zero_on_average(n: int) -> None:
    """The correction is for chance at the answer's own size: summed over all answers of a size, gains equal losses."""
    for gold in subsets(n):
        k = len(gold.split(","))
        if k == n:
            continue
        for s in range(1, n):
            raw = []
            for chosen in combinations(letters(n), s):
                f1 = score(",".join(chosen), gold, n, chance_corrected=False)
                expected = 2 * s * k / (n * (s + k))
                raw.append((f1 - expected) / (1 - expected))
                assert score(",".join(chosen), gold, n) == pytest.approx(max(0.0, raw[-1]))
            assert sum(raw) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_a_right_option_more_never_costs_and_a_wrong_one_never_pays(n: int) -> None:
    for gold in subsets(n):
        for answer in subsets(n):
            for letter in set(letters(n)) - set(answer):
                more = score(f"{answer},{letter}", gold, n)
                if letter in gold:
                    assert more >= score(answer, gold, n)
                else:
                    assert more <= score(answer, gold, n)


def test_where_every_option_is_gold_the_score_is_plain_f1() -> None:
    assert score("A,B,C", "A,B,C", 3) == 1.0
    assert score("A", "A,B,C", 3) == 0.5


def test_listing_an_option_again_changes_nothing() -> None:
    for answer in subsets(4):
        for gold in subsets(4):
            assert score(f"{answer},{answer}", gold, 4) == score(answer, gold, 4)
            assert score(answer, f"{gold},{gold}", 4) == score(answer, gold, 4)


def test_several_options_with_commas_in_their_texts_are_told_apart() -> None:
    options = ["calm, patient", "angry, loud", "neither"]
    for answer in ("A. calm, patient, B. angry, loud", "calm, patient; angry, loud", "A, B", "(a) and (b)"):
        assert answer_score(answer, "A,B", "emer_ov_mc", options) == 1.0, answer


@pytest.mark.parametrize("options", [OPTIONS, BARE, [f"({option[0]}) {option[3:]}" for option in OPTIONS]])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("B", 1.0),
        ("b", 1.0),
        (" B\n", 1.0),
        ("(B)", 1.0),
        ("B.", 1.0),
        ("B)", 1.0),
        ("(B).", 1.0),
        ("B. taunt", 1.0),
        ("B: Taunt.", 1.0),
        ("(B) taunt", 1.0),
        ("taunt", 1.0),
        ("Taunt.", 1.0),
        ("\uff22", 1.0),  # full-width B
        ("A", 0.0),
        ("praise", 0.0),
        ("", 0.0),
        ("E", 0.0),
        ("A,B,C,D", 0.0),  # the attack no format check can see
        ("A, B", 0.0),
        ("B, B", 0.0),
        ("A B", 0.0),
        ("A. B", 0.0),
        ("AB", 0.0),
        ("A or B", 0.0),
        ("B. praise", 0.0),  # letter and text disagree
        ("B. taunt or praise", 0.0),
        ("not B", 0.0),
        ("Because he smiles", 0.0),  # begins with a b
    ],
)
def test_multiple_choice(answer: str, expected: float, options: list[str]) -> None:
    assert answer_score(answer, "B", "multiple choice", options) == expected


def test_option_text_with_a_comma_or_colon_is_one_option() -> None:
    assert answer_score("calm, patient", "C", "multiple choice", OPTIONS) == 1.0
    assert answer_score("C. calm, patient", "C", "emer_ov_mc", OPTIONS) == 1.0
    assert answer_score("He asks: why?", "D", "multiple choice", OPTIONS) == 1.0


def test_letters_are_not_taken_from_initials() -> None:
    options = ["I. Newton", "A. Einstein"]
    assert answer_score("A", "I. Newton", "multiple choice", options) == 1.0
    assert answer_score("A. Einstein", "B", "multiple choice", options) == 1.0
    assert answer_score("B", "Newton", "multiple choice", ["A. Einstein", "Newton"]) == 1.0
    assert answer_score("A. Einstein", "A", "multiple choice", ["A. Einstein", "Newton"]) == 1.0


def test_equal_option_texts_need_a_letter() -> None:
    options = ["A. yes", "B. yes", "C. no"]
    assert answer_score("yes", "A", "multiple choice", options) == 0.0
    assert answer_score("A", "A", "multiple choice", options) == 1.0


def test_a_letter_is_a_letter_before_it_is_an_option_text() -> None:
    assert answer_score("A", "A", "multiple choice", ["A. B", "B. A"]) == 1.0
    assert answer_score("B", "A", "multiple choice", ["A. B", "B. A"]) == 0.0


@pytest.mark.parametrize("said", ["B,C", "C, B", "B, C.", "(B) (C)", "B and C", "B;C", "b c", "B,C,C", "B. taunt, C"])
def test_several_options_are_a_set(said: str) -> None:
    assert answer_score(said, "B,C", "emer_ov_mc", OPTIONS) == 1.0


def test_one_entry_that_is_no_option_makes_the_list_unreadable() -> None:
    assert answer_score("B,C,Z", "B,C", "emer_ov_mc", OPTIONS) == 0.0
    assert answer_score("B,C,B", "C,B,B", "emer_ov_mc", OPTIONS) == 1.0
