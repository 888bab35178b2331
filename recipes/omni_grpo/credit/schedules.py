# SPDX-License-Identifier: Apache-2.0
"""What changes over a run: the weight of the KL and the weights of the rewards.

Both are functions of the step alone, so that a resumed run goes on where the run before it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import TrainerCallback


class BetaSchedule(TrainerCallback):
    r"""
    KL weight, linear from `start` to `end`, then constant: at step $$k$$ of $$K$$,
    $$\beta_k = start + (end - start) \min(1, k / (share \cdot K))$$.

    HumanOmniV2: 0.04 to 0.01 over half of the run.

    Args:
        trainer (`GRPOTrainer`): Its `beta` is set before every step.
        start, end (`float`): Neither is 0: TRL keeps no reference, or no log-probabilities of it, at 0.
        share (`float`): Part of the run's steps over which it changes, above 0 and at most 1.
    """

    def __init__(self, trainer: Any, start: float, end: float, share: float) -> None:
        self.trainer, self.start, self.end, self.share = trainer, start, end, share

    def at(self, step: int, max_steps: int) -> float:
        """The weight at a step, counted from 0."""
        return self.start + (self.end - self.start) * min(1.0, step / (self.share * max_steps))

    def on_step_begin(self, args, state, control, **kwargs):
        self.trainer.beta = self.at(state.global_step, state.max_steps)
        self.trainer._metrics["train"]["beta"].append(self.trainer.beta)


class RewardWeightSchedule(TrainerCallback):
    """
    Reward weights that change at named steps and hold until the next.

    Args:
        trainer (`GRPOTrainer`): Its `reward_weights` are set before every step.
        weights (`Mapping[int, Sequence[float]]`): Weights, one a reward, by the step from which they hold, counted
            from 0. Before the first of these steps the run's own `reward_weights` hold; rewards behind those that a
            step names keep theirs (those of `omni_grpo.experimental`).
    """

    def __init__(self, trainer: Any, weights: Mapping[int, Sequence[float]]) -> None:
        self.trainer, self.before = trainer, trainer.reward_weights.tolist()
        self.weights = {step: [*w, *self.before[len(w) :]] for step, w in sorted(weights.items())}

    def at(self, step: int) -> list[float]:
        """The weights at a step, counted from 0."""
        return next((list(w) for first, w in reversed(self.weights.items()) if first <= step), self.before)

    def on_step_begin(self, args, state, control, **kwargs):
        self.trainer.reward_weights = torch.tensor(self.at(state.global_step), dtype=torch.float32)
        for name, weight in zip(self.trainer.reward_func_names, self.at(state.global_step), strict=True):
            self.trainer._metrics["train"][f"reward_weight/{name}"].append(weight)


def schedules(trainer: Any) -> Iterator[TrainerCallback]:
    """The callbacks that the trainer's configuration asks for."""
    if trainer.args.beta_end is not None:
        yield BetaSchedule(trainer, trainer.args.beta, trainer.args.beta_end, trainer.args.beta_share)
    if trainer.args.reward_weight_schedule:
        yield RewardWeightSchedule(trainer, trainer.args.reward_weight_schedule)
