# SPDX-License-Identifier: Apache-2.0
"""The scripts in `examples` run as they stand, are short, and learn."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.py"))


def output(name: str, folder: Path) -> str:
    """What an example prints, started anywhere."""
    paths = os.pathsep.join(str(REPOSITORY / part) for part in ("recipes", "rewards", "examples"))
    environment = {**os.environ, "PYTHONPATH": paths, "TMPDIR": str(folder)}
    command = [sys.executable, str(REPOSITORY / "examples" / name)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def figures(text: str) -> list[float]:
    return [float(figure) for figure in re.findall(r"\d\.\d\d", text.splitlines()[-1])]


def test_there_are_four_and_each_is_short():
    assert len(EXAMPLES) == 4
    assert all(len(file.read_text(encoding="utf-8").splitlines()) < 60 for file in EXAMPLES)


def test_the_rewards_teach_under_stock_trl(tmp_path):
    """Mutant: a reward that is 0 for all."""
    text = output("rewards_in_stock_trl.py", tmp_path)
    first, last = figures(text)
    assert first < 2 and last == 3, text
    assert "omni_grpo" not in re.sub(
        r'""".*?"""', "", (REPOSITORY / "examples/rewards_in_stock_trl.py").read_text(), flags=re.S
    )


def test_rows_of_prompt_and_solution_teach_under_stock_trl(tmp_path):
    """Mutant: the reward's own `problem_type` ignored, so that the rows have none."""
    first, last = figures(output("plain_trl_rows.py", tmp_path))
    assert first < 0.8 and last == 1
    assert "omni_grpo" not in (REPOSITORY / "examples/plain_trl_rows.py").read_text()


def test_a_reward_of_ones_own_has_its_three_outcomes(tmp_path):
    assert output("own_reward.py", tmp_path) == "[1.0, 0.5, None]\n"


def test_the_example_in_a_docstring_holds():
    command = [sys.executable, "-m", "doctest", str(REPOSITORY / "examples/own_reward.py")]
    paths = os.pathsep.join(str(REPOSITORY / part) for part in ("recipes", "rewards"))
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_script_of_ones_own_learns_from_pictures(tmp_path):
    """Mutant: `credit_map` of a reward that is not the run's."""
    means = figures(output("own_script.py", tmp_path))
    assert len(means) == 4 and means[-1] > means[0] + 0.2


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_says_how_it_is_started(file):
    assert f"\n    python examples/{file.name}\n" in file.read_text(encoding="utf-8")


def test_the_credit_map_shown_for_ones_own_reward_is_one():
    import yaml

    from omni_grpo.credit.advantages import resolve_credit_map
    from omni_rewards import CONTEXT_THINK_ANSWER

    lines = (REPOSITORY / "examples/own_reward.py").read_text(encoding="utf-8").splitlines()
    shown = yaml.safe_load(
        "\n".join(line.strip() for line in lines if re.match(r"    (reward_funcs|credit_map):", line))
    )
    names = [path.rpartition(".")[2] for path in shown["reward_funcs"]]
    assert resolve_credit_map(shown["credit_map"], dict.fromkeys(names), CONTEXT_THINK_ANSWER) == [
        {"think", "answer"},
        {"think"},
    ]
