# SPDX-License-Identifier: Apache-2.0
"""One `problem_type` for rows that have none of their own: rows of `prompt` and `solution` are enough for a reward."""

from __future__ import annotations

import ast
import asyncio
import json
import re
from pathlib import Path

import pytest
import yaml
from datasets import Dataset

from gold_answers import GOLD, completion, options_of
from judge_server import JudgeServer, always, says
from omni_grpo.data.dataset import to_dataset
from omni_grpo.data.rows.loading import load_examples
from omni_grpo.data.rows.schema import DataError
from omni_grpo.run.reward_columns import check_reward_columns, needed_columns
from omni_grpo.run.reward_settings import configured_rewards, read_settings
from omni_rewards import PROBLEM_TYPES, AnswerReward, AsyncAnswerReward, AsyncReasoningReward, ReasoningReward

JUDGE = {"endpoint": "http://localhost:1/v1", "model": "m"}
ANSWERS = [AnswerReward, AsyncAnswerReward]
REASONING = [ReasoningReward, AsyncReasoningReward]
PAIR = "<context>c</context><think>So {0}.</think><answer>{1}</answer>"


def made(cls, **settings):
    return cls(**settings, **({"judge": JUDGE} if cls in REASONING else {}))


def scored(reward, *args, **columns):
    got = reward(*args, **columns)
    return asyncio.run(got) if asyncio.iscoroutine(got) else got


@pytest.mark.parametrize("kind", sorted(set(GOLD) - {"math"}))
def test_it_scores_as_the_column_would(kind: str) -> None:
    """Mutant: one type taken for all rewards, whatever is set."""
    golds, wrongs = GOLD[kind]
    texts = [completion(golds[0]), completion(wrongs[0])]
    columns = {"solution": [golds[0]] * 2, "options": [options_of(kind)] * 2}
    by_column = AnswerReward()(texts, problem_type=[kind] * 2, **columns)
    assert AnswerReward(problem_type=kind)(texts, **columns) == by_column
    assert by_column[0] == 1.0 and by_column[1] == 0.0


@pytest.mark.parametrize("cls", ANSWERS)
def test_formulas_of_plain_rows(cls) -> None:
    texts = [[{"role": "assistant", "content": rf"<answer>{a}</answer>"}] for a in (r"$\frac12$", "2")]
    assert scored(cls(problem_type="math"), texts, ["0.5", "0.5"], prompts=["?", "?"]) == [1.0, 0.0]


@pytest.mark.parametrize("cls", ANSWERS)
def test_a_rows_own_type_wins(cls) -> None:
    """Mutants: the setting over the column; the column of the first row for all."""
    texts, golds = ["<answer>1,000</answer>"] * 3, ["1000"] * 3
    own = ["label", None, "numerical"]
    assert scored(cls(problem_type="numerical"), texts, golds, own) == [0.0, 1.0, 1.0]
    assert scored(cls(problem_type="label"), texts, golds, own) == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("cls", REASONING)
def test_reasoning_reads_conclusions_by_it(cls) -> None:
    """A thought that concludes another answer is settled without the judge. Mutant: the setting not read."""
    texts = [PAIR.format("no", "yes"), PAIR.format("no", "no")]
    with JudgeServer(always(says('{"score": 4}'))) as server:
        judge = {**JUDGE, "endpoint": server.endpoint}
        assert scored(cls(judge, problem_type="yes_no"), texts) == [0.0, 0.8]
        assert scored(cls(judge, problem_type="yes_no"), texts, ["free-form", None]) == [0.8, 0.8]
        assert scored(cls(judge, problem_type="free-form"), texts) == [0.8, 0.8]


@pytest.mark.parametrize("cls", ANSWERS + REASONING)
@pytest.mark.parametrize("kind", ["maths", "", "Math"])
def test_an_unknown_type_is_refused_at_construction(cls, kind: str) -> None:
    """Mutant: the empty word taken for none."""
    with pytest.raises(ValueError, match=f"unknown problem_type {kind!r}; known are") as error:
        made(cls, problem_type=kind)
    assert all(repr(known) in str(error.value) for known in PROBLEM_TYPES)


@pytest.mark.parametrize("cls", ANSWERS + REASONING)
@pytest.mark.parametrize("own", [None, ["yes_no", None]])
def test_rows_without_any_type_are_refused_and_both_remedies_work(cls, own) -> None:
    columns = {"solution": ["yes", "yes"]} if cls in ANSWERS else {}
    texts = [PAIR.format("no", "yes")] * 2
    with pytest.raises(ValueError, match=f"row {1 if own else 0} of the batch has no `problem_type`") as error:
        scored(made(cls, schema=made(cls).schema), texts, problem_type=own, **columns)
    call = ast.parse(re.search(r"AnswerReward\(.*?\)", str(error.value))[0], mode="eval").body
    named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    assert AnswerReward(**named).problem_type == "math"
    written = yaml.safe_load(re.search(r"reward_settings:.*", str(error.value))[0])["reward_settings"]
    [in_yaml] = configured_rewards(list(written), read_settings(written))
    assert in_yaml == AnswerReward(problem_type="math")


@pytest.mark.parametrize(
    ("cls", "others"), [*((cls, ["solution"]) for cls in ANSWERS), *((cls, []) for cls in REASONING)]
)
def test_the_column_is_needed_no_longer(cls, others: list[str], tmp_path: Path) -> None:
    """From a file of plain rows, as a run reads it. Mutant: the column asked for all the same."""
    assert needed_columns(made(cls)) == [*others, "problem_type"]
    set_ = made(cls, problem_type="math")
    assert needed_columns(set_) == others
    rows = [{"prompt": "What is half of 1?", "solution": "0.5"}, {"prompt": "And 2?", "solution": "1"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for dataset in (Dataset.from_list(rows), to_dataset(load_examples(tmp_path / "rows.jsonl"), "short")):
        check_reward_columns([set_], dataset, False)
        with pytest.raises(DataError, match="`problem_type`, which it needs"):
            check_reward_columns([made(cls)], dataset, False)


@pytest.mark.parametrize("path", ["omni_rewards.answer_reward", "omni_rewards.AsyncAnswerReward"])
def test_it_is_set_in_yaml(path: str) -> None:
    [reward] = configured_rewards([path], {path: {"problem_type": "numerical"}})
    assert scored(reward, ["<answer>1.0</answer>"], ["1"]) == [1.0]
    with pytest.raises(ValueError, match=f"reward_settings: {path}: unknown problem_type 'maths'; known are"):
        configured_rewards([path], {path: {"problem_type": "maths"}})
