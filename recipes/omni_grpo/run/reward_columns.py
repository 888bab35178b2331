# SPDX-License-Identifier: Apache-2.0
"""Which columns of the data a reward reads, and whether it applies to any row: known before training, not after."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from torch import nn
from trl.trainer.utils import get_callable_name

from omni_grpo.data.dataset import modalities_of
from omni_grpo.data.rows.schema import FIELDS, MAX_REPORTED, DataError
from omni_grpo.data.rows.trl_rows import PICTURES
from omni_grpo.run.reward_settings import GIVEN_BY_TRL

logger = logging.getLogger(__name__)


def needed_columns(reward: Callable[..., Any] | str) -> list[str]:
    """
    Columns without which a reward says nothing: it declares them as parameters without a default, or, where that hangs
    on its settings, in an attribute `needed_columns`.

    >>> needed_columns(lambda completions, context, options=None, **kwargs: [])
    ['context']
    """
    if isinstance(reward, (str, nn.Module)):  # a reward model reads the text
        return []
    if hasattr(reward, "needed_columns"):
        return list(reward.needed_columns)  # pyright: ignore[reportFunctionMemberAccess]
    parameters = inspect.signature(reward).parameters.values()
    named = (p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
    return [parameter.name for parameter in named if parameter.name not in GIVEN_BY_TRL]


def check_reward_columns(rewards: Any, dataset: Any, allow_unused: bool, context_gain: bool = False) -> None:
    """
    Hold the rewards of a run to its rows. A stream is not looked at.

    Args:
        rewards (`Callable`, `str`, or a list of them): The run's rewards.
        dataset (`Dataset` or `IterableDataset`): Its training rows.
        allow_unused (`bool`): The run's `allow_unused_rewards`.
        context_gain (`bool`, defaults to `False`): Whether the run has a `context_gain_weight`, which needs media.

    Raises:
        `DataError`: A reward applies to no row, and `allow_unused_rewards` is not set; or a column is missing that a
            reward cannot do without, or some rows have no value there.
    """
    if not hasattr(dataset, "column_names") or not hasattr(dataset, "__len__"):
        return
    unused, broken = [], []
    funcs: list[Any] = rewards if isinstance(rewards, list) else [rewards]
    for reward in funcs:
        for column in needed_columns(reward):
            name, there = get_callable_name(reward), column in dataset.column_names
            values = dataset[column] if there and column not in PICTURES else []
            empty = [i for i, value in enumerate(values) if value in (None, "", [])]
            if not there or (empty and FIELDS.get(column, ("", ""))[1] == "yes"):
                rows = f"rows {empty[:MAX_REPORTED]} have no" if there else "no row has a"
                broken.append(f"{name}: {rows} `{column}`, which it needs; add it, or take the reward out")
            elif len(empty) == len(dataset):
                unused.append(f"{name} applies to no row: none has a `{column}`")
    if context_gain and not modalities_of(dataset):
        unused.append("context_gain applies to no row: none has media")
    if broken or (unused and not allow_unused):
        remedy = "; fill the column, take the reward out, or set `allow_unused_rewards: true`" if unused else ""
        raise DataError("\n".join([*broken, *unused]) + remedy)
    for problem in unused:
        logger.warning("%s; it is logged as None, and moves nothing", problem)
