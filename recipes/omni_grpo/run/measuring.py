# SPDX-License-Identifier: Apache-2.0
"""What a rehearsal finds out: seconds a step, memory by part, agreement of sampling and scoring, and how long the run takes."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from omni_grpo.run.machine import describe_machine
from omni_grpo.run.scripts import announce, is_main_process

AGREEMENT = "agreement/"  # how the meter's figures in a log event begin
_AS_MUCH = (f"{AGREEMENT}causal_probe",)  # the more of it the better; of all others the less
_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")  # of the peak of this process, on Linux


class Rehearsal(TrainerCallback):
    """
    Ends training after some steps, saves and evaluates nothing, and measures. Steps that share a generation are made
    whole: with `num_iterations: 2`, three become four.

    Memory is what a process holds at its fullest, in bytes, each tensor counted under the first of these that has it:

    - `weights`, `reference`: of the policy and of its reference, this process's shards
    - `gradients`: as they are before the optimiser's step; under DeepSpeed, which has none left then, counted from the
      weights that train
    - `optimizer`: its state, and master weights of its own
    - `features`: what frozen towers made of a generation batch
    - `program`: on a CPU what the process held beside these when training began, its libraries above all
    - `activations`: the rest, with logits, the cache of keys and values, and what the towers make on their way

    Args:
        trainer (`OmniGRPOTrainer`): Whose callback it is to be.
        steps (`int`): How many.
        began (`float`): When the process began, by `clock`.
        clock (`Callable`): Seconds.
    """

    def __init__(self, trainer: Any, steps: int, began: float, clock: Callable[[], float] = time.time) -> None:
        self.trainer, self.steps, self.began, self.clock = trainer, steps, began, clock
        micro_steps = (trainer.args.steps_per_generation or 1) * trainer.args.num_iterations
        self.cycle = micro_steps // math.gcd(micro_steps, trainer.args.gradient_accumulation_steps)
        self.memory = Memory(trainer.accelerator.device)
        self._gradients: dict[int, int] = {}

    def on_train_begin(self, args, state, control, optimizer=None, **kwargs):
        held = sum(self._held(optimizer).values())
        self._program = max(self.memory.now() - held, 0)
        self.memory.forget_peak()
        self.times = [self.clock()]

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self._gradients = self.memory.storages(p.grad for p in self.trainer.model.parameters())

    def on_step_end(self, args, state, control, optimizer=None, **kwargs):
        self.times.append(self.clock())
        self._parts = self._held(optimizer)
        done = len(self.times) - 1
        control.should_training_stop |= done >= self.steps and done % self.cycle == 0
        control.should_save = control.should_evaluate = False

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_save = control.should_evaluate = False

    def report(self) -> dict[str, Any]:
        """What was measured; all processes ask. Of memory, that of the fullest process."""
        trainer, durations = self.trainer, [b - a for a, b in pairwise(self.times)]
        logged = [e for e in trainer.state.log_history if "loss" in e]
        names = {name for event in logged for name in event if name.startswith(AGREEMENT)}
        agreement = {n: (min if n in _AS_MUCH else max)(e[n] for e in logged if n in e) for n in sorted(names)}
        start, steps = self.times[0] - self.began, trainer.state.max_steps
        return {
            "machine": describe_machine(),
            "processes": trainer.accelerator.num_processes,
            "steps": len(durations),
            "steps_of_run": steps,
            "seconds": {"start": start, "steps": durations, "run": start + predicted(durations, self.cycle, steps)},
            "memory": self._fullest(),
            "agreement": agreement,
            "logged": logged,
        }

    def _fullest(self) -> dict[str, int]:
        parts = self._parts | {"program": self._program}
        peak = max(self.memory.peak(), sum(parts.values()))
        parts["activations"] = peak - sum(parts.values())
        own = torch.tensor([[peak, *parts.values()]], device=self.memory.device)
        fullest = max(self.trainer.accelerator.gather(own).tolist())
        return dict(zip(("peak", *parts), fullest, strict=True)) | {"of": self.memory.capacity()}

    def _held(self, optimizer: Any) -> dict[str, int]:
        """Bytes of each part, now."""
        trainer, storages, seen = self.trainer, self.memory.storages, dict[int, int]()
        while hasattr(optimizer, "optimizer"):  # Accelerate's, around DeepSpeed's, around torch's
            optimizer = optimizer.optimizer
        states = [value for values in optimizer.state.values() for value in values.values()]
        masters = [p for group in optimizer.param_groups for p in group["params"]]
        rows = [row for batch in trainer._buffered_inputs or () for row in batch["rows"]]
        parts = {
            "weights": storages(_tensors_of(trainer.model)),
            "reference": storages(_tensors_of(trainer.ref_model)),
            "gradients": self._gradients or self._counted_gradients(),
            "optimizer": storages([*states, *masters]),
            "features": storages(found for row in rows for found in row.prompt.features.values()),
        }
        held = {}
        for name, found in parts.items():
            held[name] = sum(size for place, size in found.items() if place not in seen)
            seen |= found
        return held

    def _counted_gradients(self) -> dict[int, int]:
        plugin = self.trainer.accelerator.state.deepspeed_plugin
        if plugin is None:
            return {}
        trained = [getattr(p, "ds_tensor", p) for p in self.trainer.model.parameters() if p.requires_grad]
        size = sum(p.numel() * p.element_size() for p in trained)
        return {-1: size // (self.trainer.accelerator.num_processes if plugin.zero_stage == 2 else 1)}


class Memory:
    """A process's memory on a device, in bytes: on a GPU what torch has taken of it, on a CPU what is resident."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.is_cuda = device, device.type == "cuda"

    def now(self) -> int:
        return torch.cuda.memory_reserved() if self.is_cuda else psutil.Process().memory_info().rss

    def forget_peak(self) -> None:
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats()
        elif _RESET.exists():
            _RESET.write_text("5")

    def peak(self) -> int:
        """The most since it was forgotten; on a CPU without Linux's figure what there is now."""
        if self.is_cuda:
            return torch.cuda.max_memory_reserved()
        found = re.search(r"VmHWM:\s+(\d+)", _STATUS.read_text()) if _STATUS.exists() else None
        return 1024 * int(found[1]) if found else self.now()

    def capacity(self) -> int:
        return torch.cuda.mem_get_info()[1] if self.is_cuda else psutil.virtual_memory().total

    def storages(self, tensors: Iterable[Any]) -> dict[int, int]:
        """Where the tensors of this device lie, to bytes: shards as they are, views under what they are views of."""
        own = (getattr(t, "ds_tensor", getattr(t, "_local_tensor", t)) for t in tensors if isinstance(t, torch.Tensor))
        held = (t.untyped_storage() for t in own if t.device.type == self.device.type)
        return {storage.data_ptr(): storage.nbytes() for storage in held}


def predicted(durations: Sequence[float], cycle: int, steps: int) -> float:
    """
    Seconds of `steps` steps: the first `cycle`, which warm up, as they were, and all others as those after it were on
    average.

    >>> predicted([9.0, 2.0, 4.0], 1, 11)
    39.0
    """
    first, others = durations[:cycle], durations[cycle:] or durations
    return sum(first) + sum(others) / len(others) * max(steps - len(first), 0)


def rehearse(trainer: Any, steps: int, began: float, argv: Sequence[str]) -> None:
    """Make some steps, say what was measured, and write it beside the folder in which the trainer works."""
    rehearsal = Rehearsal(trainer, steps, began)
    trainer.add_callback(rehearsal)
    trainer.train()
    found = {"arguments": [*argv], **rehearsal.report()}
    path = Path(trainer.args.output_dir + ".json")
    if is_main_process():
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for line in told(found):
        announce(line)
    announce(f"all of it: {path}")


def told(found: Mapping[str, Any]) -> Iterator[str]:
    """A report for a person."""
    seconds, agreement, parts = found["seconds"], found["agreement"], dict(found["memory"])
    peak, capacity, each = parts.pop("peak"), parts.pop("of"), ", ".join(f"{s:.1f}" for s in seconds["steps"])
    yield f"rehearsal: {seconds['start']:.0f} s to the first step, then {found['steps']} steps of {each} s"
    named = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in parts.items() if size)
    yield (
        f"memory of the fullest of {found['processes']} process(es): {peak / 1e9:.2f} GB of {capacity / 1e9:.0f}: {named}"
    )
    figures = [f"{k.removeprefix(AGREEMENT)} {v:.2g}" for k, v in agreement.items() if k.count("/") == 1]
    yield f"agreement of sampling and scoring, at worst: {', '.join(figures) or 'not measured'}"
    whole = timedelta(seconds=round(seconds["run"]))
    yield f"the whole run: {found['steps_of_run']} steps in {whole}, evaluations and checkpoints not counted"


def _tensors_of(model: Any) -> Iterable[torch.Tensor]:
    return (*model.parameters(), *model.buffers()) if model is not None else ()
