# SPDX-License-Identifier: Apache-2.0
"""
Gold answers and answers with their right scores, in the tables of `answer_pairs`.

A table has a pair a line, its cells set apart by tabs: problem type, gold answer, answer, score, the row's options as a
JSON list or nothing, a note. The score is `1` (exactly), `<1`, or `error` where the gold answer is refused.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from gold_answers import completion
from omni_rewards import CHOICE_TYPES, PROBLEM_TYPES, answer_reward, answer_score

TABLES = sorted((Path(__file__).parent / "answer_pairs").glob("*.tsv"))
COLUMNS = ["problem_type", "gold", "answer", "score", "options", "note"]


class Pair(NamedTuple):
    """One line of a table, and where it stands."""

    problem_type: str
    gold: str
    answer: str
    score: str
    options: list[str] | None
    where: str


def read(table: Path) -> list[Pair]:
    header, *lines = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()]
    assert header == COLUMNS, table
    return [
        Pair(kind, gold, answer, score, json.loads(options) if options else None, f"{table.name}:{number} {note}")
        for number, (kind, gold, answer, score, options, note) in enumerate(lines, 2)
    ]


PAIRS = [pair for table in TABLES for pair in read(table)]
READABLE = [pair for pair in PAIRS if pair.score != "error"]
each = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.stem)


@each
def test_right_answers_earn_exactly_1_and_wrong_ones_less(table: Path) -> None:
    """
    Mutants: read_yes_no takes any whole word; a magnitude read as a unit; the power of a unit dropped; marks around an
    answer left on; the letter taken whatever text follows it; "and" no separator of labels.
    """
    broken: list[str] = []
    for kind, gold, answer, score, options, where in read(table):
        assert score in ("1", "<1", "error"), where
        try:
            earned = answer_score(answer, gold, kind, options)
        except ValueError as error:
            if score != "error":
                broken.append(f"{where}: {gold!r} / {answer!r} raised {error}")
            continue
        assert 0.0 <= earned <= 1.0, where
        if score == "error" or (earned == 1.0) != (score == "1"):
            broken.append(f"{where}: {gold!r} / {answer!r} earned {earned}, not {score}")
    assert not broken, "\n".join(broken)


@each
def test_the_reward_of_a_completion_is_the_score_of_its_answer(table: Path) -> None:
    pairs = [pair for pair in read(table) if pair.score != "error"]
    rewards = answer_reward(
        [completion(pair.answer) for pair in pairs],
        [pair.gold for pair in pairs],
        [pair.problem_type for pair in pairs],
        [pair.options for pair in pairs],
    )
    assert rewards == [answer_score(pair.answer, pair.gold, pair.problem_type, pair.options) for pair in pairs]


@each
def test_every_gold_answer_earns_1_of_itself(table: Path) -> None:
    for kind, gold, _, score, options, where in read(table):
        if score != "error":
            assert answer_score(gold, gold, kind, options) == 1.0, where


@each
def test_an_answer_that_is_worth_as_much_as_a_gold_answer_may_stand_for_it(table: Path) -> None:
    """
    What is read as an answer is read as a gold answer: where the two are one, so they are the other way round.

    But for an unknown unit, which an answer may leave out and may not add.
    """
    closed = CHOICE_TYPES | {"yes_no", "judge", "label", "numerical"}
    for kind, gold, answer, score, options, where in read(table):
        if score == "1" and kind in closed and "unit left out" not in where:
            assert answer_score(gold, answer, kind, options) == 1.0, where


def test_there_are_enough_pairs_and_right_and_wrong_ones_of_every_type() -> None:
    kinds = Counter((pair.problem_type, pair.score) for pair in PAIRS if pair.problem_type != "math")
    assert kinds.total() >= 150
    assert {kind for kind, score in kinds if score == "1"} == set(PROBLEM_TYPES) - {"math"}
    assert {kind for kind, score in kinds if score == "<1"} == set(PROBLEM_TYPES) - {"math"}


def test_no_pair_stands_twice() -> None:
    twice = Counter((pair.problem_type, pair.gold, pair.answer, str(pair.options)) for pair in PAIRS)
    assert [pair for pair, times in twice.items() if times > 1] == []
