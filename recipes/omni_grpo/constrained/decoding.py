# SPDX-License-Identifier: Apache-2.0
"""
Sections enforced while sampling, and a loss that knows of it.

Sampling under a mask is sampling from another distribution: the softmax over the allowed tokens. So in this mode all
passes (old, new, reference) score that distribution, and tokens that were not chosen, because one alone was allowed,
are left out of the loss and of its token counts. The expected gradient is then the policy gradient of the policy that
was sampled (proved by enumeration in `tests/recipes/test_constrained_gradient.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from peft import PeftModel
from transformers import LogitsProcessor, LogitsProcessorList

from omni_grpo.constrained.head import add_constrained_head, allowed_sets
from omni_grpo.constrained.section_constraint import SectionConstraint
from omni_grpo.constrained.token_bytes import token_bytes
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


@contextmanager
def constrained_generation(model: Any, constraint: SectionConstraint) -> Iterator[list[SectionLogitsProcessor]]:
    """Within: `model.generate` samples under the constraint. Yields the processors of its calls, one a call."""
    generate, processors = model.generate, []

    @functools.wraps(generate)
    def wrapped(*args: Any, logits_processor: Any = None, **kwargs: Any):
        processors.append(SectionLogitsProcessor(constraint))
        return generate(
            *args, logits_processor=LogitsProcessorList([*(logits_processor or ()), processors[-1]]), **kwargs
        )

    with mock.patch.object(model, "generate", wrapped):
        yield processors


class ConstrainedDecoding:
    """
    Mix-in for TRL's `GRPOTrainer`: `constrained_decoding` in sampling and scoring. In mode `none` it does nothing.

    Raises:
        `ValueError`: No completion keeps to the limits, or sampling would differ from what is scored.
        `RuntimeError`: TRL sampled otherwise than by the model's `generate`.
    """

    if TYPE_CHECKING:
        # Upstream's own annotations are unions over every backend.
        args: Any
        model: Any
        model_wrapped: Any
        ref_model: Any
        accelerator: Any
        temperature: float
        max_completion_length: int
        eos_token_ids: Any
        generation_kwargs: dict[str, Any]
        _tokenizer: Any
        _metrics: Any

    _section_schema: SectionSchema
    _constraint: SectionConstraint | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.constrained_decoding == "none":
            return
        _refuse_truncated_sampling(self)
        policy: Any = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        self._constraint = SectionConstraint(
            token_bytes(self._tokenizer, policy.config.get_text_config().vocab_size),
            self.eos_token_ids,
            self._section_schema,
            self.max_completion_length,
            self.args.constrained_decoding,
            self.args.section_budgets,
            self.generation_kwargs.get("suppress_tokens") or (),
        )
        scored = [policy] if self.ref_model is None else [policy, self.accelerator.unwrap_model(self.ref_model)]
        for model in scored:
            add_constrained_head(model, self.temperature, self.args.cast_lm_head_to_fp32)

    def _generate(self, prompts: list):
        """Sample under the constraint; mark the tokens that were chosen among several (TRL's mask for the loss)."""
        if self._constraint is None:
            return super()._generate(prompts)  # type: ignore[misc]
        with constrained_generation(self.accelerator.unwrap_model(self.model_wrapped), self._constraint) as processors:
            prompt_ids, completion_ids, _, *rest = super()._generate(prompts)  # type: ignore[misc]
        if not processors:
            raise RuntimeError("constrained_decoding: sampling did not go through the model's `generate`")
        chosen = [self._constraint.choices(ids) for ids in completion_ids]
        self._metrics["train" if self.model.training else "eval"]["constrained/chosen_share"].append(
            sum(map(sum, chosen)) / sum(map(len, chosen))
        )
        return prompt_ids, completion_ids, chosen, *rest

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, **kwargs
    ):
        """Give the head the set of tokens that was allowed at each position."""
        if self._constraint is None:
            return super()._get_per_token_logps_and_entropies(  # type: ignore[misc]
                model, input_ids, attention_mask, logits_to_keep, batch_size, **kwargs
            )
        completion = slice(-logits_to_keep, None)
        sets, index = allowed_sets(self._constraint, input_ids[:, completion], attention_mask[:, completion])
        return super()._get_per_token_logps_and_entropies(  # type: ignore[misc]
            functools.partial(model, allowed_sets=sets, set_index=index),
            input_ids,
            attention_mask,
            logits_to_keep,
            None,  # one chunk, whose rows the index fits
            **kwargs,
        )


def _refuse_truncated_sampling(trainer: Any) -> None:
    """What cuts or bends the sampled distribution would not be in the scored one, and the ratio would be wrong."""
    asked = {
        "top_p": (trainer.top_p, 1.0),
        "top_k": (trainer.top_k, 0),
        "min_p": (trainer.min_p or 0.0, 0.0),
        "repetition_penalty": (trainer.repetition_penalty, 1.0),
        "use_transformers_continuous_batching": (trainer.use_transformers_continuous_batching, False),
    }
    for name, (value, neutral) in asked.items():
        if value != neutral:
            raise ValueError(
                f"constrained_decoding scores exactly the distribution that it samples; with {name}={value} it could "
                f"not. Set {name} to {neutral}"
            )
