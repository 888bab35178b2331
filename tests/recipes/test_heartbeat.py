# SPDX-License-Identifier: Apache-2.0
"""Lines of the log while a step lasts: who is stuck, and in what."""

from __future__ import annotations

import json
import time

import pytest

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.report.run_folder import read_log
from omni_grpo.run.heartbeat import Heartbeat
from small_runs import SMALL_RUN


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(found) -> None:
    """A generous time-out: a busy machine is no failure."""
    end = time.monotonic() + 60
    while not found():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_judge_that_hangs_is_named_while_it_hangs(tiny, settings, mixed, tmp_path):
    """Mutant: a heartbeat that is written at the end of a step, which never comes."""
    log = tmp_path / "log.jsonl"

    def slow_judge(completions, trainer_state, **kwargs):
        if trainer_state.global_step == 1:
            wait_for(
                lambda: any(line["doing"] == "reward slow_judge" and line["for_seconds"] >= 1 for line in lines(log))
            )
        return [float(i) for i, _ in enumerate(completions)]

    fields = {**SMALL_RUN, "output_dir": str(tmp_path), "max_steps": 2, "per_device_train_batch_size": 2}
    args = OmniGRPOConfig(**fields, num_generations=2, max_completion_length=4)
    encoder = PromptEncoder(load_processor(tiny), settings)
    trainer = OmniGRPOTrainer(load_model(tiny), [slow_judge], args, mixed, encoder=encoder)
    trainer.heartbeat.seconds = 0.1
    trainer.train()
    stuck = [line for line in lines(log) if line["doing"] == "reward slow_judge"]
    assert {line["at_step"] for line in stuck} >= {2} and stuck[-1]["process"] == 0
    assert [line["for_seconds"] for line in stuck] == sorted(line["for_seconds"] for line in stuck)
    count = len(lines(log))
    time.sleep(0.5)
    assert len(lines(log)) == count  # silent after training
    assert read_log(log) == []  # the report draws steps


@pytest.mark.parametrize("process", [0, 1])
def test_other_processes_speak_only_when_they_are_stuck(tmp_path, process):
    """Mutant: every process at every beat, eight lines a minute that say nothing."""
    beat = Heartbeat(tmp_path / "log.jsonl", process, seconds=0.5)
    beats, wait = [], beat._done.wait

    def begin_something_else(seconds: float) -> bool:
        over = wait(seconds)
        if len(beats) < 5:
            beat.enter("loss and gradient")
        beats.append(len(lines(tmp_path / "log.jsonl")))
        return over

    beat._done.wait = begin_something_else
    beat.on_train_begin(None, None, None)
    wait_for(lambda: any(line["for_seconds"] >= 1 for line in lines(tmp_path / "log.jsonl")))
    beat.on_train_end(None, None, None)
    assert beats[:6] == ([0, 1, 2, 3, 4, 5] if process == 0 else [0] * 6)
