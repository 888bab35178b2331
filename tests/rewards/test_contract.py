# SPDX-License-Identifier: Apache-2.0
"""What every reward in `omni_rewards.__all__` owes TRL and the reader."""

import ast
import asyncio
import dataclasses
import inspect
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import omni_rewards
from gold_answers import GOLD, options_of
from judge_server import JudgeServer, always, says
from omni_rewards import PROBLEM_TYPES, THINK_ANSWER

PACKAGE = Path(omni_rewards.__file__).parent
REWARDS = {name: getattr(omni_rewards, name) for name in omni_rewards.__all__ if name.endswith("_reward")}
CLASSES = {name: getattr(omni_rewards, name) for name in omni_rewards.__all__ if name.endswith("Reward")}
# One row of each type: gold answer, a wrong one. Formulas cost a process each; tests/rewards/test_answers*.py has them.
ROWS = {kind: (golds[0], wrong[0]) for kind, (golds, wrong) in GOLD.items() if kind != "math"}
JUDGE = {"judge": {"endpoint": "http://localhost:1/v1", "model": "m"}}


@pytest.fixture(scope="module", autouse=True)
def generous() -> Iterator[None]:
    """A judge that grades all it is asked about by 5: `reasoning_reward` has no other score, and refuses without."""
    with JudgeServer(always(says('{"score": 5}'))) as server:
        JUDGE["judge"]["endpoint"] = server.endpoint
        yield


def scored(name: str):
    """The reward, with its judge where it needs one."""
    return omni_rewards.ReasoningReward(**JUDGE) if name == "reasoning_reward" else REWARDS[name]


def made(name: str):
    return CLASSES[name](**(JUDGE if name.endswith("ReasoningReward") else {}))


each_reward = pytest.mark.parametrize("name", REWARDS)
each_class = pytest.mark.parametrize("name", CLASSES)
rows_of_types = st.lists(st.tuples(st.sampled_from(sorted(ROWS)), st.booleans()), max_size=8)


def batch(name: str, rows: list[tuple[str, bool]], form: str = "plain") -> dict:
    """TRL's keyword arguments for `(problem_type, is_right)` rows, with more of them than any reward reads."""
    sections = ["think", "answer"] if name.startswith("think_answer") else ["context", "think", "answer"]
    completions: list = []
    for problem_type, is_right in rows:
        answer = ROWS[problem_type][0 if is_right else 1]
        scene = "The face is sad." if is_right or name != "context_reward" else "A dog barks."
        body = {"context": scene, "think": f"The face is sad. So the answer is {answer}.", "answer": answer}
        if not is_right and name == "reasoning_reward":
            body["think"] = " "
        text = "".join(f"<{section}>{body[section]}</{section}>" for section in sections)
        # A malformed completion is the wrong row of a format reward.
        text = text if is_right or "format" not in name else text + "<answer>B</answer>"
        completions.append(text if form == "plain" else [{"role": "assistant", "content": text}])
    return {
        "prompts": [[{"role": "user", "content": "?"}] for _ in rows],
        "completions": completions,
        "completion_ids": [[1, 2, 3] for _ in rows],
        "solution": [ROWS[problem_type][0] for problem_type, _ in rows],
        "problem_type": [problem_type for problem_type, _ in rows],
        "options": [options_of(problem_type) for problem_type, _ in rows],
        "context": ["The face is sad." for _ in rows],
        "reference_reasoning": [None for _ in rows],
        "trainer_state": object(),
        "log_extra": lambda column, values: None,
        "log_metric": lambda name, value: None,
        "environments": None,
    }


def test_there_are_rewards_and_rows_to_check() -> None:
    assert len(REWARDS) >= 5 and len(CLASSES) >= 6
    assert {*ROWS, "math"} == set(PROBLEM_TYPES)


@each_reward
@pytest.mark.parametrize("form", ["plain", "conversational"])
def test_gold_earns_the_maximum_and_wrong_nothing(name: str, form: str) -> None:
    reward = scored(name)
    assert reward(**batch(name, [(kind, True) for kind in ROWS], form)) == [1.0] * len(ROWS)
    wrong = reward(**batch(name, [(kind, False) for kind in ROWS], form))
    assert set(wrong) == {0.0}


@each_reward
@given(rows=rows_of_types, data=st.data())
def test_permuting_rows_permutes_rewards(name: str, rows: list[tuple[str, bool]], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(rows))))
    scores = scored(name)(**batch(name, rows))
    assert scored(name)(**batch(name, [rows[i] for i in order])) == [scores[i] for i in order]


@each_reward
@given(rows=rows_of_types)
def test_a_row_does_not_depend_on_its_neighbours(name: str, rows: list[tuple[str, bool]]) -> None:
    """Mutant: the type of the batch read off its first row."""
    alone = [scored(name)(**batch(name, [row]))[0] for row in rows]
    assert scored(name)(**batch(name, rows)) == alone


FRAGMENTS = [
    "<context>",
    "</context>",
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "sad",
    "yes",
    "＜think＞",
    "\u200b",
]


@each_reward
@given(pieces=st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=12))
def test_whatever_is_written_scores_between_0_and_1(name: str, pieces: list[str]) -> None:
    arguments = batch(name, [("yes_no", True)])
    arguments["completions"] = ["".join(pieces)]
    [score] = scored(name)(**arguments)
    assert score is None or 0.0 <= score <= 1.0


def logged_columns(name: str) -> dict[str, list]:
    columns: dict[str, list] = {}
    scored(name)(**batch(name, [("yes_no", True), ("label", False)]) | {"log_extra": columns.__setitem__})
    return columns


def test_the_table_of_completions_gets_a_value_a_row_from_one_reward_a_column() -> None:
    """TRL appends what is logged: a column that two rewards share would run out of step with the rows."""
    columns = [(column, values) for name in REWARDS for column, values in logged_columns(name).items()]
    assert columns and all(len(values) == 2 for _, values in columns)
    assert len({column for column, _ in columns}) == len(columns)


@each_class
def test_a_dataclass_of_rewards_is_frozen_picklable_and_equal_to_its_copy(name: str) -> None:
    """TRL's asynchronous worker pickles rewards."""
    reward = made(name)
    copy = pickle.loads(pickle.dumps(reward))
    assert copy == reward and type(copy) is CLASSES[name]
    assert reward.__name__.endswith("_reward")
    with pytest.raises(dataclasses.FrozenInstanceError):
        reward.schema = THINK_ANSWER


@each_class
def test_by_default_it_scores_as_the_function_of_its_name(name: str) -> None:
    """The asynchronous form, too."""
    reward = made(name)
    arguments = batch(reward.__name__, [("yes_no", True), ("yes_no", False), ("label", True)])
    scores = reward(**arguments)
    scores = asyncio.run(scores) if inspect.iscoroutine(scores) else scores
    assert scores == scored(reward.__name__)(**arguments)
    assert inspect.iscoroutinefunction(type(reward).__call__) == name.startswith("Async")


ABOUT = {
    "answer_reward": ("answer",),
    "context_reward": ("context",),
    "reasoning_reward": ("think",),
    "section_format_reward": ("tag",),
    "think_answer_format_reward": ("tag",),
}


def test_every_reward_says_which_sections_it_is_about() -> None:
    """Credit acts there. Mutants: the decorator taken off a function; the property off a dataclass."""
    assert {name: reward.sections for name, reward in REWARDS.items()} == ABOUT
    for name in CLASSES:
        reward = made(name)
        assert reward.sections == ABOUT.get(reward.__name__, ("tag",)), name
    assert omni_rewards.AnswerReward(schema=omni_rewards.SUMMARY_CAPTION_REASONING_CONCLUSION).sections == (
        "conclusion",
    )


@each_reward
def test_content_parts_and_tool_turns_are_read_as_text(name: str) -> None:
    """A completion whose content is a list of parts, after a tool result that is not the model's own words."""
    arguments = batch(name, [("label", True)])
    parts = [{"type": "text", "text": arguments["completions"][0]}]
    turns = [{"role": "assistant", "content": None}, {"role": "tool", "content": "<answer>sad</answer>"}]
    arguments["completions"] = [[*turns, {"role": "assistant", "content": parts}]]
    assert scored(name)(**arguments) == [1.0]


@each_reward
def test_pickles_to_itself(name: str) -> None:
    """TRL's asynchronous worker pickles rewards; a closure would fail there."""
    assert pickle.loads(pickle.dumps(REWARDS[name])) is REWARDS[name]


@each_reward
def test_signature_is_typed_and_takes_every_column(name: str) -> None:
    signature = inspect.signature(REWARDS[name])
    assert all(parameter.annotation is not parameter.empty for parameter in signature.parameters.values())
    assert signature.return_annotation in (list[float], list[float | None])
    assert [p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD] == ["kwargs"]


@each_reward
def test_docstring_says_what_range_failure_arguments_source_and_example(name: str) -> None:
    docstring = inspect.getdoc(REWARDS[name]) or ""
    for part in ("higher is better", "$$R", "`0.0`", "`None`", "rais", "Args:", "Source:", ">>> "):
        assert part in docstring, part
    for parameter in inspect.signature(REWARDS[name]).parameters:
        assert f"{parameter} (" in docstring or f"**{parameter}:" in docstring, parameter


def test_no_reward_shares_a_name_with_trl() -> None:
    """The name is the metric key: two rewards of one name are averaged into one curve."""
    trl_rewards = pytest.importorskip("trl.rewards")
    assert not set(omni_rewards.__all__) & set(dir(trl_rewards))


def test_every_public_name_has_a_docstring_or_is_data() -> None:
    for name in omni_rewards.__all__:
        value = getattr(omni_rewards, name)
        assert not callable(value) or value.__doc__, name


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_imports_are_relative_or_standard_library(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imported = [node.module or ""]
        else:
            continue
        assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


def test_imports_without_site_packages() -> None:
    """`-I -S`: no environment, no site-packages, so nothing but the standard library and this folder."""
    code = (
        f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); import omni_rewards; print(*omni_rewards.__all__)"
    )
    run = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == omni_rewards.__all__
