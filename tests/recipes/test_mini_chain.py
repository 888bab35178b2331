# SPDX-License-Identifier: Apache-2.0
"""`make mini-demo` in its small form: the shipped configurations on a few rows for a few steps, killed on the way."""

from __future__ import annotations

import json

import pytest

import make_mini
from omni_demo.config import load_config
from omni_demo.generate import generate
from omni_demo.judge_server import serving
from script_runs import ROOT, start

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("processes")]

CONFIGS = ROOT / "recipes/configs/mini"
FEW = {
    **{"base_clips": 24, "perception_clips": 6, "validation_agreement": 8, "validation_intent": 4},
    **{"sft_agreement": 8, "sft_intent": 4, "sft_face": 6, "sft_voice": 6},
    **{"rl_agreement": 8, "rl_intent": 4, "rl_face": 6, "rl_voice": 6},
    **{"test_agreement": 8, "test_intent": 4, "test_face": 6, "test_voice": 6},
}


def test_from_packages_to_four_rewards(tmp_path, monkeypatch):
    """Every stage takes what the one before it left; two are killed, and go on. A second launch does nothing."""
    runs, data = tmp_path / "runs/mini", tmp_path / "data/mini"
    generate(load_config(CONFIGS / "data.yaml", {"output_dir": str(data), "num_workers": 2, **FEW}))
    make_mini.main(["--output_dir", str(runs / "init")])
    chat = [{"problem": "What is a lake?", "problem_type": "free-form", "solution": "A body of water."}] * 2
    (runs / "init/chat.jsonl").write_text("".join(json.dumps({"id": f"c{i}", **r}) + "\n" for i, r in enumerate(chat)))
    (runs / "init/chat_few.jsonl").write_text((runs / "init/chat.jsonl").read_text())

    def stage(script, name, killed_at=None, **fields):
        text = (CONFIGS / f"{name}.yaml").read_text()
        config = tmp_path / f"{name}.yaml"
        config.write_text(text.replace("runs/mini", str(runs)).replace("data/mini", str(data)))
        words = [word for key, value in fields.items() for word in (f"--{key}", str(value))]
        done = start(ROOT / f"recipes/{script}.py", "--config", str(config), *words, killed_at=killed_at, timeout=600)
        if killed_at is None:
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        else:
            assert done.returncode != 0
        return done.stdout

    few = {"max_steps": 3, "save_steps": 1, "per_device_train_batch_size": 4, "logging_steps": 1}
    anchor = {**few, "save_strategy": "steps", "eval_strategy": "no"}
    stage("anchor_mini", "anchor", killed_at=2, **anchor)
    stage("anchor_mini", "anchor", **anchor)
    stage("sft_omni", "align", **few)
    stage("eval_omni", "perception", max_new_tokens=4)
    stage("sft_omni", "sft", **few)
    with serving() as judge:
        monkeypatch.setenv("JUDGE_ENDPOINT", judge.endpoint)
        small = {**few, "num_generations": 2, "max_completion_length": 24}
        stage("grpo_omni", "rl_context", killed_at=2, **small)
        said = stage("grpo_omni", "rl_context", **small)
        assert "weights in" in said
        stage("eval_omni", "eval", max_new_tokens=24, ablated_rows=4)
        assert judge.asked
    assert "done already" in stage("anchor_mini", "anchor", **anchor)
    assert json.loads((runs / "metrics.json").read_text())
