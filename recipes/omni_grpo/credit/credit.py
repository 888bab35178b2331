# SPDX-License-Identifier: Apache-2.0
"""Rewards of a rollout to advantages: each token gets the credit of the rewards that may move it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from trl.trainer.utils import pad

from omni_grpo.credit.advantages import (
    EVERYWHERE,
    Places,
    credit_table,
    relative_rewards,
    resolve_credit_map,
    skill_weights,
    sum_then_normalize,
    token_advantages,
)
from omni_grpo.credit.section_masks import hidden_tags, token_places
from omni_grpo.rollout.record import Rollout
from omni_rewards import SectionSchema

logger = logging.getLogger(__name__)

LEAKING_LOSSES = {
    "luspo": "is an objective of whole sequences, one ratio for all their tokens",
    "vespo": "weighs every token by one factor made of the ratios of all tokens",
}


class Credited(NamedTuple):
    """
    What a rollout's rewards came to.

    Args:
        advantages (`Tensor` `(B, T)` or `(B,)`): For the loss; of this process's rows.
        by_token (`Tensor` `(B, T)`): The same for every token, for tables.
        places (`Tensor` `(B, T)`): Place of each token, -1 on padding.
        relative (`Tensor` `(world B, K)`): Each reward against its own group.
    """

    advantages: torch.Tensor
    by_token: torch.Tensor
    places: torch.Tensor
    relative: torch.Tensor


class Credit:
    """
    Gives each token the credit of the rewards that may move it.

    With `credit_map: stock` the advantages are TRL's own, `(B,)`, with `uniform`, too; only where a reward was given to some
    of a group and not to others (`None`), and TRL would count it as 0, it is left out. With any other map they are `(B, T)`.

    Args:
        args ([`~omni_grpo.config.OmniGRPOConfig`]): `credit_map`, and the loss that it has to fit.
        rewards (`Mapping[str, Sequence[str]]`): The run's rewards by TRL's names, with the `sections` of each.
        schema ([`SectionSchema`]): The run's sections.
        tokenizer (`PreTrainedTokenizerBase`): Decodes completions.
        scale (`str`): TRL's `scale_rewards`: `none`, `group` or `batch`.

    Raises:
        `ValueError`: The map does not fit the rewards or the sections; the run's loss would carry one token's credit to
            others; or decoding hides the schema's tags from the rewards.
    """

    def __init__(
        self,
        args: Any,
        rewards: Mapping[str, Sequence[str] | None],
        schema: SectionSchema,
        tokenizer: Any,
        scale: str,
    ) -> None:
        if hidden := hidden_tags(tokenizer, schema):
            raise ValueError(
                f"section_schema: {', '.join(hidden)} are special tokens, which TRL leaves out of the text that "
                "rewards read; add them to the tokenizer as ordinary tokens (special_tokens=False)"
            )
        self.args, self.rewards, self.schema, self.tokenizer, self.scale = args, rewards, schema, tokenizer, scale
        chosen = credit_places(args, rewards, schema)
        self._tables = None if chosen is None else [credit_table(chosen, schema, ok) for ok in (True, False)]

    def weights(self, own: torch.Tensor) -> torch.Tensor:
        """Weights `(K,)` of the rewards: the run's own, and under the preset `skill` the preset's."""
        if self.args.credit_map != "skill":
            return own
        preset = skill_weights(self.rewards, self.schema)
        return torch.tensor([o if p is None else p for p, o in zip(preset, own.tolist(), strict=True)])

    def locate(self, completion_ids: Sequence[int]) -> list[int]:
        """Place of each token of a completion, see [`~omni_grpo.credit.section_masks.places_of`]."""
        return token_places(self.tokenizer, completion_ids, self.schema).indices

    def __call__(self, rollout: Rollout, stock: torch.Tensor, weights: torch.Tensor, width: int) -> Credited:
        """
        Advantages of this process's rows.

        Args:
            rollout ([`Rollout`]): With rewards, sections and places.
            stock (`Tensor` `(B,)`): TRL's own advantages.
            weights (`Tensor` `(K,)`): Of the rewards, now.
            width (`int`): Columns `T` of the completions.
        """
        rewards, device = rollout.rewards, stock.device
        relative = relative_rewards(rewards, rollout.group_size, self.scale)
        places = pad([torch.tensor(row.places, dtype=torch.long) for row in rollout.rows], padding_value=-1).to(device)
        places = torch.nn.functional.pad(places, (0, width - places.size(1)), value=-1)
        advantages = stock
        if self._tables is not None:
            well_formed = torch.tensor(
                [row.sections is not None and row.sections.ok for row in rollout.rows], device=device
            )
            good, bad = (table.to(device) for table in self._tables)
            advantages = token_advantages(relative[rollout.mine], weights, places, well_formed, (good, bad))
        elif self.args.credit_map != "stock" and self._has_gaps(rewards, rollout.group_size):
            advantages = sum_then_normalize(rewards, weights, rollout.group_size, self.scale)[rollout.mine]
        by_token = advantages if advantages.dim() == 2 else advantages[:, None]
        return Credited(advantages, by_token.expand(places.shape), places, relative)

    def _has_gaps(self, rewards: torch.Tensor, group_size: int) -> bool:
        """Whether a reward is given to some of a group and not to others, and TRL would sum what is left."""
        missing = rewards.isnan().view(-1, group_size, rewards.size(1))
        some = bool((missing.any(dim=1) & ~missing.all(dim=1)).any())
        return some and self.args.multi_objective_aggregation == "sum_then_normalize"


def credit_places(
    args: Any, rewards: Mapping[str, Sequence[str] | None], schema: SectionSchema
) -> list[Places] | None:
    """[`resolve_credit_map`] for a run; raises as it does, and for a loss that does not fit the map."""
    chosen = resolve_credit_map(args.credit_map, rewards, schema)
    if chosen is not None and any(EVERYWHERE not in where for where in chosen):
        refuse_leaks(args)
    if chosen is not None and args.multi_objective_aggregation != "sum_then_normalize":
        raise ValueError(
            "multi_objective_aggregation: normalize_then_sum divides the sum of all rewards by one deviation, but "
            "tokens of different sections have different sums; leave it out (every reward is normalised by itself "
            "already, see `scale_rewards`), or set `credit_map: uniform`"
        )
    return chosen


def refuse_leaks(args: Any) -> None:
    """
    Refuse losses whose gradient at a token depends on tokens of other sections.

    Raises:
        `ValueError`: Such a loss, with the reason.
    """
    reason = LEAKING_LOSSES.get(args.loss_type)
    field, value = "loss_type", args.loss_type
    if args.importance_sampling_level == "sequence":
        field, value = "importance_sampling_level", "sequence"
        reason = "weighs every token by one ratio, the mean over the whole sequence"
    if reason:
        raise ValueError(
            f"{field}: {value} {reason}, so that what one section earns moves the tokens of another; with credit by "
            "section use loss_type grpo, bnpo, dr_grpo, dapo, cispo or sapo and importance_sampling_level token, or "
            "set `credit_map: uniform`"
        )
