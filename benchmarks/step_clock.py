# SPDX-License-Identifier: Apache-2.0
"""Where the time of a training step goes, and what was sampled in it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

from transformers import TrainerCallback


class StepTimes(NamedTuple):
    """
    Seconds of one optimiser step.

    Args:
        step (`float`): From the end of the step before it to its own end.
        sampling (`float`): In `generate` and what prepares it.
        update (`float`): Loss, gradients, optimiser.
        rest (`float`): Encoding that was not ready, scoring of old policy and reference, rewards, logs.
    """

    step: float
    sampling: float
    update: float
    rest: float


class StepClock(TrainerCallback):
    """
    Clocks a GRPO trainer within [`running`].

    Args:
        trainer (`GRPOTrainer`): Given this as a callback, too.

    Attributes:
        steps (`list[StepTimes]`): One a step.
        sampled (`list[str]`): Digest of each step's completions, in the order in which they were sampled.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.steps: list[StepTimes] = []
        self.sampled: list[str] = []
        self._sampling = self._preparing = 0.0
        self._digest = hashlib.sha256()
        self._began = self._ended = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within: the trainer's methods are clocked."""
        sample, prepare = self.trainer._generate_single_turn, self.trainer._prepare_inputs

        def sampling(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            output = sample(*args, **kwargs)
            self._sampling += time.perf_counter() - start
            self._digest.update(repr(output[0]).encode())
            return output

        def preparing(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            output = prepare(*args, **kwargs)
            self._preparing += time.perf_counter() - start
            return output

        patches = {"_generate_single_turn": sampling, "_prepare_inputs": preparing}
        with mock.patch.multiple(self.trainer, **patches):
            yield

    def on_train_begin(self, args, state, control, **kwargs):
        self._ended = time.perf_counter()

    def on_step_begin(self, args, state, control, **kwargs):
        self._began = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        now = time.perf_counter()
        update = now - self._began - self._preparing
        whole = now - self._ended
        self.steps.append(StepTimes(whole, self._sampling, update, whole - self._sampling - update))
        self.sampled.append(self._digest.hexdigest())
        self._sampling = self._preparing = 0.0
        self._digest, self._ended = hashlib.sha256(), now
