# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_rewards import CHOICE_TYPES, PROBLEM_TYPES, answer_reward, answer_score
from omni_rewards.answers import _SCORERS

OPTIONS = ["A. praise", "B. taunt", "C. calm, patient", "D. He asks: why?"]
BARE = ["praise", "taunt", "calm, patient", "He asks: why?"]


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


def test_several_options_are_graded_by_f1() -> None:
    assert answer_score("B", "B,C", "emer_ov_mc", OPTIONS) == pytest.approx(2 / 3)
    assert answer_score("A,B,C,D", "B", "emer_ov_mc", OPTIONS) == pytest.approx(2 / 5)  # choosing all is never 1
    assert answer_score("B,C,Z", "B,C", "emer_ov_mc", OPTIONS) == 0.0


@pytest.mark.parametrize("problem_type", ["yes_no", "judge"])
@pytest.mark.parametrize(
    ("answer", "solution", "expected"),
    [
        ("Yes", "yes", 1.0),
        ("YES.", "Yes", 1.0),
        ("No, he is honest.", "no", 1.0),
        ("no", "yes", 0.0),
        ("yes or no", "yes", 0.0),
        ("yes or no", "no", 0.0),
        ("I know it is a note", "no", 0.0),  # substrings
        ("I cannot say, yesterday", "yes", 0.0),
        ("unknown", "no", 0.0),
        ("", "no", 0.0),
    ],
)
def test_yes_no(answer: str, solution: str, expected: float, problem_type: str) -> None:
    assert answer_score(answer, solution, problem_type) == expected


@pytest.mark.parametrize(
    ("answer", "solution", "expected"),
    [
        ("Happy", "happy", 1.0),
        (' "happy". ', "happy", 1.0),
        ("very  happy", "Very happy", 1.0),
        ("STRASSE", "straße", 1.0),
        ("happily", "happy", 0.0),
        ("happy or sad", "happy", 0.0),
        ("...", "happy", 0.0),
        ("", "happy", 0.0),
    ],
)
def test_label(answer: str, solution: str, expected: float) -> None:
    assert answer_score(answer, solution, "label") == expected


@pytest.mark.parametrize(
    ("answer", "solution", "expected"),
    [
        ("42", "42.0", 1.0),
        ("1,000", "1000", 1.0),
        ("1000000", "1,000,000.00", 1.0),
        ("+.5", "0.5", 1.0),
        ("-3", "−3", 1.0),
        ("4.2e1", "42", 1.0),
        ("42.001", "42", 0.0),
        ("0.001", "0.004", 0.0),  # rounding both to two decimals would call them equal
        ("1,00", "100", 0.0),
        ("10²", "102", 0.0),
        ("42 or 43", "42", 0.0),
        ("nan", "42", 0.0),
        (".", "0", 0.0),
        ("e5", "0", 0.0),
        ("", "0", 0.0),
    ],
)
def test_numerical(answer: str, solution: str, expected: float) -> None:
    assert answer_score(answer, solution, "numerical") == expected


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9))
def test_numerical_accepts_any_spelling_of_the_same_number(number) -> None:
    for spelling in (f"{number:,}", f"{number:e}", f"{number}000", f" {number}\n"):
        assert answer_score(spelling, str(number), "numerical") == 1.0


def test_regression_falls_with_the_relative_error_and_is_defined_at_zero() -> None:
    assert answer_score("9", "10", "regression") == pytest.approx(0.9)
    assert answer_score("-10", "10", "regression") == 0.0
    assert answer_score("0", "0.0", "regression") == 1.0
    assert answer_score("0.1", "0", "regression") == 0.0
    assert answer_score("ten", "10", "regression") == 0.0
    assert answer_score("1e999", "1e999", "regression") == 1.0


@pytest.mark.parametrize("problem_type", ["OCR", "free-form"])
def test_texts_are_equal_up_to_case_and_white_space(problem_type: str) -> None:
    assert answer_score("exit\n ONLY", "Exit only", problem_type) == 1.0
    assert answer_score("exit only.", "Exit only", problem_type) == 0.0


def test_open_vocabulary_emotions_are_a_set_of_words() -> None:
    assert answer_score("Sad; tired.", "tired, sad", "emer_ov") == 1.0
    assert answer_score("sad", "tired, sad", "emer_ov") == pytest.approx(2 / 3)
    assert answer_score("", "sad", "emer_ov") == 0.0


def test_unknown_type_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'mc'.*'multiple choice'.*'free-form'"):
        answer_score("B", "B", "mc", OPTIONS)


@pytest.mark.parametrize(
    ("solution", "problem_type", "options"),
    [
        *((solution, problem_type, OPTIONS) for problem_type in PROBLEM_TYPES for solution in (None, "", " \n", 3)),
        *(("B", problem_type, options) for problem_type in sorted(CHOICE_TYPES) for options in (None, [])),
        ("E", "multiple choice", OPTIONS),
        ("B,C", "multiple choice", OPTIONS),
        ("B,Z", "emer_ov_mc", OPTIONS),
        ("B. praise", "multiple choice", OPTIONS),
        ("maybe", "yes_no", None),
        ("yes or no", "judge", None),
        ("?!", "label", None),
        ("many", "numerical", None),
        ("many", "regression", None),
        ("<think>x</think><answer>happy</answer>", "free-form", None),
    ],
)
def test_broken_data_raises_instead_of_teaching(solution, problem_type: str, options) -> None:
    with pytest.raises(ValueError):
        answer_score("B", solution, problem_type, options)


def completion(answer: str) -> str:
    return f"<context>c</context><think>t</think><answer>{answer}</answer>"


def test_each_row_is_scored_by_its_own_type() -> None:
    """Reading the type of row 0 for the whole batch scores the others by the wrong rule."""
    rows = [
        ("B. taunt", "B", "multiple choice", OPTIONS),
        ("9", "10", "regression", None),
        ("No.", "no", "judge", None),
    ]
    answers, solutions, types, options = zip(*rows, strict=True)
    completions = [completion(answer) for answer in answers]
    assert answer_reward(completions, list(solutions), list(types), list(options)) == [1.0, pytest.approx(0.9), 1.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (completion("happy"), 1.0),
        ("<think>t</think><answer>happy</answer>", 1.0),  # two-section prompts
        ("<answer>happy</answer> indeed", 1.0),  # the format reward's business
        ("happy", 0.0),
        ("<answer>happy", 0.0),
        (completion("happy") + "<answer>sad</answer>", 0.0),
        (completion("sad") + "<answer>happy</answer>", 0.0),
        ("<think>Perhaps <answer>happy</answer></think>", 0.0),
        ("<answer> </answer>", 0.0),
    ],
)
def test_only_a_single_well_formed_answer_section_counts(text: str, expected: float) -> None:
    assert answer_reward([text], ["happy"], ["label"]) == [expected]


def test_extracted_answers_reach_the_completions_table() -> None:
    logged: dict[str, list[str]] = {}
    answer_reward([completion(" Happy "), "sad"], ["happy"] * 2, ["label"] * 2, log_extra=logged.__setitem__)
    assert logged == {"answer": ["Happy", ""]}


def test_columns_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError):
        answer_reward([completion("happy")] * 2, ["happy"], ["label"] * 2)


def test_documented_types_are_the_scored_ones() -> None:
    assert set(_SCORERS) == set(PROBLEM_TYPES)
    assert set(PROBLEM_TYPES) >= CHOICE_TYPES


@given(st.sampled_from(sorted(PROBLEM_TYPES)), st.text("ABCDyesno0123456789.,;-() \n²好", max_size=20))
def test_any_answer_scores_between_zero_and_one(problem_type: str, answer: str) -> None:
    solution = {"yes_no": "no", "judge": "yes", "numerical": "10", "regression": "10"}.get(problem_type, "B")
    assert 0.0 <= answer_score(answer, solution, problem_type, OPTIONS) <= 1.0
