# SPDX-License-Identifier: Apache-2.0
"""Run folders as the product writes them: `eval_omni.py` itself, logs and stage records; only the model's words are given."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import eval_omni
from omni_grpo.evaluation import evaluate
from omni_grpo.rollout.answers import Completion
from omni_grpo.run.log_file import LogFile
from omni_grpo.run.stages import Stage

Says = Callable[
    [str, str, bool], "str | tuple[str, int]"
]  # (model, row's id, sound is heard) -> text [and its tokens]


def write_lines(path: Path, rows: Sequence[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_evaluation(run: Path, models: Sequence[str], rows: Sequence[dict], says: Says, checkpoint: str, **fields):
    """
    `<run>/eval` and `<run>/metrics.json`, written by `eval_omni.py` for `rows`, which are put beside `run`.

    Args:
        models (`Sequence[str]`): Names; each is a copy of `checkpoint` in a folder of that name.
        says (`Callable`): What a model answers to a row.
        **fields: Further fields of the command.
    """
    test_file = run.parent / f"{run.name}.jsonl"
    write_lines(test_file, rows)
    folders = {name: run.parent / "models" / name for name in models}
    for folder in folders.values():
        shutil.copytree(checkpoint, folder, dirs_exist_ok=True)

    def spoken(model: Any, processor: Any, embedder: Any, prompts: Sequence[Any], *args: Any, **kwargs: Any):
        name = Path(model.config._name_or_path).name
        answers = [says(name, prompt.name, prompt.counts.get("audio", 0) > 0) for prompt in prompts]
        pairs = [answer if isinstance(answer, tuple) else (answer, 20) for answer in answers]
        return [Completion(text, tokens, 0.1, False) for text, tokens in pairs]

    given = {"test_file": str(test_file), "output_dir": str(run / "eval"), "prompt_style": "short", "num_frames": 2}
    given |= {"max_pixels": 3136, "min_pixels": 3136, "decode_cache_mb": 0, **fields}
    config = run.parent / f"{run.name}.yaml"
    config.write_text(json.dumps({"models": [f"{n}={f}" for n, f in folders.items()], **given}))
    with mock.patch.object(evaluate, "generate", spoken):
        eval_omni.main(["--config", str(config)])


def write_log(folder: Path, logs: Mapping[int, Mapping[str, Any]]) -> None:
    """`<folder>/log.jsonl` by the callback that training writes it with."""
    log = LogFile(folder / "log.jsonl")
    for step, values in logs.items():
        log.on_log(None, SimpleNamespace(global_step=step, is_world_process_zero=True), None, logs=dict(values))


def write_stage(folder: Path, seconds: float) -> None:
    """`<folder>/stage.json` of a stage that took `seconds`."""
    stage = Stage(folder, "inputs")
    stage.begin()
    stage.finish(seconds=seconds)
