# SPDX-License-Identifier: Apache-2.0
"""A generation batch, from prompts to advantages: what rewards, credit, tables and the loss read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from omni_grpo.data.encoding.inputs import EncodedPrompt
from omni_grpo.data.media.settings import MediaError
from omni_rewards import Sections

Mode = Literal["train", "eval"]


@dataclass
class Row:
    """
    One completion and what is known of it. TRL shuffles and splits a list of these as it does its tensors.

    Args:
        name (`str`): The data row's id, for errors and tables.
        example (`Mapping`): The data row.
        group (`str`): The same for the completions of one prompt, each once in a run.
        prompt ([`EncodedPrompt`]): As the model was shown it, with the features that hold for all passes.
        completion_ids (`list[int]`): As sampled.
        logprobs (`list[float]`, *optional*): Of these ids when they were sampled, where the sampler gives them.
        chosen (`list[int]`, *optional*): Under a constraint: 0 at tokens that alone were allowed.
        text (`str`): As the rewards read it.
        sections ([`Sections`], *optional*): Parsed from `text`, once.
        places (`list[int]`): Place of each token, see [`~omni_grpo.credit.section_masks.places_of`].
    """

    name: str
    example: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""
    prompt: EncodedPrompt = field(default_factory=lambda: EncodedPrompt([]))
    completion_ids: list[int] = field(default_factory=list)
    logprobs: list[float] | None = None
    chosen: list[int] | None = None
    text: str = ""
    sections: Sections | None = None
    places: list[int] = field(default_factory=list)


@dataclass
class Rollout:
    """
    The rows of this process and what holds for all; filled in this order, each field by the hook that is named.

    Args:
        rows (`list[Row]`): Of this process: prompts by `_tokenize_prompts`, completions by `_generate_single_turn`,
            texts, sections and places by `_calculate_rewards`.
        mode (`str`): Of the model when it was sampled.
        group_size (`int`): Completions of a prompt.
        first (`int`): Place of this process's first row among all processes' rows.
        rewards (`Tensor` `(world B, K)`): Of all processes, by `_calculate_rewards`; NaN where not given.
        advantages (`Tensor` `(B, T)` or `(B,)`): By `_generate_and_score_completions`.
        logps (`Tensor` `(B, T)`): Of the last scoring pass.
    """

    rows: list[Row]
    mode: Mode = "train"
    group_size: int = 1
    first: int = 0
    rewards: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    advantages: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    logps: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    @classmethod
    def begin(cls, inputs: Sequence[Mapping[str, Any]], mode: Mode, batch: str, group_size: int, rank: int) -> Rollout:
        """Of data rows, as TRL's sampler repeats them; a group may straddle two processes."""
        first = rank * len(inputs)
        rows = [
            Row(str(row.get("id", f"#{i}")), row, f"{mode} {batch}.{(first + i) // group_size}")
            for i, row in enumerate(inputs)
        ]
        return cls(rows, mode, group_size, first)

    @property
    def prompts(self) -> list[EncodedPrompt]:
        return [row.prompt for row in self.rows]

    @property
    def mine(self) -> slice:
        """This process's rows among all."""
        return slice(self.first, self.first + len(self.rows))

    def fill(self, **columns: Sequence[Any]) -> None:
        """Set fields of every row."""
        for name, values in columns.items():
            for row, value in zip(self.rows, values, strict=True):
                setattr(row, name, value)

    def check_pairing(self, ids: torch.Tensor, mask: torch.Tensor, completion_ids: torch.Tensor) -> None:
        """
        Hold each row to the prompt and the completion that it stands beside.

        Args:
            ids, mask (`Tensor` `(B, P)`): TRL's prompts of the same rows.
            completion_ids (`Tensor` `(B, T)`): Their completions, which tell rows of one question apart.

        Raises:
            `MediaError`: A row's prompt or completion is another one; the row is named.
        """
        for row, tokens, is_token, completion in zip(self.rows, ids, mask, completion_ids, strict=True):
            own = completion[: len(row.completion_ids)].tolist() == row.completion_ids
            if not own or tokens[is_token.bool()].tolist() != row.prompt.input_ids:
                raise MediaError(f"row {row.name!r}: the micro-batch pairs its media with another row's tokens")
