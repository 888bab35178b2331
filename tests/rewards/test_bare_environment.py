# SPDX-License-Identifier: Apache-2.0
"""A virtual environment with nothing in it but this folder: every reward works there."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import omni_rewards

PACKAGE = Path(omni_rewards.__file__).parent

SCRIPT = """
import sys
own = set(sys.modules)  # Debian's Python begins with a `sitecustomize`
import asyncio, importlib.util, json, pickle
missing = [name for name in ("torch", "trl", "transformers", "numpy", "httpx") if importlib.util.find_spec(name) is None]
import omni_rewards
text = "<context>The face is sad.</context><think>The face is sad. So yes.</think><answer>yes</answer>"
columns = {"solution": ["yes"], "problem_type": ["yes_no"], "context": ["The face is sad."]}
rewards = {name: getattr(omni_rewards, name) for name in omni_rewards.__all__ if name.endswith("_reward")}
del rewards["reasoning_reward"]  # asks a judge, and that takes httpx
scores = {}
for name, reward in rewards.items():
    text_of = text if "think_answer" not in name else text[text.index("<think>"):]
    scores[name] = pickle.loads(pickle.dumps(reward))(completions=[text_of], **columns)
async_scores = asyncio.run(omni_rewards.AsyncContextReward()([text], **columns))
judge = omni_rewards.Judge(endpoint="http://localhost:9/v1", model="none", cache_dir="judged", replay=True)
judged = omni_rewards.ContextReward(judge=judge)([text], **columns)
answers = {kind: omni_rewards.answer_score(gold, gold, kind) for kind, gold in json.loads(sys.argv[1]).items()}
outside = sorted({name.partition(".")[0] for name in sys.modules} - {*sys.stdlib_module_names, *own, "omni_rewards"})
print(json.dumps([sys.prefix, missing, scores, async_scores, judged, answers, outside]))
"""
GOLD = {"numerical": "42", "OCR": "Exit", "free-form": "She laughs.", "emer_ov": "sad, angry", "box": "[1, 2, 3, 4]"}


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No pip, no site packages of the system; the package is put there as a path file does it."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, system_site_packages=False, symlinks=True)
    [site] = folder.glob("lib/python3*/site-packages")
    (site / "omni_rewards.pth").write_text(f"{PACKAGE.parent}\n")
    return folder / "bin/python"


def test_every_reward_works_with_neither_torch_nor_trl(bare_python: Path, tmp_path: Path) -> None:
    """Mutant: an import of anything that is installed here and not there, also one inside a reward."""
    command = [str(bare_python), "-I", "-c", SCRIPT, json.dumps(GOLD)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    prefix, missing, scores, async_scores, judged, answers, outside = json.loads(done.stdout)
    assert Path(prefix) == bare_python.parent.parent != Path(sys.prefix)
    assert missing == ["torch", "trl", "transformers", "numpy", "httpx"]
    assert len(scores) >= 4 and set(map(tuple, scores.values())) == {(1.0,)}
    assert async_scores == [1.0]
    assert judged == [None], "nothing is recorded there"
    assert set(answers.values()) == {1.0}
    assert outside == []


@pytest.mark.parametrize("use", ["answer_score('x', 'x', 'math')", "Judge(endpoint='http://localhost:9', model='m')"])
def test_an_extra_that_is_not_there_is_named(bare_python: Path, tmp_path: Path, use: str) -> None:
    code = f"import omni_rewards; omni_rewards.{use}"
    done = subprocess.run([str(bare_python), "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert 'pip install "omni-grpo[' in done.stderr.splitlines()[-1]
