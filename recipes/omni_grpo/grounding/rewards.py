# SPDX-License-Identifier: Apache-2.0
"""The rewards of this folder as further columns of the trainer's rewards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trl.trainer.utils import get_callable_name

from omni_grpo.grounding.context_gain import SECTION, ContextGain
from omni_grpo.grounding.contrast import ContrastPairs
from omni_rewards import SectionSchema


class GroundingRewards(ContextGain, ContrastPairs):
    """
    Mix-in for TRL's `GRPOTrainer`: `context_gain` and `contrast_reward` stand behind the run's own rewards where they
    have a weight, and are weighted, credited, logged and shown in the completions table as they are.

    Raises:
        `ValueError`: The schema has no context, or a reward of the run has one of these names.
    """

    if TYPE_CHECKING:
        args: Any

    _section_schema: SectionSchema

    def __init__(self, *, reward_funcs: Any, args: Any, **kwargs: Any) -> None:
        ours = {self.context_gain: args.context_gain_weight, self.contrast_reward: args.contrast_weight}
        added = {reward: weight for reward, weight in ours.items() if weight is not None}
        funcs = list(reward_funcs) if isinstance(reward_funcs, list) else [reward_funcs]
        weights = args.reward_weights
        if self.context_gain in added and SECTION not in self._section_schema.names:
            raise ValueError(
                f"context_gain_weight: the sections {', '.join(self._section_schema.names)} have no {SECTION!r}; "
                "choose a prompt_style that asks for it, or leave context_gain_weight out"
            )
        for name in map(get_callable_name, added):
            if name in map(get_callable_name, funcs):
                raise ValueError(f"reward_funcs: {name!r} is the trainer's own name; call yours otherwise")
        if added:
            args.reward_weights = [*([1.0] * len(funcs) if weights is None else weights), *added.values()]
        try:
            super().__init__(reward_funcs=[*funcs, *added], args=args, **kwargs)  # type: ignore[call-arg]
        finally:
            args.reward_weights = weights  # as the run's configuration says
        if args.contrast_pairs:
            self._get_train_sampler()  # what is wrong with the pairs is met here, before any work
