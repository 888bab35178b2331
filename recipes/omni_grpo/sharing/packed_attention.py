# SPDX-License-Identifier: Apache-2.0
"""
Attention over a packed row, in which completions share their prompt.

A packed row holds groups, each a prompt and then its completions as segments. A token sees its own group's prompt and
its own segment, up to itself. Handed over as a dense mask this would cost the square of the row; here the prompt is
one causal block, and the segments are a batch whose keys are the prompt's and their own.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SHARED_PROMPT_ATTENTION = "shared_prompt_sdpa"


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


def packed_mask(layout: PackedLayout, implementation: str, device: Any) -> Any:
    """
    What the model's attention takes for a packed row.

    Raises:
        `ValueError`: The attention implementation has no way to hold a row to the layout.
    """
    if implementation == SHARED_PROMPT_ATTENTION:
        return layout
    if implementation == "flex_attention":
        from torch.nn.attention.flex_attention import create_block_mask

        return create_block_mask(layout.sees(device), None, None, layout.size, layout.size, device=device)
    raise ValueError(f"attn_implementation: {implementation!r} cannot share prompts; use sdpa or flex_attention")


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


def prepare_attention(model: Any) -> str | None:
    """
    Let a thinker's language model take packed rows. Without a layout it computes what it computed before.

    Args:
        model (`nn.Module`): Qwen2.5-Omni's thinker without its head, see [`~omni_grpo.model.towers.find_thinker`].

    Returns:
        Why it cannot, or `None`.
    """
    config = model.language_model.config
    if "sliding_attention" in getattr(config, "layer_types", ()):
        return "layers with a sliding window see less than the prompt"
    if not hasattr(model, "get_rope_index"):
        return f"{type(model).__name__} gives no positions for its prompts"
    if config._attn_implementation == "sdpa":
        config._attn_implementation = SHARED_PROMPT_ATTENTION
    if config._attn_implementation not in (SHARED_PROMPT_ATTENTION, "flex_attention"):
        return f"attention {config._attn_implementation!r} takes no blocks; sdpa and flex_attention do"
    return None


AttentionInterface.register(SHARED_PROMPT_ATTENTION, shared_prompt_attention)
AttentionMaskInterface.register(SHARED_PROMPT_ATTENTION, sdpa_mask)
