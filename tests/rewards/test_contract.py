# SPDX-License-Identifier: Apache-2.0
"""What every reward in `omni_rewards.__all__` owes TRL and the reader."""

import ast
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import omni_rewards
from omni_rewards import PROBLEM_TYPES

PACKAGE = Path(omni_rewards.__file__).parent
REWARDS = {name: getattr(omni_rewards, name) for name in omni_rewards.__all__ if name.endswith("_reward")}
OPTIONS = ["A. praise", "B. taunt", "C. calm"]
# One row of each type: gold answer, a wrong one.
ROWS = {
    "multiple choice": ("B", "C"),
    "emer_ov_mc": ("A,B", "C"),
    "yes_no": ("yes", "no"),
    "judge": ("No", "Yes"),
    "label": ("happy", "sad"),
    "numerical": ("1,250.5", "1"),
    "regression": ("0", "3"),
    "emer_ov": ("sad, tired", "calm"),
    "OCR": ("Exit only", "Exit"),
    "free-form": ("She laughs.", "She cries."),
}
each_reward = pytest.mark.parametrize("name", REWARDS)


def batch(name: str, rows: list[tuple[str, bool]], form: str = "plain") -> dict:
    """TRL's keyword arguments for `(problem_type, is_right)` rows, with more of them than any reward reads."""
    sections = ["think", "answer"] if name.startswith("think_answer") else ["context", "think", "answer"]
    completions: list = []
    for problem_type, is_right in rows:
        body = dict.fromkeys(sections, "words") | {"answer": ROWS[problem_type][0 if is_right else 1]}
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
        "options": [OPTIONS if problem_type in omni_rewards.CHOICE_TYPES else None for problem_type, _ in rows],
        "context": [None for _ in rows],
        "trainer_state": object(),
        "log_extra": lambda column, values: None,
        "log_metric": lambda name, value: None,
        "environments": None,
    }


def test_there_are_rewards_and_rows_to_check() -> None:
    assert len(REWARDS) >= 3
    assert set(ROWS) == set(PROBLEM_TYPES)


@each_reward
@pytest.mark.parametrize("form", ["plain", "conversational"])
def test_gold_earns_the_maximum_and_wrong_nothing(name: str, form: str) -> None:
    reward = REWARDS[name]
    assert reward(**batch(name, [(kind, True) for kind in ROWS], form)) == [1.0] * len(ROWS)
    assert reward(**batch(name, [(kind, False) for kind in ROWS], form)) == [0.0] * len(ROWS)


@each_reward
@given(rows=st.lists(st.tuples(st.sampled_from(sorted(ROWS)), st.booleans())), data=st.data())
def test_permuting_rows_permutes_rewards(name: str, rows: list[tuple[str, bool]], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(rows))))
    scores = REWARDS[name](**batch(name, rows))
    assert REWARDS[name](**batch(name, [rows[i] for i in order])) == [scores[i] for i in order]


@each_reward
def test_content_parts_and_tool_turns_are_read_as_text(name: str) -> None:
    """A completion whose content is a list of parts, after a tool result that is not the model's own words."""
    arguments = batch(name, [("label", True)])
    parts = [{"type": "text", "text": arguments["completions"][0]}]
    turns = [{"role": "assistant", "content": None}, {"role": "tool", "content": "<answer>sad</answer>"}]
    arguments["completions"] = [[*turns, {"role": "assistant", "content": parts}]]
    assert REWARDS[name](**arguments) == [1.0]


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
