# SPDX-License-Identifier: Apache-2.0
"""A problem type is one record: what is registered is scored, asked for, checked, concluded and guessed at."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import omni_rewards
from omni_grpo.data.rows.kinds import kind_of
from omni_grpo.data.rows.loading import check_rows
from omni_grpo.data.rows.prompts import question_text
from omni_grpo.data.rows.schema import DataError
from omni_grpo.evaluation.baselines import chance_level
from omni_rewards import (
    EMOTION_LABEL_SETS,
    PROBLEM_TYPES,
    AnswerReward,
    ProblemType,
    answer_reward,
    answer_score,
    conclusion_agrees,
)
from omni_rewards._scored import Scored

SIDES = ("left", "right")


def score_side(settings: AnswerReward, answer: str, gold: str, options: object) -> Scored:
    if gold not in SIDES:
        raise ValueError(f"gold answer {gold!r} is no side")
    return Scored(float(answer == gold), answer if answer in SIDES else None)


@pytest.fixture
def side(monkeypatch):
    """A problem type as a user would add it: one entry, here for the time of a test."""
    kind = ProblemType("Answer left or right.", score_side, "label", SIDES)
    monkeypatch.setitem(PROBLEM_TYPES, "side", kind)
    return kind


def row(solution: str) -> dict[str, str]:
    return {"id": "a", "problem": "Where does she sit?", "problem_type": "side", "solution": solution}


def test_one_entry_is_all_that_a_new_problem_type_takes(side, tmp_path):
    """Mutants: a list of types in the check of rows, in the prompt, among those that conclude or can be guessed."""
    completion = "<context>She.</context><think>So the answer is left.</think><answer>{}</answer>"
    texts = [completion.format(answer) for answer in ("left", "right", "above")]
    assert answer_reward(texts, ["left"] * 3, ["side"] * 3) == [1.0, 0.0, 0.0]
    reward = AnswerReward(require_agreement=True)
    assert reward(texts[1:2], ["right"], ["side"]) == [0.0], "it concludes the other side"
    assert conclusion_agrees("So the answer is left.", "left", "side") is True

    (example,) = check_rows([("line 1", row("left"))], tmp_path, graded=True)
    assert question_text(example).splitlines() == ["Where does she sit?", "Answer left or right."]
    with pytest.raises(DataError, match="solution: gold answer 'above' is no side; correct it"):
        check_rows([("line 1", row("above"))], tmp_path, graded=True)

    assert chance_level([row("left") | {"meta": {}, "options": None}], kind_of, reward) == 0.5


def test_a_type_that_needs_options_asks_for_them(monkeypatch, tmp_path):
    """Mutant: a list of the types with options beside the records."""
    score = PROBLEM_TYPES["multiple choice"].score
    monkeypatch.setitem(PROBLEM_TYPES, "pick", ProblemType("Answer with a letter.", score, "option"))
    asked = row("B") | {"problem_type": "pick"}
    with pytest.raises(DataError, match="options: required for problem_type 'pick'; list what to choose from"):
        check_rows([("line 1", asked)], tmp_path, graded=True)
    (example,) = check_rows([("line 1", asked | {"options": ["cat", "dog"]})], tmp_path, graded=True)
    assert question_text(example).splitlines()[1:] == ["Options:", "A. cat", "B. dog", "Answer with a letter."]
    assert answer_score("dog", "B", "pick", ["cat", "dog"]) == 1.0


def test_without_its_entry_a_type_is_unknown(tmp_path):
    with pytest.raises(ValueError, match="unknown problem_type 'side'; known are 'multiple choice', "):
        answer_score("left", "left", "side")
    with pytest.raises(DataError, match="problem_type: 'side' is unknown; one of multiple choice, "):
        check_rows([("line 1", row("left"))], tmp_path, graded=True)
    assert conclusion_agrees("So the answer is left.", "right", "side") is None


def test_no_other_file_names_a_problem_type():
    """
    What is particular to a type stands in its record. `label` and `judge` are words of their own besides, and a row of
    TRL's without a type is asked as `free-form` is.
    """
    names = set(PROBLEM_TYPES) - {"label", "judge", "free-form", *EMOTION_LABEL_SETS}
    library = Path(omni_rewards.__file__).parent
    recipes = Path(__file__).parents[2] / "recipes/omni_grpo"
    files = [*library.glob("*.py"), *(recipes / "rows").glob("[!a]*.py"), *(recipes / "evaluation").glob("*.py")]
    found = {
        (file.name, node.value)
        for file in files
        if file.name != "problem_types.py"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names
    }
    assert found == set()
