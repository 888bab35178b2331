# SPDX-License-Identifier: Apache-2.0
"""The rewards of this folder behind a run's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from trl.trainer.utils import get_callable_name

from omni_grpo.data.encoding.encoder import PromptEncoder
from omni_grpo.data.encoding.inputs import EncodedPrompt
from omni_grpo.experimental.context_gain import ContextGain
from omni_grpo.experimental.contrast import contrast_reward
from omni_grpo.rollout.record import Row
from omni_rewards import SectionSchema


def grounding_rewards(
    args: Any,
    schema: SectionSchema,
    encoder: PromptEncoder,
    rows: Callable[[], Sequence[Row]],
    score: Callable[[Sequence[EncodedPrompt], Sequence[list[int]]], torch.Tensor],
) -> dict[Callable[..., Any], float]:
    """
    `context_gain` and `contrast_reward` with their weights, where `args` gives them one; see [`ContextGain`].

    Raises:
        `ValueError`: The schema has no context.
    """
    found: dict[Callable[..., Any], float] = {}
    if args.context_gain_weight is not None:
        found[ContextGain(rows, score, encoder, schema, args.context_gain_clip)] = args.context_gain_weight
    if args.contrast_weight is not None:
        found[contrast_reward] = args.contrast_weight
    return found


@contextmanager
def with_rewards(reward_funcs: Any, args: Any, added: dict[Callable[..., Any], float]) -> Iterator[list[Any]]:
    """
    Within: all rewards, and `args.reward_weights` for all of them, as TRL's constructor takes both.

    Raises:
        `ValueError`: A reward of the run has the name of one that is added.
    """
    funcs = list(reward_funcs) if isinstance(reward_funcs, list) else [reward_funcs]
    for name in map(get_callable_name, added):
        if name in map(get_callable_name, funcs):
            raise ValueError(f"reward_funcs: {name!r} is the trainer's own name; call yours otherwise")
    weights = args.reward_weights
    if added:
        args.reward_weights = [*([1.0] * len(funcs) if weights is None else weights), *added.values()]
    try:
        yield [*funcs, *added]
    finally:
        args.reward_weights = weights  # as the run's configuration says
