# SPDX-License-Identifier: Apache-2.0
"""Credit by section inside TRL's trainer: rewards in, advantages of shape `(B, T)` out, and what to watch."""

from __future__ import annotations

import itertools
import logging
import math
from typing import TYPE_CHECKING, Any

import torch
from trl.trainer.utils import pad

from omni_grpo.credit.advantages import (
    EVERYWHERE,
    credit_table,
    relative_rewards,
    resolve_credit_map,
    skill_weights,
    sum_then_normalize,
    token_advantages,
)
from omni_grpo.credit.section_masks import TokenPlaces, hidden_tags, places_of, token_places
from omni_rewards import SectionSchema

logger = logging.getLogger(__name__)

LEAKING_LOSSES = {
    "luspo": "is an objective of whole sequences, one ratio for all their tokens",
    "vespo": "weighs every token by one factor made of the ratios of all tokens",
}


class SectionCredit:
    """
    Mix-in for TRL's `GRPOTrainer`: gives each token the credit of the rewards that may move it.

    With `credit_map: uniform` the advantages are TRL's own, `(B,)`; only where a reward was not given (`None`) and
    TRL would count it as 0, it is left out. With any other map they are `(B, T)`.
    """

    if TYPE_CHECKING:
        # Upstream's own annotations are unions over every backend.
        args: Any
        model: Any
        accelerator: Any
        num_generations: Any
        num_generations_eval: Any
        reward_func_names: list[str]
        reward_weights: torch.Tensor
        scale_rewards: Any
        _tokenizer: Any
        _metrics: Any
        _logs: Any
        _show_credit: Any  # of [`~omni_grpo.rollout_table.RolloutTable`]

    _section_schema: SectionSchema
    _rewards: torch.Tensor  # (world batch, K), of the batch being scored
    _token_places: list[TokenPlaces]  # of this process's rows

    def _begin_credit(self) -> None:
        """
        Read the credit map, once TRL has named the rewards.

        Raises:
            `ValueError`: The map does not fit the rewards or the sections; the run's loss would carry one token's
                credit to others; or decoding hides the schema's tags from the rewards.
        """
        schema, names = self._section_schema, self.reward_func_names
        if hidden := hidden_tags(self._tokenizer, schema):
            raise ValueError(
                f"section_schema: {', '.join(hidden)} are special tokens, which TRL leaves out of the text that "
                "rewards read; add them to the tokenizer as ordinary tokens (special_tokens=False)"
            )
        chosen = resolve_credit_map(self.args.credit_map, names, schema)
        self._credit = None if chosen is None else [credit_table(chosen, schema, ok) for ok in (True, False)]
        if chosen is not None:
            if any(EVERYWHERE not in where for where in chosen):
                refuse_leaks(self.args)
            if self.args.multi_objective_aggregation != "sum_then_normalize":
                raise ValueError(
                    "multi_objective_aggregation: normalize_then_sum divides the sum of all rewards by one deviation, "
                    "but tokens of different sections have different sums; leave it out (every reward is normalised "
                    "by itself already, see `scale_rewards`), or set `credit_map: uniform`"
                )
        if self.args.credit_map == "skill":
            preset, own = skill_weights(names), self.reward_weights.tolist()
            weights = [o if p is None else p for p, o in zip(preset, own, strict=True)]
            self.args.reward_weights = [p for p in preset if p is not None]
            self.reward_weights = torch.tensor(weights, dtype=torch.float32)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        """Keep every reward of every process, and find each token's place."""
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)  # type: ignore[misc]
        self._rewards = rewards
        self._token_places = [token_places(self._tokenizer, ids, self._section_schema) for ids in completion_ids_list]
        return rewards

    def _generate_and_score_completions(self, inputs):
        """Put the tokens' own advantages in the place of TRL's."""
        output = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        rewards, stock, device = self._rewards, output["advantages"], output["completion_ids"].device
        mode = "train" if self.model.training else "eval"
        group = self.num_generations if mode == "train" else self.num_generations_eval
        rank, size = self.accelerator.process_index, len(self._token_places)
        mine = slice(rank * size, (rank + 1) * size)
        weights = self.reward_weights.to(device)
        relative = relative_rewards(rewards, group, self.scale_rewards)

        # (B, T); -1 on padding
        places = pad([torch.tensor(row.indices) for row in self._token_places], padding_value=-1).to(device)
        length = output["completion_ids"].size(1)
        places = torch.nn.functional.pad(places, (0, length - places.size(1)), value=-1)
        if self._credit is not None:
            well_formed = torch.tensor([row.ok for row in self._token_places], device=device)
            good, bad = (table.to(device) for table in self._credit)
            output["advantages"] = token_advantages(relative[mine], weights, places, well_formed, (good, bad))
        elif self.args.multi_objective_aggregation == "sum_then_normalize" and rewards.isnan().any():
            output["advantages"] = sum_then_normalize(rewards, weights, group, self.scale_rewards)[mine]
        by_token = output["advantages"] if output["advantages"].dim() == 2 else output["advantages"][:, None]
        by_token = by_token.expand(places.shape)
        if output["advantages"] is not stock:
            self._show_in_table(by_token, places)
        self._show_credit(by_token, places, places_of(self._section_schema), (rewards * weights).nansum(dim=1))
        self._log_sections(mode, by_token, places)
        self._log_correlations(mode, relative, rewards)
        return output

    def _show_in_table(self, advantages: torch.Tensor, places: torch.Tensor) -> None:
        """The completions table shows each row's mean advantage over its tokens."""
        inside = places >= 0
        means = (advantages * inside).sum(dim=1) / inside.sum(dim=1).clamp(min=1)
        column, shown = self._logs["advantages"], self.accelerator.gather(means).tolist()
        for _ in range(min(len(column), len(shown))):
            column.pop()
        column.extend(shown)

    def _log_sections(self, mode: str, advantages: torch.Tensor, places: torch.Tensor) -> None:
        """Share, mean advantage and its deviation for each place, and completions that lack a section's tokens."""
        names = places_of(self._section_schema)
        chosen = torch.stack([places == place for place in range(len(names))])  # (P, B, T)
        sums = [(chosen * values).sum(dim=(1, 2), dtype=torch.float64) for values in (1.0, advantages, advantages**2)]
        empty = ~chosen[: len(self._section_schema.names)].any(dim=2).all(dim=0)  # (B,)
        unseen = sum(bool(e) and row.ok for e, row in zip(empty.tolist(), self._token_places, strict=True))
        if unseen:
            logger.warning("%d well-formed completions have a section without a token: its rewards move none", unseen)
        local = torch.cat([*sums, torch.tensor([empty.sum(), len(empty)], device=places.device, dtype=torch.float64)])
        *flat, empties, rows = self.accelerator.reduce(local, reduction="sum").tolist()
        counts, totals, squares = (flat[i * len(names) : (i + 1) * len(names)] for i in range(3))
        metrics = self._metrics[mode]
        metrics["credit/frac_empty_mask"].append(empties / rows)
        for name, count, total, square in zip(names, counts, totals, squares, strict=True):
            metrics[f"credit/share/{name}"].append(count / max(sum(counts), 1))
            if count:
                mean = total / count
                metrics[f"credit/advantage_mean/{name}"].append(mean)
                metrics[f"credit/advantage_std/{name}"].append(max(square / count - mean**2, 0.0) ** 0.5)

    def _log_correlations(self, mode: str, relative: torch.Tensor, rewards: torch.Tensor) -> None:
        """How far two rewards rise and fall together within their groups, where both are given and both vary."""
        for a, b in itertools.combinations(range(rewards.size(1)), 2):
            both = ~rewards[:, [a, b]].isnan().any(dim=1)
            x, y = relative[both][:, a].double(), relative[both][:, b].double()
            value = torch.corrcoef(torch.stack([x, y]))[0, 1].item() if len(x) > 1 else float("nan")
            if math.isfinite(value):
                names = self.reward_func_names
                self._metrics[mode][f"credit/correlation/{names[a]}~{names[b]}"].append(value)


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
