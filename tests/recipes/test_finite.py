# SPDX-License-Identifier: Apache-2.0
"""A number that is not finite stops the run before it is learnt from, with its rows; so does a disk that is full."""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, OmniSFTConfig, OmniSFTTrainer, PromptEncoder
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.run.checkpoints import last_complete_checkpoint
from omni_grpo.run.finite import NonFiniteError
from script_runs import (
    GRPO,
    GRPO_FIELDS,
    ROOT,
    TESTS,
    checkpoints,
    environment,
    logged_steps,
    same_weights,
    start,
    write_config,
)
from small_runs import SMALL_RUN, length_reward

pytestmark = pytest.mark.xdist_group("processes")

BAD = [float("nan"), float("inf"), float("-inf")]


class Weights(TrainerCallback):
    """The weights as each step left them."""

    def __init__(self):
        self.steps = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.steps.append({name: p.detach().clone() for name, p in model.named_parameters()})


@pytest.fixture
def make(tiny, settings, mixed, tmp_path):
    def build(kind, rewards=(length_reward,), **overrides):
        fields = {**SMALL_RUN, "output_dir": str(tmp_path), "max_steps": 5, "save_strategy": "steps", "save_steps": 1}
        fields |= {
            "save_total_limit": 2,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            **overrides,
        }
        encoder = PromptEncoder(load_processor(tiny), settings)
        if kind == "sft":
            trainer = OmniSFTTrainer(load_model(tiny), OmniSFTConfig(**fields), mixed, encoder=encoder)
        else:
            args = OmniGRPOConfig(**fields, num_generations=2, max_completion_length=4, beta=0.0)
            trainer = OmniGRPOTrainer(load_model(tiny), list(rewards), args, mixed, encoder=encoder)
        trainer.add_callback(weights := Weights())
        return trainer, weights

    return build


def spoil(trainer, where: str, value: float) -> None:
    """From the third step on, what the training pass makes of words, or a gradient, is not finite."""
    words, head = trainer.model.get_input_embeddings(), trainer.model.lm_head

    def times(tensor):
        return tensor * value if trainer.state.global_step >= 2 else tensor

    if where == "loss":
        words.register_forward_hook(lambda *call: times(call[-1]) if torch.is_grad_enabled() else call[-1])
    else:
        head.weight.register_hook(times)


def stopped(trainer, weights, tmp_path, what: str) -> dict:
    """Train into the error; nothing of its step was learnt, what is whole is kept, and the file has the rows."""
    with pytest.raises(
        NonFiniteError, match=rf"^step 3: the {what}.* is not finite; nothing was learnt from it"
    ) as met:
        trainer.train()
    now = dict(trainer.model.named_parameters())
    assert len(weights.steps) == 2 and all(p.equal(now[name]) for name, p in weights.steps[-1].items())
    assert checkpoints(tmp_path) == [1, 2] and last_complete_checkpoint(tmp_path) in str(met.value)
    file = tmp_path / "not_finite_step3_process0.json"
    assert str(file) in str(met.value)
    return json.loads(file.read_text())


@pytest.mark.parametrize("kind", ["grpo", "sft"])
@pytest.mark.parametrize(("where", "value"), [("loss", BAD[0]), ("gradient", BAD[0]), ("gradient", BAD[1])])
def test_a_loss_or_gradient_that_is_not_finite_stops_before_the_optimiser(make, tmp_path, kind, where, value):
    """Mutants: looking after `optimizer.step()`; looking at the loss alone."""
    trainer, weights = make(kind)
    spoil(trainer, where, value)
    told = stopped(trainer, weights, tmp_path, where)
    assert told["what"] == where and told["step"] == 3
    seen = [row["id"] for row in told["rows"]]
    assert len(seen) == (4 if where == "gradient" else 2) and all(name.startswith("row") for name in seen)
    assert all(isinstance(row["completion"], str) for row in told["rows"])
    if kind == "sft":
        assert "<answer>no</answer>" in told["rows"][0]["completion"]


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("is_async", [False, True])
def test_a_reward_that_is_not_finite_stops_with_its_row(make, tmp_path, value, is_async):
    """Mutant: NaN taken for None, "does not apply", as upstream does. None goes on."""
    steps = []

    def judge(completions, trainer_state, **kwargs):
        steps.append(trainer_state.global_step)
        return [None, *([1.0] * (len(completions) - 2)), value if trainer_state.global_step == 2 else 0.5]

    async def later(completions, trainer_state, **kwargs):
        return judge(completions, trainer_state)

    trainer, weights = make("grpo", rewards=(length_reward, later if is_async else judge))
    told = stopped(trainer, weights, tmp_path, f"reward {'later' if is_async else 'judge'} of row 'row")
    assert len(told["rows"]) == 4 and told["rows"][0]["later" if is_async else "judge"] is None
    assert steps == [0, 1, 2]


def test_finite_steps_train_as_before(make, tmp_path):
    trainer, weights = make("grpo")
    trainer.train()
    assert len(weights.steps) == 5 and checkpoints(tmp_path) == [4, 5]
    assert not list(tmp_path.glob("not_finite*"))


def test_a_half_written_checkpoint_never_costs_the_last_whole_one(make, tmp_path):
    """Mutant: upstream's order, where older ones are deleted before the mark of the new one."""
    trainer, _ = make("sft", max_steps=2)
    trainer.train()
    wait = trainer.accelerator.wait_for_everyone
    trainer.accelerator.wait_for_everyone = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
    trainer.state.global_step = 4
    (tmp_path / "checkpoint-1").rename(tmp_path / "checkpoint-3")  # as a kill in the middle of its save leaves it
    (tmp_path / "checkpoint-3" / "COMPLETE").unlink()
    with pytest.raises(KeyboardInterrupt):
        trainer._save_checkpoint(trainer.model, None)
    trainer.accelerator.wait_for_everyone = wait
    assert checkpoints(tmp_path) == [2]


def test_a_full_disk_is_told_with_the_checkpoint_that_is_left_and_the_way_on(tiny, mixed_file, tmp_path):
    """
    A limit on the size of a file stands for the disk: weights fit, the optimiser's state does not. Mutants: the
    library's own error; the half of a checkpoint left where there is no room.
    """
    command = write_config(
        tmp_path / "run", GRPO_FIELDS, model_name_or_path=tiny, train_file=str(mixed_file), max_steps=8
    )
    whole = write_config(
        tmp_path / "whole", GRPO_FIELDS, model_name_or_path=tiny, train_file=str(mixed_file), max_steps=8
    )
    start(GRPO, *whole)
    sizes = {f.name: f.stat().st_size for f in (tmp_path / "whole" / "checkpoint-8").iterdir()}
    limit = (sizes["model.safetensors"] + sizes["optimizer.pt"]) // 2
    start(GRPO, *command, killed_at=5)
    said = start(
        GRPO, *command, ends=1, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    ).stderr
    assert (
        f"{tmp_path / 'run'}: cannot be written (" in said
        and "make room there and start the same command again" in said
    )
    assert f"It goes on from {tmp_path / 'run' / 'checkpoint-4'}" in said
    assert checkpoints(tmp_path / "run") == [4] and not (tmp_path / "run" / "checkpoint-8").exists()
    start(GRPO, *command)
    assert same_weights(tmp_path / "run", tmp_path / "whole") and logged_steps(tmp_path / "run")[-1] == 8


@pytest.mark.distributed
@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("config", ["ddp", "zero2", "zero3"])
def test_every_process_stops_when_one_of_them_meets_it(tiny, mixed_file, tmp_path, config, where):
    """In single precision, where DeepSpeed looks at nothing. Mutant: looking after its backward pass, which steps."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    launch = [
        str(Path(sys.executable).with_name("accelerate")),
        "launch",
        "--num_processes",
        "2",
        "--mixed_precision",
        "no",
    ]
    launch += ["--config_file", str(ROOT / "accelerate_configs" / f"{config}.yaml"), "--main_process_port", port]
    command = [*launch, str(TESTS / "not_finite_worker.py"), tiny, str(mixed_file), str(tmp_path), where]
    done = subprocess.run(
        command, env={**environment(), "DS_ACCELERATOR": "cpu"}, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    for process in (0, 1):
        told = json.loads((tmp_path / f"{process}.json").read_text())
        assert told["said"].startswith(f"step 3: the {where} is not finite") and told["same"]
        assert json.loads((tmp_path / f"not_finite_step3_process{process}.json").read_text())["rows"]
