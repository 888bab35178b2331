# SPDX-License-Identifier: Apache-2.0
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_rewards import AnswerReward, answer_score
from omni_rewards.quantities import _MAGNITUDES, _UNIT_LINES, _UNITS

NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9)


@pytest.mark.parametrize(
    ("answer", "solution", "expected"),
    [
        ("42", "42.0", 1.0),
        ("42.", "42", 1.0),
        ("1,000", "1000", 1.0),
        ("1 000 000", "1,000,000.00", 1.0),
        ("1\u202f000", "1000", 1.0),
        ("+.5", "0.5", 1.0),
        ("-3", "−3", 1.0),
        ("４２．５", "42.5", 1.0),  # full-width
        ("4.2e1", "42", 1.0),
        ("1/2", "0.5", 1.0),
        ("-3/4", "-0.75", 1.0),
        ("50%", "0.5", 1.0),
        ("50 %", "50", 1.0),
        ("50 percent", "50%", 1.0),
        ("0.5", "50%", 1.0),
        ("0.5%", "50%", 0.0),  # both say per cent: no second reading
        ("5000%", "0.5", 0.0),
        ("5 km", "5", 1.0),
        ("5", "5 km", 1.0),
        ("5 km", "5000 m", 1.0),
        ("5 kilometers", "5 km", 1.0),
        ("90 km/h", "25 m/s", 1.0),
        ("2 min", "120 s", 1.0),
        ("5 kg", "5 km", 0.0),
        ("5 mW", "5 MW", 0.0),  # case tells milli from mega
        ("$20", "20 dollars", 1.0),
        ("$20", "€20", 0.0),
        ("12 people", "12 people", 1.0),
        ("12 apples", "12 people", 0.0),
        ("42 or", "42", 0.0),
        ("42.001", "42", 0.0),
        ("0.001", "0.004", 0.0),  # rounding both to two decimals would call them equal
        ("1,00", "100", 0.0),
        ("1,000 000", "1000000", 0.0),
        ("10²", "102", 0.0),
        ("--42", "42", 0.0),
        ("42 43", "42", 0.0),
        ("42 or 43", "42", 0.0),
        ("42; 43", "42", 0.0),
        ("about 42", "42", 0.0),
        ("42/0", "42", 0.0),
        ("nan", "42", 0.0),
        ("inf", "42", 0.0),
        ("1e99999", "42", 0.0),
        (".", "0", 0.0),
        ("e5", "0", 0.0),
    ],
)
def test_numerical(answer: str, solution: str, expected: float) -> None:
    assert answer_score(answer, solution, "numerical") == expected


@given(NUMBERS)
def test_any_spelling_of_the_same_number_is_right(number) -> None:
    for spelling in (f"{number:,}", f"{number:e}", f"{number}000", f" {number}\n", f"{number:,}".replace(",", " ")):
        assert answer_score(spelling, str(number), "numerical") == 1.0


@settings(max_examples=50)
@given(NUMBERS, NUMBERS)
def test_without_a_tolerance_only_the_number_itself_is_right(answer, gold) -> None:
    assert answer_score(str(answer), str(gold), "numerical") == float(answer == gold)


@settings(max_examples=50)
@given(NUMBERS, NUMBERS, st.sampled_from([0.0, 0.01, 0.05, 0.3, 1.0]), st.sampled_from([0.0, 0.5, 10.0]))
def test_the_larger_tolerance_counts_with_its_edge(answer, gold, relative: float, absolute: float) -> None:
    """Mutants: tolerance relative to the answer, the smaller of the two, `<` at the edge."""
    reward = AnswerReward(tolerance=relative, absolute_tolerance=absolute)
    limit = max(Fraction(str(relative)) * abs(Fraction(gold)), Fraction(str(absolute)))
    is_right = abs(Fraction(answer) - Fraction(gold)) <= limit
    assert reward.read(str(answer), str(gold), "numerical").score == float(is_right)


def test_the_edge_of_a_tolerance_is_inside() -> None:
    reward = AnswerReward(tolerance=0.3)
    assert [reward.read(a, "10", "numerical").score for a in ("13", "7", "13.01", "6.99")] == [1.0, 1.0, 0.0, 0.0]


def test_an_absolute_tolerance_is_in_the_unit_of_the_gold_number() -> None:
    """Mutant: both numbers taken into the first unit of their line, so that a metre is a thousandth of a kilometre."""
    reward = AnswerReward(absolute_tolerance=0.5)
    assert [reward.read(a, "5 km", "numerical").score for a in ("5400 m", "5.5", "5600 m")] == [1.0, 1.0, 0.0]
    assert [reward.read(a, "5000 m", "numerical").score for a in ("5.0004 km", "5.4 km")] == [1.0, 0.0]


@settings(max_examples=50)
@given(st.integers(1, 10**6), st.sampled_from(list(_MAGNITUDES.items())), st.sampled_from(["", " "]))
def test_a_magnitude_is_a_factor_in_gold_and_answer(number: int, magnitude, blank: str) -> None:
    """Mutants: a magnitude read as a unit, which the other side may leave out; taken into account on one side alone."""
    word, factor = magnitude
    short = word in ("b", "t", "m")  # alone they are units
    written, plain = f"{'$' if short else ''}{number}{blank}{word}", str(number * factor)
    assert answer_score(written, plain, "numerical") == answer_score(plain, written, "numerical") == 1.0
    assert answer_score(str(number), written, "numerical") == 0.0


def test_powers_of_units_are_compared_in_every_spelling() -> None:
    """Mutants: the power dropped; all but the first factor after a stroke put above it."""
    spellings = ["m/s²", "m/s^2", "m/s2", "m/s/s", "m s^-2", "m·s⁻²", "s^-2 m", "meters per second squared"]
    for first in spellings:
        for second in spellings:
            assert answer_score(f"9.8 {first}", f"9.8 {second}", "numerical") == 1.0, (first, second)
        for other in ("m/s", "m", "m²/s", "s²/m", "m/s³", "m·s²"):
            assert answer_score(f"9.8 {first}", f"9.8 {other}", "numerical") == 0.0, (first, other)


def test_regression_falls_with_the_relative_error_and_is_defined_at_zero() -> None:
    assert answer_score("9", "10", "regression") == pytest.approx(0.9)
    assert answer_score("-10", "10", "regression") == 0.0
    assert answer_score("0", "0.0", "regression") == 1.0
    assert answer_score("0.1", "0", "regression") == 0.0
    assert answer_score("ten", "10", "regression") == 0.0
    assert answer_score("1e999", "1e999", "regression") == 1.0
    assert answer_score("1e999", "1", "regression") == 0.0
    assert answer_score("4.5 km", "5000 m", "regression") == pytest.approx(0.9)


def test_a_regression_scale_gives_a_slope_at_zero() -> None:
    reward = AnswerReward(regression_scale=2.0)
    scores = [reward.read(answer, "0", "regression").score for answer in ("0", "0.5", "-1", "2", "9")]
    assert scores == pytest.approx([1.0, 0.75, 0.5, 0.0, 0.0])
    assert reward.read("9", "10", "regression").score == pytest.approx(0.9)  # a larger gold number is its own scale


@settings(max_examples=50)
@given(NUMBERS, NUMBERS, NUMBERS)
def test_regression_never_prefers_the_answer_that_is_farther_off(gold, first, second) -> None:
    nearer, farther = sorted((first, second), key=lambda answer: abs(answer - gold))
    scores = [answer_score(str(answer), str(gold), "regression") for answer in (nearer, farther)]
    assert scores[0] >= scores[1]


def test_no_unit_is_listed_twice_and_each_reads_as_itself() -> None:
    words = _UNIT_LINES.split()
    assert len(words[::2]) == len(set(words[::2])) == len(_UNITS)
    for unit in _UNITS:
        assert answer_score(f"3 {unit}", f"3 {unit}", "numerical") == 1.0, unit
        assert answer_score(f"3 {unit}", f"4 {unit}", "numerical") == 0.0, unit


@pytest.mark.parametrize(
    "settings",
    [
        {"tolerance": -0.1},
        {"tolerance": float("nan")},
        {"absolute_tolerance": float("inf")},
        {"regression_scale": -1},
        {"math_seconds": 0},
        {"unit": "syllable"},
        {"aliases": {"": "sad"}},
        {"rubric": " "},
        {"judge": {"model": "qwen"}},
    ],
)
def test_settings_that_cannot_be_meant_are_refused_by_name(settings) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        AnswerReward(**settings)
