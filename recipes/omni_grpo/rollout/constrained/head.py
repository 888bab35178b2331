# SPDX-License-Identifier: Apache-2.0
"""
Log-probabilities of the distribution that was sampled from: renormalised over the tokens that a mask allowed.

TRL's fused head knows one set of tokens, the whole vocabulary; `exclude_tokens` makes it the vocabulary without those
that are never sampled. The path of `add_constrained_head` beside it knows one set per position. It
scores the positions at which there was a choice and leaves the rest at zero, in slices that are computed again in
the backward pass, so that logits of the whole batch never exist at once.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl.trainer.utils import FusedCausalLMOutput

from omni_grpo.rollout.constrained.section_constraint import SectionConstraint

SLICE = 1 << 25  # logits at a time: 128 MB in float32
# Those that TRL's fused head knows.
LOGIT_SCALES = ("logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
# An excluded token's logit, about: its probability is exactly zero, and float16 holds it. Not -inf, whose gradient is NaN.
EXCLUDED = -3e4


def exclude_tokens(model: Any, ids: Sequence[int]) -> None:
    """
    Take tokens that are never sampled out of the softmax of TRL's fused head: log-probabilities and entropy are then
    those of the distribution that is sampled. Their logits have no gradient. Sampling and SFT do not use the fused head.

    The head sees a bias. Where the model caps its logits (`final_logit_softcapping` c), the cap holds for it, too, and a
    token keeps a probability of about exp(-c), 1e-13 for a cap of 30.

    Args:
        model (`PreTrainedModel`): With TRL's fused head; not wrapped by PEFT or an engine.
        ids (`Sequence[int]`): The tokens; none leaves the model as it is.
    """
    if not ids:
        return
    fused_forward = model.forward
    if is_deepspeed_zero3_enabled():  # which gathers a weight for the module that it is of, and that does not run
        from deepspeed.runtime.zero import register_external_parameter

        register_external_parameter(model, model.get_output_embeddings().weight)

    @functools.wraps(type(model).forward)  # `generate` holds its arguments against this signature
    def forward(self, *args, fused_lm_head: bool = False, **kwargs):
        if not fused_lm_head:
            return fused_forward(*args, **kwargs)
        head = type(self).get_output_embeddings(self)

        def seen() -> SimpleNamespace:
            """Asked for once the backbone has run, by which FSDP2 has put the head's weights together."""
            weight = getattr(head.weight, "full_tensor", lambda: head.weight)()
            bias = weight.new_zeros(head.out_features) if head.bias is None else head.bias
            bias = bias.index_fill(0, torch.tensor(ids, device=bias.device), EXCLUDED)
            if hasattr(weight, "ds_status"):  # ZeRO-3: the weight is gathered, this is whole
                bias.ds_status = type(weight.ds_status).AVAILABLE
            return SimpleNamespace(weight=weight, bias=bias)

        self.get_output_embeddings = seen
        try:
            return fused_forward(*args, fused_lm_head=True, **kwargs)
        finally:
            vars(self).pop("get_output_embeddings", None)  # of a second mask on the same model it is gone already

    model.forward = types.MethodType(forward, model)


def add_constrained_head(model: Any, temperature: float = 1.0, cast_lm_head_to_fp32: bool = False) -> None:
    """
    Give a model with TRL's fused head a second one, used when `allowed_sets` and `set_index` are passed.

    `model(..., labels=labels, fused_lm_head=True, allowed_sets=sets, set_index=index)` then returns `log_probs` and
    `entropy` `(batch, length - 1)` of the softmax over the allowed tokens, zero where `index` is negative. Without
    them the forward is the one that was there. With labels that are shifted already, `shift_labels`, `set_index` has
    their shape and the outputs are `(batch, length)`.

    Args:
        model (`PreTrainedModel`): With `base_model` and output embeddings; not wrapped by PEFT or an engine.
        temperature (`float`): The logits are divided by it.
        cast_lm_head_to_fp32 (`bool`): Whether the projection runs in float32, outside autocast.

    Raises:
        `ValueError`: The model multiplies its logits by a number of its own. A cap on them (`final_logit_softcapping`) is
            kept to.
    """
    fused_forward, text = model.forward, model.config.get_text_config()
    if scales := [name for name in LOGIT_SCALES if getattr(text, name, None) not in (None, 1)]:
        raise ValueError(
            f"constrained_decoding: {type(model).__name__} scales its logits (`{scales[0]}`), which would be scored "
            "unscaled; set `constrained_decoding: none`"
        )

    @functools.wraps(type(model).forward)  # `generate` holds its arguments against this signature
    def forward(self, *args, allowed_sets: Any = None, set_index: Any = None, **kwargs):
        if allowed_sets is None:
            return fused_forward(*args, **kwargs)
        labels, shifted = kwargs.pop("labels", None), kwargs.pop("shift_labels", None)
        kwargs.pop("fused_lm_head")
        hidden = self.base_model(*args, use_cache=False, **kwargs).last_hidden_state
        labels, hidden = (labels[:, 1:], hidden[:, :-1]) if shifted is None else (shifted, hidden)
        index = torch.nn.functional.pad(set_index, (labels.size(1) - set_index.size(1), 0), value=-1)
        is_choice = index >= 0
        head, cap = self.get_output_embeddings(), getattr(text, "final_logit_softcapping", None)
        plain = torch.autocast(hidden.device.type, enabled=False) if cast_lm_head_to_fp32 else nullcontext()
        with plain:
            logps, entropies = masked_log_probs(
                hidden[is_choice].float() if cast_lm_head_to_fp32 else hidden[is_choice],
                head if cap is None else lambda rows: cap * torch.tanh(head(rows) / cap),
                labels[is_choice],
                allowed_sets,
                index[is_choice],
                temperature,
            )
        # Scattering keeps the output tied to the model where no position had a choice.
        blank = logps.new_zeros(index.shape)
        return FusedCausalLMOutput(
            log_probs=blank.masked_scatter(is_choice, logps), entropy=blank.masked_scatter(is_choice, entropies)
        )

    model.forward = types.MethodType(forward, model)


def masked_log_probs(
    hidden: torch.Tensor,
    head: Any,
    targets: torch.Tensor,
    allowed_sets: torch.Tensor,
    set_index: torch.Tensor,
    temperature: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Log-probability of each target and entropy, both `(N,)` in float32, of softmax(head(hidden) / temperature)
    restricted to a set of tokens.

    Args:
        hidden (`Tensor` `(N, H)`): Hidden states.
        head (`Callable`): Hidden states to logits `(N, V)`.
        targets (`Tensor` `(N,)`): Token ids, each in its set.
        allowed_sets (`Tensor` `(S, V)` of `bool`): The sets that occur.
        set_index (`Tensor` `(N,)`): Which of them holds for each row.
        temperature (`float`): The logits are divided by it.
    """

    def score(hidden: torch.Tensor, targets: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = head(hidden).float() / temperature
        # Not -inf: the probability is exactly zero all the same, and 0 * log 0 and its gradient stay numbers.
        logits = logits.masked_fill(~allowed_sets[index], -1e9)
        logps = logits.log_softmax(-1)
        return logps.gather(-1, targets[:, None])[:, 0], -(logps.exp() * logps).sum(-1)

    rows = max(1, SLICE // allowed_sets.size(1))
    if len(targets) <= rows:
        return score(hidden, targets, set_index)
    slices = zip(hidden.split(rows), targets.split(rows), set_index.split(rows), strict=True)
    scored = [checkpoint(score, *part, use_reentrant=False) for part in slices]
    return torch.cat([logps for logps, _ in scored]), torch.cat([entropies for _, entropies in scored])


def allowed_sets(
    constraint: SectionConstraint, completion_ids: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Sets of tokens that were allowed in completions.

    Args:
        constraint ([`SectionConstraint`]): Under which they were sampled.
        completion_ids (`Tensor` `(B, T)`): Padded on the right.
        mask (`Tensor` `(B, T)`): 1 at tokens, 0 at padding.

    Returns:
        The sets that occur, `(S, V)`; and which of them holds where, `(B, T)`, -1 where there was no choice or no token.

    Raises:
        `ValueError`: A completion was not sampled under the constraint.
    """
    places: dict[Any, int] = {}
    index = torch.full(completion_ids.shape, -1)
    for i, (ids, is_token) in enumerate(zip(completion_ids.tolist(), mask.bool().tolist(), strict=True)):
        kept = tuple(token for token, kept in zip(ids, is_token, strict=True) if kept)
        for j, name in enumerate(constraint.trace(kept)):
            if constraint.count(name) > 1:
                index[i, j] = places.setdefault(name, len(places))
    sets = [torch.from_numpy(constraint.allowed(name)) for name in places]
    table = torch.stack(sets) if sets else torch.ones(1, constraint.vocab_size, dtype=torch.bool)
    return table.to(completion_ids.device), index.to(completion_ids.device)
