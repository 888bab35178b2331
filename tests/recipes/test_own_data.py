# SPDX-License-Identifier: Apache-2.0
"""README's four steps from clips to a report, word by word, with the demo's base model and two steps."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pytest

import forked_scripts

REPOSITORY = Path(__file__).parents[2]
BASE = str(REPOSITORY / "recipes/checkpoints/demo_base")
MEDIA = "--video_sampling uniform --num_frames 2 --min_pixels 7056 --max_pixels 7056 --max_audio_seconds 3"
SMALL = {
    "grpo_omni": f"{MEDIA} --model_name_or_path {BASE} --dtype float32 --max_steps 2 --max_completion_length 12 --use_cpu "
    "true --bf16 false --gradient_checkpointing false --num_generations 2 --per_device_train_batch_size 2 "
    "--gradient_accumulation_steps 1 --prompt_style short",
    "eval_omni": f"{MEDIA} --models base={BASE} rl=runs/own_data/rl --dtype float32 --max_new_tokens 12 --prompt_style short",
    "report": "",
    "ask_omni": "--max_new_tokens 12",
}


def steps(page: str) -> dict[str, list[str]]:
    """Script -> its command's words, in the order of a page."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    text = re.split(r"\n## (?:What it guards|Choose the rows)", text[text.index("# Your own data") :])[0]
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    words = [shlex.split(line) for line in lines]
    return {Path(next(w for w in line if w.endswith(".py"))).stem: line for line in words}


def test_the_readme_and_its_page_name_the_same_commands():
    assert steps("README.md") == steps("docs/own_data.md")
    assert list(steps("README.md")) == list(SMALL)


def test_the_row_that_is_shown_is_one(clips):
    """In both places the same; checked as the scripts check it, beside a clip of that name."""
    from omni_grpo.data.rows.loading import check_rows

    shown = [
        re.findall(r"```json\n(.*?)\n```", (REPOSITORY / page).read_text(encoding="utf-8"), re.DOTALL)
        for page in ("README.md", "docs/own_data.md")
    ]
    assert shown[0] == shown[1] and len(shown[0]) == 1
    row = json.loads(shown[0][0])
    row["media"][0]["path"] = "clip0.mp4"
    assert check_rows([("README.md", row)], clips, graded=True)[0].solution == "no"


def test_a_row_whose_clip_is_not_there_is_refused_as_the_page_says(tmp_path, monkeypatch):
    """The row that the page shows, and the message beside it. Mutant: the line's number left out."""
    from omni_grpo.data.dataset import load_sources
    from omni_grpo.data.rows.schema import DataError

    page = (REPOSITORY / "docs/own_data.md").read_text(encoding="utf-8")
    (tmp_path / "data/own").mkdir(parents=True)
    row = re.findall(r"```json\n(.*?)\n```", page, re.DOTALL)[0]
    (tmp_path / "data/own/train.jsonl").write_text(row, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as refused:
        load_sources("data/own/train.jsonl")
    [shown] = re.findall(r"```\n(\d problem.*?)\n```", page, re.DOTALL)
    assert str(refused.value).replace(str(tmp_path), "/home/me") == shown


def test_the_four_steps_lead_to_a_report(clips, tmp_path):
    """Mutants: a config that names other files than the page; a script that cannot load the adapter that RL saved."""
    (tmp_path / "data/own/clips").mkdir(parents=True)
    question = {"problem": "Does the voice agree with the face?", "problem_type": "yes_no"}
    for name, numbers in (("train", (0, 1, 2, 3)), ("test", (2, 3))):
        rows = []
        for k in numbers:
            media = [{"type": "video", "path": f"clips/{k}.mp4", "use_audio": True}]
            rows.append({"id": f"clip-{k}", **question, "solution": "yes" if k % 2 else "no", "media": media})
            (tmp_path / f"data/own/clips/{k}.mp4").write_bytes((clips / f"clip{k}.mp4").read_bytes())
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"data/own/{name}.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "clip.mp4").write_bytes((clips / "clip0.mp4").read_bytes())
    paths = os.pathsep.join(str(REPOSITORY / part) for part in ("recipes", "rewards"))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    printed = {}
    for name, words in steps("README.md").items():
        script = next(k for k, word in enumerate(words) if word.endswith(".py"))
        given = [str(REPOSITORY / w) if w.startswith("recipes/") else w for w in words[script:]]
        done = forked_scripts.run([*given, *shlex.split(SMALL[name])], cwd=tmp_path, env=environment)
        assert done.returncode == 0, f"{name}: {done.stderr[-3000:]}"
        printed[name] = done.stdout
    assert re.search(r"^rl +swapped_audio ", printed["eval_omni"], re.MULTILINE)
    assert "rl − base on all" in printed["eval_omni"]
    assert "runs/own_data/report.html" in printed["report"] and "runs/own_data/rollouts.html" in printed["report"]
    assert (tmp_path / "runs/own_data/report.html").stat().st_size > 10_000
    assert printed["ask_omni"].strip()
