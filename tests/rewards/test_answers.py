# SPDX-License-Identifier: Apache-2.0

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gold_answers import GOLD, completion, options_of
from omni_rewards import CHOICE_TYPES, PROBLEM_TYPES, answer_reward, answer_score
from work import soon

OPTIONS = ["A. praise", "B. taunt", "C. calm, patient", "D. He asks: why?"]


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
        ("nan", "numerical", None),
        ("inf", "regression", None),
        ("1/0", "numerical", None),
        ("1e9999", "numerical", None),
        ("$x", "math", None),
        ("no formula at all", "math", None),
        ("??", "transcription", None),
        ("[4, 4, 1, 1]", "box", None),
        ("[1, 2, 3, Infinity]", "box_giou", None),
        ("[[1, 2, 3, 4], [5, 6, 7, 8]]", "box", None),
        ("[0, 0, 1e200, 1e200]", "box", None),
        ("7 to 3", "time_span", None),
        ("3 to 3", "time_span", None),
        ("contempt", "DFEW", None),
        ("calm", "MAFW", None),
        ("angry", "emotion", ["happy", "sad"]),
        ("<think>x</think><answer>happy</answer>", "free-form", None),
    ],
)
def test_broken_data_raises_instead_of_teaching(solution, problem_type: str, options) -> None:
    with pytest.raises(ValueError):
        answer_score("B", solution, problem_type, options)


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


def test_columns_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError):
        answer_reward([completion("happy")] * 2, ["happy"], ["label"] * 2)


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_every_gold_answer_earns_the_maximum_and_wrong_ones_nothing(problem_type: str) -> None:
    golds, wrong = GOLD[problem_type]
    options = options_of(problem_type)
    for gold in golds:
        assert answer_score(gold, gold, problem_type, options) == 1.0, gold
        assert answer_score(f" {gold}\n", gold, problem_type, options) == 1.0, gold
        for answer in ("", " \n", "\u200b", *wrong):
            assert answer_score(answer, gold, problem_type, options) == 0.0, (answer, gold)


def test_each_type_is_documented_and_has_gold_answers() -> None:
    assert set(GOLD) == set(PROBLEM_TYPES) >= CHOICE_TYPES


ANSWERS = st.text("ABCDyesno0123456789.,;:-()[]{}%$ \n²好", max_size=20) | st.sampled_from(
    [answer for golds, wrong in GOLD.values() for answer in (*golds, *wrong)]
)


@given(st.sampled_from(sorted(set(PROBLEM_TYPES) - {"math"})), st.data())
def test_any_answer_scores_between_zero_and_one(problem_type: str, data: st.DataObject) -> None:
    gold = data.draw(st.sampled_from(GOLD[problem_type][0]))
    assert 0.0 <= answer_score(data.draw(ANSWERS), gold, problem_type, options_of(problem_type)) <= 1.0


@given(st.lists(st.tuples(st.sampled_from(sorted(set(PROBLEM_TYPES) - {"math"})), ANSWERS), min_size=1), st.data())
def test_a_row_does_not_depend_on_its_neighbours_nor_on_its_place(rows, data: st.DataObject) -> None:
    def score(rows):
        types, answers = zip(*rows, strict=True)
        golds = [GOLD[kind][0][0] for kind in types]
        return answer_reward(
            [completion(a) for a in answers], golds, list(types), [options_of(kind) for kind in types]
        )

    alone = [score([row])[0] for row in rows]
    assert score(rows) == alone
    order = data.draw(st.permutations(range(len(rows))))
    assert score([rows[i] for i in order]) == [alone[i] for i in order]


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_answers_of_100_kb_are_scored_in_no_time(problem_type: str) -> None:
    gold, options = GOLD[problem_type][0][0], options_of(problem_type)
    with soon():
        for text in (
            "a " * 50_000,
            "1" * 100_000,
            "[" * 100_000,
            "1," * 50_000,
            "好" * 33_000,
            "-" * 100_000,
            " " * 100_000,
        ):
            assert answer_score(text, gold, problem_type, options) < 1.0
