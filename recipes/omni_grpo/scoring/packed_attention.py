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
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, flex_attention_mask, sdpa_mask


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
    """
    Groups of a packed row, in order. Given to the model in the place of an attention mask.

    Args:
        groups (`tuple` of [`PackedGroup`]): The groups.
        masks (`tuple` of `Tensor`, *optional*):
            Of layers that see less, or more, than what stands before, a window for one: for each group what its prompt
            and its longest segment see of each other, `(1, 1, n, n)`, or `None` where that is causal.
    """

    groups: tuple[PackedGroup, ...]
    masks: tuple[torch.Tensor | None, ...] = ()

    @property
    def size(self) -> int:
        return sum(group.size for group in self.groups)

    def __getitem__(self, index: tuple[slice, ...]) -> PackedLayout:
        """As models cut a mask to the positions whose logits are asked for: all of them, here."""
        if any(part not in (slice(None), slice(0, None)) for part in index):
            raise IndexError("a packed row is scored whole")
        return self

    def under(self, **rule: Any) -> PackedLayout:
        """The layout for layers with a rule of their own, as [`~transformers.masking_utils.sdpa_mask`] takes it."""
        spans = [(start, g.prompt + max(g.segments)) for g, start in zip(self.groups, _starts(self), strict=True)]
        return replace(self, masks=tuple(sdpa_mask(1, n, n, start, start, **rule) for start, n in spans))

    def labels(self, device: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Group and segment of each token, both `(N,)`; a prompt is segment 0."""
        groups, segments = [], []
        for i, group in enumerate(self.groups):
            groups += [i] * group.size
            for k, length in enumerate((group.prompt, *group.segments)):
                segments += [k] * length
        return torch.tensor(groups, device=device), torch.tensor(segments, device=device)

    def sees(self, device: Any = None, rule: Any = causal_mask_function):
        """
        What is seen, as a function of two positions in FlexAttention's form `mask_mod(batch, head, query, key)`. `rule`
        is the layer's own, of the same form, for a row with one segment.
        """
        group, segment = self.labels(device)
        place = torch.cat([torch.arange(n) + start for start, n in self._runs()]).to(device)

        def mask_mod(batch, head, query, key):
            visible = (segment[key] == 0) | (segment[key] == segment[query])
            return (group[key] == group[query]) & visible & rule(batch, head, place[query], place[key])

        return mask_mod

    def _runs(self) -> Iterator[tuple[int, int]]:
        """First place and length of each prompt and segment, were it the only one of its group."""
        for group, start in zip(self.groups, _starts(self), strict=True):
            yield start, group.prompt
            yield from ((start + group.prompt, length) for length in group.segments)


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
    if (layout := _layout.get()) is None:
        return sdpa_mask(*args, **kwargs)
    return layout.under(**{name: kwargs[name] for name in _RULE if name in kwargs})


def _flex_mask(*args: Any, device: Any = "cpu", mask_function: Any = causal_mask_function, **kwargs: Any) -> Any:
    """transformers' own block mask, or the layout's."""
    if (layout := _layout.get()) is None:
        return flex_attention_mask(*args, device=device, mask_function=mask_function, **kwargs)
    from torch.nn.attention.flex_attention import create_block_mask

    sees = layout.sees(device, mask_function)
    return create_block_mask(sees, None, None, layout.size, layout.size, device=device)


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
    masks = attention_mask.masks or [None] * len(attention_mask.groups)
    for group, start, mask in zip(attention_mask.groups, _starts(attention_mask), masks, strict=True):
        shared = slice(start, start + group.prompt)
        own = slice(shared.stop, start + group.size)
        if group.prompt:
            queries, keys, values = (x[:, :, shared] for x in spans)
            seen = None if mask is None else mask[..., : group.prompt, : group.prompt]
            outputs.append(
                sdpa_attention_forward(module, queries, keys, values, seen, is_causal=seen is None, **kwargs)[0]
            )
        queries, keys, values = (_as_batch(x[0, :, own], group.segments) for x in spans)
        prefix = [x[:, :, shared].expand(len(group.segments), -1, -1, -1) for x in (key, value)]
        keys, values = (torch.cat(pair, dim=2) for pair in zip(prefix, (keys, values), strict=True))
        longest = queries.size(
            2
        )  # (segments, heads, longest, head size); what pads a segment stands behind its tokens
        if mask is None:
            mask = torch.ones(longest, group.prompt + longest, dtype=torch.bool, device=query.device)
            mask = mask.tril(group.prompt)[None, None]
        seen = mask[..., -longest:, :]
        scored = sdpa_attention_forward(module, queries, keys, values, seen, **kwargs)[0]
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


_RULE = ("mask_function", "allow_is_causal_skip", "local_size", "use_vmap", "device")  # of a layer, to `sdpa_mask`
# Attention of transformers -> the same, which takes layouts too. FlexAttention keeps its name, since models ask for it
# (whether a mask can be cut, for one): it is the mask alone that is another.
_PACKED = {"sdpa": "shared_prompt_sdpa", "flex_attention": "flex_attention"}
AttentionInterface.register("shared_prompt_sdpa", shared_prompt_attention)
AttentionMaskInterface.register("shared_prompt_sdpa", _sdpa_mask)
AttentionMaskInterface.register("flex_attention", _flex_mask)
