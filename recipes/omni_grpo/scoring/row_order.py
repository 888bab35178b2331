# SPDX-License-Identifier: Apache-2.0
"""
In which order the rows of a generation batch are dealt to micro-batches.

Where prompts are shared, groups stay together. Where rows are scored one by one, those of like length come together,
so that a micro-batch is padded little; the samples of an optimiser step, and with them its gradient, stay the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from trl.trainer.utils import shuffle_sequence_dict

Batch = dict[str, Any]  # tensors and lists with one entry a row, numbers, None


def permute_rows(batch: Batch, order: Sequence[int]) -> Batch:
    """Every entry of a batch with its rows in `order`; numbers and `None` as they are."""

    def permute(values: Any) -> Any:
        if values is None or (isinstance(values, torch.Tensor) and values.ndim == 0):
            return values
        return values[list(order)] if isinstance(values, torch.Tensor) else [values[i] for i in order]

    return {name: permute(values) for name, values in batch.items()}


def in_order(batch: Batch, trainer: Any) -> Batch:
    """
    A generation batch in the order in which it is dealt to micro-batches, and how much of these is padding.

    Args:
        batch (`dict`): With `rows`, and TRL's tensors.
        trainer ([`~omni_grpo.trainer.OmniGRPOTrainer`]): Whose `share_prompt` and micro-batches it is dealt by; logs
            `padding/before` and `padding/after` where rows are dealt by length.
    """
    if trainer.args.share_prompt == "off":
        return shuffle_sequence_dict(batch)
    size, micro_batches = trainer.args.per_device_train_batch_size, interchangeable_micro_batches(trainer)
    if trainer.scorer.shares:
        is_text = not trainer.media_embedder.family.modalities  # else a prompt is dear, and TRL's pass not the measure
        return shuffle_groups(batch, size * micro_batches if is_text else len(batch["rows"]))
    batch = shuffle_by_length(batch, size, micro_batches)
    for name, share in padding_shares(batch, size).items():
        trainer.run_log.metric("train", f"padding/{name}", share)
    return batch


def shuffle_groups(batch: Batch, span: int) -> Batch:
    """
    A generation batch in TRL's random order, and within each `span` the rows of a prompt together.

    Groups come in the order in which the permutation meets them. Where a span is an optimiser step, each step has the
    samples that TRL's has; where it is the batch, every prompt is computed once.

    Args:
        batch (`dict`): With `rows`, the [`~omni_grpo.rollout.record.Row`] of each.
        span (`int`): Rows that may change places, see [`interchangeable_micro_batches`].
    """
    identities = [row.prompt.identity for row in batch["rows"]]
    order, dealt = torch.randperm(len(identities)).tolist(), []
    for start in range(0, len(order), span):
        places: dict[Any, int] = {}
        for i in order[start : start + span]:
            places.setdefault(identities[i], len(places))
        dealt += sorted(sorted(order[start : start + span]), key=lambda i: places[identities[i]])
    return permute_rows(batch, dealt)


def shuffle_by_length(batch: Batch, size: int, micro_batches: int) -> Batch:
    """
    A generation batch in TRL's random order, then within each optimiser step in the order that is padded least.

    Args:
        batch (`dict`): With `prompt_mask` and `completion_mask`, `(B, …)`.
        size (`int`): Rows of a micro-batch.
        micro_batches (`int`): Micro-batches among which rows may change places: those of one optimiser step.
    """
    batch = shuffle_sequence_dict(batch)
    lengths = row_lengths(batch)
    order: list[int] = []
    for start in range(0, len(lengths), size * micro_batches):
        step = lengths[start : start + size * micro_batches]
        order += [start + i for i in least_padding_order(step, size)]
    return permute_rows(batch, order)


def interchangeable_micro_batches(trainer: Any) -> int:
    """
    Among how many successive micro-batches rows may change places with no change of any gradient: those of one
    optimiser step and one generation batch; 1 where a micro-batch has a mean or a quantile of its own in the loss.

    Args:
        trainer (`GRPOTrainer`): TRL's.
    """
    args = trainer.args
    own = args.loss_type == "bnpo" or args.top_entropy_quantile < 1.0
    if own or trainer._entropy_bonus_enabled or trainer.aux_loss_enabled:
        return 1
    fewer, more = sorted((args.steps_per_generation, args.gradient_accumulation_steps))
    return fewer if more % fewer == 0 else 1


def row_lengths(batch: Batch) -> list[tuple[int, int]]:
    """Tokens of each row's prompt and of its completion."""
    prompts, completions = (batch[f"{part}_mask"].sum(dim=1).tolist() for part in ("prompt", "completion"))
    return list(zip(prompts, completions, strict=True))


def padded_tokens(lengths: Sequence[tuple[int, int]], size: int) -> int:
    """
    Tokens and padding of rows in micro-batches of `size`, each as wide as its longest prompt and its longest completion
    (prompts are padded on the left, completions on the right).

    >>> padded_tokens([(5, 1), (2, 3), (2, 1), (2, 1)], 2)
    22
    """
    batches = [lengths[start : start + size] for start in range(0, len(lengths), size)]
    return sum(len(rows) * (max(p for p, _ in rows) + max(c for _, c in rows)) for rows in batches)


def least_padding_order(lengths: Sequence[tuple[int, int]], size: int) -> list[int]:
    """
    Of the order as it is, by prompt, by completion and by both together, the one that is padded least; at a tie the
    first of these.

    Args:
        lengths (sequence of `tuple[int, int]`): Tokens of each row's prompt and completion.
        size (`int`): Rows of a micro-batch.

    >>> least_padding_order([(9, 1), (2, 1), (9, 2), (2, 2)], 2)
    [1, 3, 0, 2]
    """
    rows = range(len(lengths))
    keys = (lambda i: lengths[i], lambda i: lengths[i][::-1], lambda i: sum(lengths[i]))
    orders = [list(rows), *(sorted(rows, key=key) for key in keys)]
    return min(orders, key=lambda order: padded_tokens([lengths[i] for i in order], size))


def padding_shares(batch: Batch, size: int) -> dict[str, float]:
    """
    Padding as a share of all places: `before`, of the batch as wide as its longest prompt and completion, which is what
    TRL makes of it; `after`, of its micro-batches, each as wide as its own.
    """
    lengths = row_lengths(batch)
    tokens = sum(map(sum, lengths))
    widths = {"before": len(lengths), "after": size}
    return {name: 1 - tokens / max(padded_tokens(lengths, rows), 1) for name, rows in widths.items()}


def used_columns(attention_mask: torch.Tensor, kept: int) -> tuple[int, int]:
    """
    Of rows `(B, L)` padded on the left of their prompts and on the right of their completions: the first column that
    any prompt uses, and how many of the `kept` last ones any completion uses. At least one column of each remains.
    """
    used = attention_mask.any(dim=0)
    first = used.size(0) - kept
    prompt, completion = used[:first].tolist(), used[first:].tolist()
    left = prompt.index(True) if any(prompt) else max(first - 1, 0)
    right = kept - completion[::-1].index(True) if any(completion) else min(kept, 1)
    return left, right
