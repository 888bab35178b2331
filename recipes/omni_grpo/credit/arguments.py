# SPDX-License-Identifier: Apache-2.0
"""Fields of a run that say which reward moves which section, and what changes over its steps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from omni_rewards import CONTEXT_THINK_ANSWER, SectionSchema


@dataclass
class CreditArguments:
    """
    Credit by section and schedules, a part of [`OmniGRPOConfig`].

    Args:
        section_schema (`list[str]`, *optional*): Names of the sections in order; defaults to the prompt style's.
        credit_map (`str` or `dict`, defaults to `"paper"`):
            Which tokens each reward moves: `uniform` (stock GRPO), `paper`, `strict`, `skill`, or a map from reward to
            sections, `tag`, `outside` or `everywhere` (on the command line as JSON); see
            [`~omni_grpo.credit.advantages.resolve_credit_map`].
        beta_end (`float`, *optional*): KL weight that `beta` changes to, linearly; constant if not given.
        beta_share (`float`, defaults to `0.5`): Part of the run's steps over which it does.
        reward_weight_schedule (`dict`, *optional*):
            Reward weights by the step from which they hold, e.g. `{0: [1, 0], 200: [1, 1]}` (as JSON, too).
    """

    section_schema: list[str] | None = None
    credit_map: dict[str, Any] | str | None = "paper"
    beta_end: float | None = None
    beta_share: float = 0.5
    reward_weight_schedule: dict[str, Any] | str | None = None

    def check_credit(self, beta: float, reward_weights: list[float] | None) -> None:
        """
        Bring the fields into one form.

        Raises:
            `ValueError`: A field that cannot be; the message names it.
        """
        self.schema(SectionSchema(("answer",)))
        self.credit_map = _read_map("credit_map", self.credit_map) or "paper"
        if self.credit_map == "skill" and (reward_weights is not None or self.reward_weight_schedule):
            raise ValueError("credit_map: skill sets the reward weights itself; take yours out, or use `strict`")
        if self.beta_end is not None and not (beta > 0 and self.beta_end > 0 and 0 < self.beta_share <= 1):
            raise ValueError(
                f"beta_end: needs beta and beta_end above 0 (at 0 there is no reference) and beta_share in (0, 1]; "
                f"got beta {beta}, beta_end {self.beta_end}, beta_share {self.beta_share}"
            )
        schedule = _read_map("reward_weight_schedule", self.reward_weight_schedule) or {}
        if isinstance(schedule, str):
            raise ValueError(f"reward_weight_schedule: {schedule!r} is not a map from steps to weights")
        for step, weights in schedule.items():
            if not str(step).isdigit() or not isinstance(weights, list):
                raise ValueError(f"reward_weight_schedule: {step!r}: {weights!r} is not a step with a list of weights")
        self.reward_weight_schedule = {int(step): list(map(float, w)) for step, w in schedule.items()} or None  # type: ignore[assignment]

    def schema(self, default: SectionSchema) -> SectionSchema:
        """The run's sections: its own, or `default`."""
        try:
            return SectionSchema(tuple(self.section_schema)) if self.section_schema else default
        except ValueError as error:
            raise ValueError(f"section_schema: {error}") from error


def run_schema(args: CreditArguments, given: SectionSchema | None) -> SectionSchema:
    """
    The sections of a run: those that its trainer was given, or those of its configuration, or context, think, answer.

    Raises:
        `ValueError`: Both name some, and not the same.
    """
    schema = args.schema(given or CONTEXT_THINK_ANSWER)
    if given not in (None, schema):
        raise ValueError(f"section_schema: {args.section_schema} in `args`, {given.names} beside; give one")
    return schema


def _read_map(name: str, value: Any) -> Any:
    """A map as YAML gives it, or as JSON from the command line; other text as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}: not JSON: {error}") from error
