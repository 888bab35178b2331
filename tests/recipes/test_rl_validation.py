# SPDX-License-Identifier: Apache-2.0
"""RL's validation: its file is read and checked, what is sampled on it is rewarded, and the best checkpoint is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

import grpo_omni
import sft_omni
from omni_grpo import OmniGRPOConfig, OmniSFTConfig
from omni_grpo.data.rows.schema import DataError
from omni_grpo.report.rollouts import read_rollouts
from omni_grpo.run.checkpoints import COMPLETE
from small_runs import SCRIPT_RUN

RUN = {
    **SCRIPT_RUN,
    "learning_rate": 1.0e-2,
    "logging_steps": 1,
    "save_strategy": "no",
    "per_device_train_batch_size": 4,
    "max_steps": 4,
}
RL = {
    "reward_funcs": ["killed_run.letters_reward"],
    "num_generations": 2,
    "max_completion_length": 6,
    "per_device_eval_batch_size": 4,
}
EVALUATES = {"eval_strategy": "steps", "eval_steps": 1, "num_generations_eval": 4}
LORA = {"use_peft": True, "lora_r": 2, "lora_dropout": 0.0}


@pytest.fixture
def run(tiny, mixed_file, tmp_path):
    """Runs an entry script in `tmp_path / "run"`; keyword arguments go over its fields, `None` takes one out."""

    def start(script=grpo_omni, **changes) -> Path:
        fields = {"model_name_or_path": tiny, "train_file": str(mixed_file), "output_dir": str(tmp_path / "run")}
        fields = {**RUN, **(RL if script is grpo_omni else {}), **fields, **changes}
        file = tmp_path / "run.yaml"
        file.write_text(yaml.safe_dump({name: value for name, value in fields.items() if value is not None}))
        script.main(["--config", str(file)])
        return tmp_path / "run"

    return start


@pytest.fixture
def validation(mixed_file) -> Path:
    """Three of the rows; not as many as a batch takes."""
    file = mixed_file.with_name("validation.jsonl")
    file.write_text("\n".join(mixed_file.read_text().splitlines()[2:5]))
    return file


def evaluations(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "eval_reward" in line]


def test_the_file_is_sampled_on_and_rewarded(run, validation):
    """
    Mutants: the file is not given to the trainer; `num_generations_eval` is not what is sampled; what is sampled on it
    is written over the step's own table.
    """
    shown = {"log_completions": True, "num_completions_to_print": 0, "steps_per_generation": 3}
    folder = run(validation_file=str(validation), **shown, **EVALUATES)
    found = evaluations(folder)
    assert [line["step"] for line in found] == [1, 2, 3, 4]
    assert all(0 < line["eval_reward"] <= 1 for line in found)
    assert all(line["eval_rewards/letters_reward/mean"] == pytest.approx(line["eval_reward"]) for line in found)
    groups = read_rollouts(folder.parent)
    held_out = [(g.step, g.id, len(g.rollouts)) for g in groups if g.held_out]
    assert sorted(held_out) == [(step, f"row{i}", 4) for step in (1, 2, 3, 4) for i in (2, 3, 4)]
    assert sum(len(g.rollouts) for g in groups if not g.held_out) == 2 * 12, "of both generation batches"


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("strategy", ["best", "steps"])
def test_the_best_by_reward_is_kept_and_is_what_the_run_ends_with(run, validation, lora, strategy):
    """Without a metric named it is the reward's. Mutant: upstream's own, the loss, of which less is better."""
    folder = run(
        validation_file=str(validation),
        save_strategy=strategy,
        save_steps=1,
        save_total_limit=2,
        load_best_model_at_end=True,
        **EVALUATES,
        **(LORA if lora else {}),
    )
    found = {line["step"]: line["eval_reward"] for line in evaluations(folder)}
    record = json.loads((folder / "stage.json").read_text())
    best = max(found, key=lambda step: (found[step], -step))
    assert (record["best"], record["best_step"]) == (found[best], best)
    kept = folder / f"checkpoint-{best}"
    assert (kept / COMPLETE).is_file()
    name = "adapter_model.safetensors" if lora else "model.safetensors"
    final, saved = load_file(folder / name), load_file(kept / name)
    assert final.keys() == saved.keys() and all((final[k] == saved[k]).all() for k in final)
    last = load_file(folder / "checkpoint-4" / name) if (folder / "checkpoint-4").is_dir() else None
    assert best == 4 or last is None or any((final[k] != last[k]).any() for k in final)


def test_evaluations_that_choose_wait_for_the_border_as_saves_do(run, validation):
    """Two steps a generation, asked for at every step: a checkpoint between them could not be gone on from."""
    folder = run(
        validation_file=str(validation),
        save_strategy="best",
        load_best_model_at_end=True,
        steps_per_generation=2,
        max_steps=5,
        **EVALUATES,
    )
    assert [line["step"] for line in evaluations(folder)] == [2, 4, 5]
    steps = {int(mark.parent.name.rpartition("-")[2]) for mark in folder.glob(f"checkpoint-*/{COMPLETE}")}
    assert steps and steps <= {2, 4, 5}


@pytest.mark.parametrize("script", [grpo_omni, sft_omni])
def test_evaluating_on_nothing_is_refused_at_start_and_its_remedy_works(run, validation, script, tmp_path):
    """Upstream asks for a Python argument, when the model has been loaded."""
    fields = {"eval_strategy": "steps", "eval_steps": 2}
    with pytest.raises(ValueError, match=r"eval_strategy: there are no rows.*name them in `validation_file`"):
        run(script, model_name_or_path=str(tmp_path / "nowhere"), **fields)
    assert not (tmp_path / "run").exists()
    run(script, validation_file=str(validation), **fields)


@pytest.mark.parametrize("script", [grpo_omni, sft_omni])
def test_a_file_on_which_nothing_is_evaluated_is_said_aloud(run, validation, script, capsys):
    run(script, validation_file=str(validation))
    assert "validation_file: nothing is evaluated on it; set `eval_strategy: steps`" in capsys.readouterr().out


@pytest.mark.parametrize("config", [OmniGRPOConfig, OmniSFTConfig])
def test_the_best_needs_evaluations(config, tmp_path):
    fields = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "save_strategy": "best"}
    with pytest.raises(ValueError, match=r"save_strategy: best .*`eval_strategy: steps`"):
        config(**fields)
    config(**fields, eval_strategy="steps")


@pytest.mark.parametrize("named", [None, "eval_rewards/answer_reward/mean"])
@pytest.mark.parametrize(
    "asked", [{"load_best_model_at_end": True, "save_strategy": "steps"}, {"save_strategy": "best"}]
)
def test_what_is_best_is_what_the_run_is_for(named, asked, tmp_path):
    fields = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "eval_strategy": "steps", **asked}
    args = OmniGRPOConfig(**fields, metric_for_best_model=named)
    assert (args.metric_for_best_model, args.greater_is_better) == (named or "eval_reward", True)


def test_a_bad_row_of_validation_is_met_before_the_model(run, validation, tmp_path):
    """Mutant: the rows of training alone are checked."""
    (validation.parent / "broken.mp4").write_bytes(b"no video")
    row = json.loads(validation.read_text().splitlines()[0])
    row["media"] = [{"type": "video", "path": "broken.mp4"}]
    validation.write_text(json.dumps(row))
    with pytest.raises(DataError, match="row2"):
        run(validation_file=str(validation), **EVALUATES)
    assert not (tmp_path / "run" / "log.jsonl").exists()
