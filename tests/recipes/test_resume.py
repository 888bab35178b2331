# SPDX-License-Identifier: Apache-2.0
"""
The real entry scripts, killed with signal 9 in the middle and started again with the same command, must end with the
very weights of a run that nothing disturbed.

GRPO here generates every fourth step (two steps a generation, two iterations), wants to save every second, and passes
over its eight rows twice: a checkpoint may lie inside an epoch, at its end, and never between two generations.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
import yaml
from safetensors.torch import load_file, save_file

from omni_grpo.run.checkpoints import COMPLETE
from omni_grpo.run.stages import Stage
from script_runs import (
    COMMON,
    GRPO,
    GRPO_FIELDS,
    SFT,
    SFT_FIELDS,
    checkpoints,
    logged_steps,
    same_weights,
    start,
    write_config,
)

pytestmark = pytest.mark.xdist_group("processes")


@pytest.fixture(scope="module")
def undisturbed(tiny, mixed_file, tmp_path_factory) -> Path:
    """A GRPO run from beginning to end."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    start(GRPO, *write_config(folder, GRPO_FIELDS, model_name_or_path=tiny, train_file=str(mixed_file)))
    assert logged_steps(folder) == list(range(1, 15))
    assert checkpoints(folder) == [12, 14]
    first, last = load_file(Path(tiny) / "model.safetensors"), load_file(folder / "model.safetensors")
    assert all((first[name] - last[name]).abs().max() > 1e-4 for name in ("lm_head.weight", "model.norm.weight"))
    return folder


@pytest.fixture(scope="module")
def killed(tiny, mixed_file, tmp_path_factory) -> Callable[[], tuple[Path, tuple[str, str]]]:
    """A GRPO run that died after step 13, one step past a border; as it lay, however often it is asked for."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    command = write_config(folder, GRPO_FIELDS, model_name_or_path=tiny, train_file=str(mixed_file))
    start(GRPO, *command, killed_at=13)
    assert logged_steps(folder) == list(range(1, 14))
    assert not (folder / "model.safetensors").exists()
    kept = folder.with_name("kept")
    folder.rename(kept)

    def as_it_lay() -> tuple[Path, tuple[str, str]]:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(kept, folder)
        return folder, command

    return as_it_lay


def test_saves_wait_for_the_next_generation(killed):
    """Asked for at 2, 4, 6, …: every second one would lose the completions that are still to be learnt from."""
    folder, _ = killed()
    assert checkpoints(folder) == [8, 12]


def test_a_killed_run_goes_on_to_the_same_weights(killed, undisturbed):
    """From the middle of the second epoch: fails when the order of its rows is drawn as if it were the first."""
    folder, command = killed()
    start(GRPO, *command)
    assert logged_steps(folder)[13:] == [13, 14]
    assert same_weights(folder, undisturbed)


def test_a_half_written_checkpoint_is_passed_over(killed, undisturbed):
    folder, command = killed()
    newest = folder / "checkpoint-12"
    (newest / COMPLETE).unlink()
    weights = newest / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    assert "checkpoint-12 was not written to the end" in start(GRPO, *command).stderr
    assert logged_steps(folder)[13:] == list(range(9, 15))
    assert same_weights(folder, undisturbed)
    assert checkpoints(folder) == [12, 14]


def test_a_run_killed_between_its_last_step_and_its_mark_trains_no_further(undisturbed, tiny, mixed_file, tmp_path):
    """The step after the last would be in the middle of an epoch, where nothing stops a trainer from making it."""
    folder = tmp_path / "run"
    command = write_config(folder, GRPO_FIELDS, model_name_or_path=tiny, train_file=str(mixed_file))
    copy_run(undisturbed, folder, command, done=False)
    (folder / "model.safetensors").unlink()
    start(GRPO, *command)
    assert logged_steps(folder) == list(range(1, 15))
    assert same_weights(folder, undisturbed)


def test_a_finished_stage_is_run_again_only_when_its_data_have_changed(undisturbed, tiny, mixed_file, tmp_path):
    rows, folder = tmp_path / "rows.jsonl", tmp_path / "run"
    rows.write_text(mixed_file.read_text())
    fields = {"model_name_or_path": tiny, "train_file": str(rows), "media_root": str(mixed_file.parent)}
    command = write_config(folder, GRPO_FIELDS, **fields)
    copy_run(undisturbed, folder, command, done=True)

    again = start(GRPO, *command)
    assert f"{folder}: done already, inputs unchanged" in again.stdout
    assert logged_steps(folder) == list(range(1, 15))

    rows.write_text(rows.read_text().replace("agree with", "fit"))
    anew = start(GRPO, *command, killed_at=1)
    (aside,) = tmp_path.glob("run.*-*")
    assert f"it is now {aside}" in anew.stdout
    assert same_weights(aside, undisturbed)
    assert logged_steps(folder) == [1]


def test_a_smaller_micro_batch_and_another_log_go_on_with_the_same_rows(killed, undisturbed):
    """As after an out-of-memory. Mutants: the run set aside; half as many rows a step, and twice as many steps an epoch."""
    folder, command = killed()
    words = ["--per_device_train_batch_size", "2", "--logging_first_step", "true", "--save_total_limit", "5"]
    said = start(GRPO, *command, *words).stdout
    assert "gradient_accumulation_steps is 2" in said and "steps_per_generation is 4" in said
    assert logged_steps(folder)[13:] == [13, 14] and not list(folder.parent.glob("run.2*"))
    ours, theirs = (load_file(run / "model.safetensors") for run in (folder, undisturbed))
    assert max((ours[name] - theirs[name]).abs().max() for name in ours) < 2e-5  # sums in another order


def test_a_changed_learning_rate_is_refused_until_it_is_forced(killed):
    folder, command = killed()
    refused = start(GRPO, *command, "--learning_rate", "1e-4", ends=1).stderr
    assert "learning_rate: 0.001 → '1e-4'" in refused and "`resume: force`" in refused
    assert logged_steps(folder) == list(range(1, 14))
    start(GRPO, *command, "--learning_rate", "1e-4", "--resume", "force")
    assert logged_steps(folder)[13:] == [13, 14]


def test_the_named_checkpoint_is_the_one_that_a_run_goes_on_from(killed, undisturbed):
    """Mutant: `resume_from_checkpoint` read by nobody, and the run resumed at 12."""
    folder, command = killed()
    start(GRPO, *command, "--resume_from_checkpoint", str(folder / "checkpoint-8"))
    assert logged_steps(folder)[13:] == list(range(9, 15))
    assert same_weights(folder, undisturbed)
    assert checkpoints(folder) == [12, 14] and (folder / "superseded-checkpoint-12").is_dir()


def test_weights_cut_short_behind_the_mark_are_named_with_the_way_on(killed, undisturbed):
    """Mutant: the mark believed, and a library's error about a header. The way that the message names is gone."""
    folder, command = killed()
    weights = folder / "checkpoint-12" / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    refused = start(GRPO, *command, ends=1).stderr
    assert f"{weights.parent}: cut short or damaged: model.safetensors" in refused
    way = re.search(r"`(--resume_from_checkpoint \S+checkpoint-8)`", refused)
    start(GRPO, *command, *way[1].split())
    assert logged_steps(folder)[13:] == list(range(9, 15))
    assert same_weights(folder, undisturbed)


@pytest.fixture(scope="module")
def trained_by_two(tiny, mixed_file, tmp_path_factory):
    """A GRPO run on two processes, both killed at step 5 of 6 (two an epoch), checkpoint at 3; and its command."""
    folder = tmp_path_factory.mktemp("two") / "run"
    fields = {"per_device_train_batch_size": 2, "num_generations": 2, "log_completions": True, "max_steps": 6}
    fields |= {
        "reward_funcs": ["killed_run.letters_reward"],
        "max_completion_length": 4,
        "gradient_accumulation_steps": 2,
    }
    command = write_config(folder, fields, model_name_or_path=tiny, train_file=str(mixed_file), save_steps=3)
    start(GRPO, *command, killed_at=5, processes=2)
    return folder, command


def rows_by_step(folder: Path) -> dict[int, list[str]]:
    """The rows of each step, as the table of completions has them."""
    tables = [pandas.read_parquet(file) for file in folder.glob("completions/*.parquet")]
    return {int(step): sorted(rows) for table in tables for step, rows in table.groupby("step")["id"]}


def test_two_processes_go_on_as_one_with_the_same_rows_a_step(trained_by_two, tiny, mixed_file, tmp_path):
    """Against a run that was one from the start. Mutant: half as many rows a step, some of them twice in an epoch."""
    folder, command = trained_by_two
    assert checkpoints(folder) == [3]
    before = rows_by_step(folder)
    assert "gradient_accumulation_steps is 4" in start(GRPO, *command).stdout
    after = rows_by_step(folder)
    fields = yaml.safe_load(Path(command[1]).read_text()) | {"per_device_train_batch_size": 4}
    start(GRPO, *write_config(tmp_path / "one", fields, output_dir=str(tmp_path / "one")))
    assert before == {step: rows_by_step(tmp_path / "one")[step] for step in before} and len(before) == 4
    assert after == rows_by_step(tmp_path / "one") and sorted(after) == list(range(1, 7))
    epochs = [sorted({*after[step], *after[step + 1]}) for step in (1, 3, 5)]
    assert all(epoch == [f"row{i}" for i in range(8)] for epoch in epochs)


def copy_run(source: Path, folder: Path, command: tuple[str, str], done: bool) -> None:
    """A run's folder under another name, as if `command` had made it."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("stage.json"))
    stage = Stage.of(command)
    assert stage.begin() is None
    if done:
        stage.finish()


def test_killed_sft_goes_on_to_the_same_weights(tiny, mixed_file, tmp_path):
    """Killed after step 7 of 10 (four an epoch), resumed at 6."""
    fields = {"model_name_or_path": tiny, "train_file": str(mixed_file)}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    start(SFT, *write_config(whole, SFT_FIELDS, **fields))
    command = write_config(cut, SFT_FIELDS, **fields)
    start(SFT, *command, killed_at=7)
    assert checkpoints(cut) == [4, 6]
    start(SFT, *command)
    assert logged_steps(cut) == [1, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10]
    assert same_weights(cut, whole)
    first, last = load_file(Path(tiny) / "model.safetensors"), load_file(whole / "model.safetensors")
    assert (first["lm_head.weight"] - last["lm_head.weight"]).abs().max() > 1e-3


def test_the_best_checkpoint_is_what_is_kept(tiny, mixed, settings, tmp_path):
    """Best is the highest loss here, hence the first of three; a loader that finds no name would keep the last."""
    from omni_grpo.config import OmniSFTConfig
    from omni_grpo.data.encoding.encoder import PromptEncoder
    from omni_grpo.model.loading import load_model, load_processor
    from omni_grpo.sft import OmniSFTTrainer

    fields = ("use_cpu", "bf16", "gradient_checkpointing", "learning_rate", "report_to")
    args = OmniSFTConfig(
        **{name: COMMON[name] for name in fields},
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        max_steps=3,
        eval_strategy="steps",
        eval_steps=1,
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=True,
    )
    trainer = OmniSFTTrainer(
        model=load_model(tiny),
        args=args,
        train_dataset=mixed,
        eval_dataset=mixed.select(range(2)),
        encoder=PromptEncoder(load_processor(tiny), settings),
    )
    trainer.train()
    assert trainer.state.best_global_step == 1
    kept, best, last = (trainer.model, *(load_model(str(tmp_path / f"checkpoint-{step}")) for step in (1, 3)))
    for name in ("model.visual.patch_embed.proj.weight", "lm_head.weight"):
        assert (kept.state_dict()[name] == best.state_dict()[name]).all()
        assert (kept.state_dict()[name] != last.state_dict()[name]).any()


def test_a_checkpoint_that_lacks_weights_is_refused(tiny, tmp_path):
    """Transformers would draw the missing ones at random and say so in a table."""
    from omni_grpo.model.loading import load_model

    folder = tmp_path / "partial"
    shutil.copytree(tiny, folder)
    weights = load_file(folder / "model.safetensors")
    weights["elsewhere.proj.weight"] = weights.pop("audio_tower.proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 of the model's weights: model\.audio_tower\.proj\.weight"):
        load_model(str(folder))
