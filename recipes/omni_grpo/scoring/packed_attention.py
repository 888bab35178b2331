# SPDX-License-Identifier: Apache-2.0
"""
Attention over a packed row, in which completions share their prompt.

A packed row holds groups, each a prompt and then its completions as segments. A token sees its own group's prompt and
its own segment, up to itself. Handed over as a dense mask this would cost the square of the row; here the prompt is
one causal block, and the segments are a batch whose keys are the prompt's and their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import flex_attention_mask, sdpa_mask


@dataclass(frozen=True)
class PackedGroup:
    """
    Lengths in tokens of one group in a packed row.

    Args:
        prompt (`int`): Tokens that all segments see; 0 is allowed.
        segments (`tuple[int, ...]`): Tokens of each segment, none of them 0.
    """

    prompt: int
    segments: tuple[int, ...]

    @property
    def size(self) -> int:
        return self.prompt + sum(self.segments)


@dataclass(frozen=True)
class PackedLayout:
    """Groups of a packed row, in order. Given to the model in the place of an attention mask."""

    groups: tuple[PackedGroup, ...]

    @property
    def size(self) -> int:
        return sum(group.size for group in self.groups)

    def labels(self, device: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Group and segment of each token, both `(N,)`; a prompt is segment 0."""
        groups, segments = [], []
        for i, group in enumerate(self.groups):
            groups += [i] * group.size
            for k, length in enumerate((group.prompt, *group.segments)):
                segments += [k] * length
        return torch.tensor(groups, device=device), torch.tensor(segments, device=device)

    def sees(self, device: Any = None):
        """The rule as a function of two positions, in FlexAttention's form `mask_mod(batch, head, query, key)`."""
        group, segment = self.labels(device)

        def mask_mod(batch, head, query, key):
            visible = (segment[key] == 0) | (segment[key] == segment[query])
            return (group[key] == group[query]) & visible & (key <= query)

        return mask_mod


_layout: ContextVar[PackedLayout | None] = ContextVar("packed layout", default=None)


@contextmanager
def packed_as(layout: PackedLayout | None) -> Iterator[None]:
    """Within: the masks that a prepared model asks transformers for hold its rows to the layout."""
    token = _layout.set(layout)
    try:
        yield
    finally:
        _layout.reset(token)


def _sdpa_mask(*args: Any, **kwargs: Any) -> Any:
    """transformers' own mask; within [`packed_as`] the layout, which goes to the attention in its place."""
    return _layout.get() or sdpa_mask(*args, **kwargs)


def _flex_mask(*args: Any, device: Any = "cpu", **kwargs: Any) -> Any:
    """transformers' own block mask, or the layout's."""
    if (layout := _layout.get()) is None:
        return flex_attention_mask(*args, device=device, **kwargs)
    from torch.nn.attention.flex_attention import create_block_mask

    return create_block_mask(layout.sees(device), None, None, layout.size, layout.size, device=device)


def shared_prompt_attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """
    transformers' `sdpa`, and for a [`PackedLayout`] in the place of the mask the same over its blocks.

    Args:
        module (`nn.Module`): Attention layer.
        query, key, value (`Tensor` `(batch, heads, N, head size)`): One row, `batch` 1, where there is a layout.
        attention_mask (`Tensor` or [`PackedLayout`], *optional*): Any that `sdpa` takes, or a layout.

    Returns:
        Output `(batch, N, heads, head size)`, and `None` for the weights.
    """
    if not isinstance(attention_mask, PackedLayout):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    outputs: list[torch.Tensor] = []
    spans = query, key, value
    for group, start in zip(attention_mask.groups, _starts(attention_mask), strict=True):
        shared = slice(start, start + group.prompt)
        own = slice(shared.stop, start + group.size)
        if group.prompt:
            queries, keys, values = (x[:, :, shared] for x in spans)
            outputs.append(sdpa_attention_forward(module, queries, keys, values, None, is_causal=True, **kwargs)[0])
        queries, keys, values = (_as_batch(x[0, :, own], group.segments) for x in spans)
        prefix = [x[:, :, shared].expand(len(group.segments), -1, -1, -1) for x in (key, value)]
        keys, values = (torch.cat(pair, dim=2) for pair in zip(prefix, (keys, values), strict=True))
        longest = queries.size(
            2
        )  # (segments, heads, longest, head size); what pads a segment stands behind its tokens
        seen = torch.ones(longest, group.prompt + longest, dtype=torch.bool, device=query.device).tril(group.prompt)
        scored = sdpa_attention_forward(module, queries, keys, values, seen[None, None], **kwargs)[0]
        outputs.append(torch.cat([row[:length] for row, length in zip(scored, group.segments, strict=True)])[None])
    return torch.cat(outputs, dim=1), None


def _starts(layout: PackedLayout) -> list[int]:
    return [0, *itertools.accumulate(group.size for group in layout.groups)][:-1]


def _as_batch(states: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
    """`(heads, sum of lengths, size)` to `(segments, heads, longest, size)`."""
    if len(set(lengths)) == 1:
        return states.unflatten(1, (len(lengths), lengths[0])).transpose(0, 1)
    return pad_sequence(list(states.transpose(0, 1).split(lengths)), batch_first=True).transpose(1, 2)


def prepare_attention(base: Any) -> str | None:
    """
    Let a language model take packed rows. Without a layout it computes what it computed before.

    Args:
        base (`nn.Module`): Towers and language model, see [`~omni_grpo.families.base_of`].

    Returns:
        Why it cannot, or `None`.
    """
    config = base.config.get_text_config()
    name = getattr(config, "_attn_implementation", None)
    if name not in (*_PACKED, *_PACKED.values()):
        return f"attention {name!r} takes no blocks; sdpa and flex_attention do"
    config._attn_implementation = _PACKED.get(name, name)
    return None


# Attention of transformers -> the same, which takes layouts too.
_PACKED = {"sdpa": "shared_prompt_sdpa", "flex_attention": "shared_prompt_flex_attention"}
AttentionInterface.register("shared_prompt_sdpa", shared_prompt_attention)
AttentionMaskInterface.register("shared_prompt_sdpa", _sdpa_mask)
AttentionInterface.register("shared_prompt_flex_attention", flex_attention_forward)
AttentionMaskInterface.register("shared_prompt_flex_attention", _flex_mask)
