# SPDX-License-Identifier: Apache-2.0
"""The same GRPO work for two trainers: one prompt length, one completion length, one set of rollouts."""

from __future__ import annotations

import time
from typing import Any
from unittest import mock

import torch
from torch.utils.flop_counter import FlopCounterMode

from omni_grpo.families import base_of


def token_bound(prompt: int, completion: int, group: int) -> float:
    """How many times fewer tokens there are when a prompt is computed once: G (P + C) / (P + G C)."""
    return group * (prompt + completion) / (prompt + group * completion)


class Work:
    """
    One trainer with one micro-batch, ready to be timed.

    Args:
        trainer (`GRPOTrainer`): Its data hold one batch.
        completion_ids (`Tensor` `(B, C)`, *optional*): Rollouts to update on; defaults to what the trainer samples.
    """

    def __init__(self, trainer: Any, completion_ids: torch.Tensor | None = None) -> None:
        self.trainer = trainer
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1
        trainer.create_optimizer()
        self.batch = next(iter(trainer.get_train_dataloader()))
        self.inputs = trainer._prepare_inputs(self.batch)
        if completion_ids is not None:
            self.inputs["completion_ids"] = completion_ids
            for row, ids in zip(self.inputs.get("rows", ()), completion_ids.tolist(), strict=False):
                row.completion_ids = ids
        rows = len(self.inputs["completion_ids"])
        self.inputs["advantages"] = torch.linspace(-1, 1, rows, device=self.inputs["advantages"].device)

    def loss(self) -> torch.Tensor:
        return self.trainer.compute_loss(self.trainer.model, self.inputs)

    def update(self) -> float:
        """Loss, gradients, optimiser; the loss."""
        loss = self.loss()
        loss.backward()
        self.trainer.optimizer.step()
        self.trainer.optimizer.zero_grad()
        return loss.item()

    def step(self) -> None:
        """A whole step: sampling, scoring, rewards, update."""
        self.trainer._buffered_inputs, self.trainer._step = None, 0
        self.trainer.compute_loss(self.trainer.model, self.trainer._prepare_inputs(self.batch)).backward()
        self.trainer.optimizer.step()
        self.trainer.optimizer.zero_grad()

    def timed_step(self) -> tuple[float, float]:
        """Seconds of a step, and of the sampling in it."""
        sample, seconds = self.trainer._generate_single_turn, []

        def clocked(*args: Any, **kwargs: Any) -> Any:
            output = None

            def call() -> None:
                nonlocal output
                output = sample(*args, **kwargs)

            seconds.append(timed(call))
            return output

        with mock.patch.object(self.trainer, "_generate_single_turn", clocked):
            whole = timed(self.step)
        return whole, sum(seconds)

    def gradients(self) -> dict[str, torch.Tensor]:
        self.loss().backward()
        grads = {n: p.grad.clone() for n, p in self.trainer.model.named_parameters() if p.grad is not None}
        self.trainer.optimizer.zero_grad()
        return grads

    def activation_bytes(self) -> int:
        """Bytes that the forward pass of an update keeps for its backward pass, parameters left out."""
        kept: dict[int, int] = {}
        parameters = {p.untyped_storage().data_ptr() for p in self.trainer.model.parameters()}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = self.loss()
        loss.backward()  # while the graph lives no address is used twice
        self.trainer.optimizer.zero_grad()
        return sum(kept.values())

    def flops(self) -> int:
        """Floating-point operations of an update, forward and backward."""
        with FlopCounterMode(display=False) as counter:
            self.loss().backward()
        self.trainer.optimizer.zero_grad()
        return counter.get_total_flops()

    def encoded_items(self) -> int:
        """Media items that go through an encoder in one step."""
        thinker, items = base_of(self.trainer.model), 0

        def images(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal items
            items += len(kwargs["grid_thw"] if "grid_thw" in kwargs else args[1])

        def sounds(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal items
            items += len(kwargs["feature_lens"] if "feature_lens" in kwargs else args[1])

        hooks = [
            thinker.visual.register_forward_pre_hook(images, with_kwargs=True),
            thinker.audio_tower.register_forward_pre_hook(sounds, with_kwargs=True),
        ]
        self.step()
        for hook in hooks:
            hook.remove()
        return items


def timed(call: Any) -> float:
    """Seconds of wall time."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
