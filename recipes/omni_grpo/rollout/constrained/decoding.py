# SPDX-License-Identifier: Apache-2.0
"""
Sections enforced while sampling, and a loss that knows of it.

Sampling under a mask is sampling from another distribution: the softmax over the allowed tokens. So in this mode all
passes (old, new, reference) score that distribution, and tokens that were not chosen, because one alone was allowed,
are left out of the loss and of its token counts. The expected gradient is then the policy gradient of the policy that
was sampled (proved by enumeration in `tests/recipes/test_constrained_gradient.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor

from omni_grpo.rollout.constrained.section_constraint import SectionConstraint
from omni_grpo.rollout.constrained.token_bytes import token_bytes
from omni_grpo.rollout.distribution import bent_by
from omni_rewards import SectionSchema


class SectionLogitsProcessor(LogitsProcessor):
    """
    Sets the scores of tokens that would break the section schema to minus infinity, in place.

    Each row has its own state; it follows from the row's tokens alone, so batches, left padding, caches and reordered
    rows change nothing. Rows that have ended are left as they are. Use one processor for one call of `generate`.

    Args:
        constraint ([`SectionConstraint`]): What is allowed.
        prompt_length (`int`, *optional*): Width of the padded prompts; defaults to that of the first call's ids.

    Raises:
        `ValueError`: A row holds a token that the constraint does not allow, so something else sampled it.
    """

    def __init__(self, constraint: SectionConstraint, prompt_length: int | None = None) -> None:
        self.constraint, self.prompt_length = constraint, prompt_length
        self._seen: torch.Tensor | None = None  # ids (B, L) of the call before, and the state of each row behind them
        self._states: list[int] = []
        self._sets: dict[Any, tuple[bool, torch.Tensor]] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if scores.size(-1) != self.constraint.vocab_size:
            raise ValueError(
                f"scores over {scores.size(-1)} tokens, the constraint knows {self.constraint.vocab_size}; "
                "give `from_tokenizer` the model's `vocab_size`"
            )
        if self.prompt_length is None:
            self.prompt_length = input_ids.size(1)
        self._follow(input_ids, self.prompt_length)
        position = input_ids.size(1) - self.prompt_length
        for row, state in zip(scores, self._states, strict=True):
            if state != self.constraint.done:
                is_allowed, ids = self._set(self.constraint.mask(state, position), scores.device)
                if is_allowed:
                    kept = row[ids]
                    row.fill_(-torch.inf)[ids] = kept
                else:
                    row.index_fill_(0, ids, -torch.inf)
        return scores

    def _follow(self, input_ids: torch.Tensor, prompt_length: int) -> None:
        """Bring the states up to `input_ids`: by the last token if the rest is known, else from the start."""
        known = self._seen is not None and torch.equal(self._seen, input_ids[:, :-1])
        first = input_ids.size(1) - 1 if known else prompt_length
        if not known:
            self._states = [self.constraint.start] * len(input_ids)
        for position, tokens in enumerate(input_ids[:, first:].T.tolist(), start=first - prompt_length):
            advance = self.constraint.advance
            self._states = [advance(s, position, t) for s, t in zip(self._states, tokens, strict=True)]
        self._seen = input_ids.clone()

    def _set(self, mask: Any, device: torch.device) -> tuple[bool, torch.Tensor]:
        """[`~SectionConstraint.shorter`] of a mask, on the scores' device."""
        if mask not in self._sets:
            is_allowed, ids = self.constraint.shorter(mask)
            self._sets[mask] = is_allowed, torch.from_numpy(ids).to(device)
        return self._sets[mask]


def section_constraint(
    args: Any,
    tokenizer: Any,
    model: Any,
    end_token_ids: Sequence[int],
    schema: SectionSchema,
    forbidden: Sequence[int],
) -> SectionConstraint | None:
    """
    What `constrained_decoding` holds a run's completions to; `None` in mode `none`.

    Raises:
        `ValueError`: No completion keeps to the limits, or sampling would differ from what is scored.
    """
    if args.constrained_decoding == "none":
        return None
    bent = bent_by(args)
    if bent or args.use_transformers_continuous_batching:
        bent = bent or "use_transformers_continuous_batching"
        raise ValueError(f"constrained_decoding scores what it samples; with {bent} it could not; take it out")
    return SectionConstraint(
        token_bytes(tokenizer, model.config.get_text_config().vocab_size),
        end_token_ids,
        schema,
        args.max_completion_length,
        args.constrained_decoding,
        args.section_budgets,
        forbidden,
    )
