# SPDX-License-Identifier: Apache-2.0
"""A run resumes from a checkpoint that is whole, taken where nothing is half done."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from accelerate import FullyShardedDataParallelPlugin
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerControl, TrainerState
from transformers.trainer_callback import DefaultFlowCallback

from omni_grpo.run.checkpoints import (
    COMPLETE,
    CompleteCheckpoints,
    GenerationBorders,
    last_complete_checkpoint,
    refuse_parts,
)


def checkpoint(folder, step: int, complete: bool = True):
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    if complete:
        (path / COMPLETE).touch()
    return str(path)


def test_the_newest_whole_checkpoint_is_found_by_number(tmp_path):
    """Mutant: comparing names as text, where 90 comes after 100."""
    checkpoint(tmp_path, 90)
    newest = checkpoint(tmp_path, 100)
    assert last_complete_checkpoint(tmp_path) == newest


def test_an_incomplete_newer_one_is_passed_over_and_named(tmp_path, caplog):
    whole = checkpoint(tmp_path, 20)
    broken = [checkpoint(tmp_path, step, complete=False) for step in (40, 60)]
    with caplog.at_level(logging.WARNING):
        assert last_complete_checkpoint(str(tmp_path)) == whole
    assert [record.getMessage().split(" was not")[0] for record in caplog.records] == broken[::-1]


def test_no_checkpoint_means_none(tmp_path):
    assert last_complete_checkpoint(tmp_path / "gone") is None
    checkpoint(tmp_path, 5, complete=False)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-best" / COMPLETE).touch()
    (tmp_path / "checkpoint-7").write_text("a file")
    assert last_complete_checkpoint(tmp_path) is None


@pytest.mark.parametrize("should_save", [True, False])
def test_the_mark_comes_last_after_every_process_wrote_and_from_one(tmp_path, should_save):
    """Mutants: marking before the others have written; every process marking."""
    events = []

    class Writes:
        def _save_checkpoint(self, model, trial):
            checkpoint(tmp_path, 3, complete=False)
            events.append("written")

    class Trainer(CompleteCheckpoints, Writes):
        args = SimpleNamespace(output_dir=str(tmp_path), should_save=should_save, save_total_limit=2)
        state = TrainerState(global_step=3)
        accelerator = SimpleNamespace(
            wait_for_everyone=lambda: events.append((tmp_path / "checkpoint-3" / COMPLETE).exists())
        )

    Trainer()._save_checkpoint(None, None)
    assert events == ["written", False]
    assert (last_complete_checkpoint(tmp_path) is not None) == should_save


def saved_steps(save_steps: int, max_steps: int, accumulation: int, micro_steps: int) -> list[int]:
    """Steps at which a run with the trainer's own flow and `GenerationBorders` behind it saves."""
    args = SimpleNamespace(
        gradient_accumulation_steps=accumulation,
        logging_first_step=False,
        logging_strategy="no",
        eval_strategy="no",
        eval_delay=0,
        save_strategy="steps",
    )
    flow, borders = DefaultFlowCallback(), GenerationBorders(micro_steps)
    saved = []
    for step in range(1, max_steps + 1):
        state = TrainerState(global_step=step, max_steps=max_steps, save_steps=save_steps, logging_steps=0)
        control = flow.on_step_end(args, state, TrainerControl())
        borders.on_step_end(args, state, control)
        if control.should_save:
            saved.append(step)
    return saved


def test_where_every_step_samples_anew_saves_are_as_asked():
    assert saved_steps(save_steps=3, max_steps=10, accumulation=2, micro_steps=2) == [3, 6, 9, 10]


def test_a_save_between_generations_waits_for_the_next():
    """One buffer serves four optimiser steps; 3 waits for 4, 6 for 8, 9 for 12, 12 is one itself."""
    assert saved_steps(save_steps=3, max_steps=14, accumulation=1, micro_steps=4) == [4, 8, 12, 14]


@given(*(st.integers(1, n) for n in (6, 40, 4)), st.integers(1, 6))
def test_saves_lie_on_borders_and_none_is_lost(save_steps, max_steps, accumulation, buffers):
    micro_steps = accumulation * buffers
    saved = saved_steps(save_steps, max_steps, accumulation, micro_steps)
    assert all(step * accumulation % micro_steps == 0 or step == max_steps for step in saved)
    for asked in range(save_steps, max_steps + 1, save_steps):
        border = -(-asked // buffers) * buffers  # the first at or after it
        assert min(border, max_steps) in saved
    assert saved[-1] == max_steps


@pytest.mark.parametrize(
    ("field", "value"),
    [("version", 1), ("state_dict_type", "SHARDED_STATE_DICT"), ("cpu_ram_efficient_loading", True)],
)
def test_fsdp_that_would_lose_weights_is_refused_and_the_remedy_goes_through(monkeypatch, field, value):
    """The shipped file passes; mutant: a setting that is not looked at, with which a run ends without its weights."""
    shipped = yaml.safe_load((Path(__file__).parents[2] / "accelerate_configs" / "fsdp2.yaml").read_text())[
        "fsdp_config"
    ]
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "")  # which the plugin sets

    def check(**changed) -> None:
        fields = {n: (shipped | changed)[f"fsdp_{n}"] for n in ("state_dict_type", "cpu_ram_efficient_loading")}
        plugin = FullyShardedDataParallelPlugin(fsdp_version=2, **fields)
        plugin.fsdp_version = (shipped | changed)["fsdp_version"]  # of which 1 wants a GPU
        refuse_parts(plugin)

    check()
    with pytest.raises(ValueError, match="into the `fsdp_config` of the accelerate file") as error:
        check(**{f"fsdp_{field}": value})
    check(**{f"fsdp_{field}": value, **yaml.safe_load(re.search("`(.*?)`", str(error.value))[1])})
