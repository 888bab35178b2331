# SPDX-License-Identifier: Apache-2.0
"""What a rehearsal finds out: seconds a step, memory by part, agreement of sampling and scoring, and how long the run takes."""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from omni_grpo.run.machine import describe_machine
from omni_grpo.run.scripts import announce, is_main_process

AGREEMENT = "agreement/"  # how the meter's figures in a log event begin


class Rehearsal(TrainerCallback):
    """
    Ends training after some steps, saves and evaluates nothing, and measures. Steps that share a generation are made
    whole: with `num_iterations: 2`, three become four.

    Memory is what a process held at its fullest, in bytes: on a GPU what torch took of it, on a CPU what was resident. Each
    tensor is counted under the first of these that has it:

    - `weights`, `reference`: of the policy and of its reference, this process's shards
    - `gradients`: as large as the weights that train, or the share of them that ZeRO-2 leaves to this process
    - `optimizer`: its state, and master weights of its own
    - `features`: what frozen towers made of a generation batch
    - `program`: what the process held beside these when training began; on a CPU its libraries above all
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

    def on_train_begin(self, args, state, control, optimizer=None, **kwargs):
        held = sum(size for name, size in self._held(optimizer).items() if name != "gradients")  # there are none yet
        self.program = max(self._taken()[0] - held, 0)
        self.times = [self.clock()]

    def on_step_end(self, args, state, control, optimizer=None, **kwargs):
        self.times.append(self.clock())
        self.held, done = self._held(optimizer), len(self.times) - 1
        control.should_training_stop |= done >= self.steps and done % self.cycle == 0
        control.should_save = control.should_evaluate = False

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_save = control.should_evaluate = False

    def report(self) -> dict[str, Any]:
        """What was measured; all processes ask. Of memory, that of the fullest process."""
        trainer, durations = self.trainer, [b - a for a, b in zip(self.times, self.times[1:], strict=False)]
        logged = [event for event in trainer.state.log_history if "loss" in event]
        values: dict[str, list[float]] = {}
        for name, value in (pair for event in logged for pair in event.items() if pair[0].startswith(AGREEMENT)):
            values.setdefault(name, []).append(value)
        start, steps = self.times[0] - self.began, trainer.state.max_steps
        return {
            "machine": describe_machine(),
            "processes": trainer.accelerator.num_processes,
            "steps": len(durations),
            "steps_of_run": steps,
            "seconds": {"start": start, "steps": durations, "run": start + predicted(durations, self.cycle, steps)},
            "memory": self._fullest(),
            "agreement": {name: (min if "causal_probe" in name else max)(found) for name, found in values.items()},
            "logged": logged,
        }

    def _fullest(self) -> dict[str, int]:
        parts = self.held | {"program": self.program}
        _, peak, capacity = self._taken()
        peak = max(peak, sum(parts.values()))
        parts = {"peak": peak, **parts, "activations": peak - sum(parts.values())}
        own = torch.tensor([[*parts.values()]], device=self.trainer.accelerator.device)
        return dict(zip(parts, max(self.trainer.accelerator.gather(own).tolist()), strict=True)) | {"of": capacity}

    def _taken(self) -> tuple[int, int, int]:
        """Bytes that this process has now, that it had at most, and that there are."""
        if self.trainer.accelerator.device.type == "cuda":
            return torch.cuda.memory_reserved(), torch.cuda.max_memory_reserved(), torch.cuda.mem_get_info()[1]
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return psutil.Process().memory_info().rss, most, psutil.virtual_memory().total

    def _held(self, optimizer: Any) -> dict[str, int]:
        """Bytes of each part, now."""
        trainer, plugin, device = (
            self.trainer,
            self.trainer.accelerator.state.deepspeed_plugin,
            self.trainer.args.device,
        )
        while hasattr(optimizer, "optimizer"):  # Accelerate's, around DeepSpeed's, around torch's
            optimizer = optimizer.optimizer
        rows = [row for batch in trainer._buffered_inputs or () for row in batch["rows"]]
        found: dict[str, list[Any]] = {
            "weights": [*trainer.model.parameters(), *trainer.model.buffers()],
            "reference": [*trainer.ref_model.parameters(), *trainer.ref_model.buffers()] if trainer.ref_model else [],
            "optimizer": [value for values in optimizer.state.values() for value in values.values()]
            + [p for group in optimizer.param_groups for p in group["params"]],
            "features": [features for row in rows for features in row.prompt.features.values()],
        }
        held, seen = dict[str, int](), dict[int, int]()
        for name, tensors in found.items():
            storages = (tensor.untyped_storage() for tensor in _shards(tensors) if tensor.device.type == device.type)
            sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
            held[name] = sum(size for place, size in sizes.items() if place not in seen)
            seen |= sizes
        trained = sum(p.nbytes for p in _shards(p for p in trainer.model.parameters() if p.requires_grad))
        parts = trainer.accelerator.num_processes if plugin is not None and plugin.zero_stage == 2 else 1
        return held | {"gradients": trained // parts}


def _shards(tensors: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Of each tensor what this process has of it, under ZeRO-3 and FSDP."""
    return (getattr(t, "ds_tensor", getattr(t, "_local_tensor", t)) for t in tensors if isinstance(t, torch.Tensor))


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
    seconds, memory, steps = found["seconds"], found["memory"], found["steps"]
    each = ", ".join(f"{s:.1f}" for s in seconds["steps"])
    yield f"rehearsal: {seconds['start']:.0f} s to the first step, then {steps} steps of {each} s"
    sizes = {name: f"{size / 1e9:.2f}" for name, size in memory.items() if size}
    whole = f"{sizes.pop('peak')} GB of {sizes.pop('of')}"
    parts = ", ".join(f"{name} {size}" for name, size in sizes.items())
    yield f"memory of the fullest of {found['processes']} process(es): {whole}; {parts}"
    figures = [f"{k.removeprefix(AGREEMENT)} {v:.2g}" for k, v in found["agreement"].items() if k.count("/") == 1]
    yield f"agreement of sampling and scoring, at worst: {', '.join(figures) or 'not measured'}"
    time_of_run = timedelta(seconds=round(seconds["run"]))
    yield f"the whole run: {found['steps_of_run']} steps in {time_of_run}, evaluations and checkpoints not counted"
