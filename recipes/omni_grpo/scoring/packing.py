# SPDX-License-Identifier: Apache-2.0
"""
Rows of a batch packed into one: each distinct prompt once, then every completion of it.

A group is packed as its prompt without the last token, then for each completion a segment: that last token and the
completion without its own last, so that every position of a segment predicts one token of the completion. Positions go
on from the prompt's in every segment, whatever its media made of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from omni_grpo.data.encoding.inputs import EncodedPrompt
from omni_grpo.data.media.settings import MediaError
from omni_grpo.families import family_of, head_of
from omni_grpo.scoring.packed_attention import PackedGroup, PackedLayout


@dataclass(frozen=True)
class PackedRows:
    """
    A batch as one row of `N` tokens.

    Args:
        input_ids (`Tensor` `(1, N)`): Token ids.
        position_ids (`Tensor` `(axes, 1, N)`): Time, height and width; or `(1, N)` of a model that counts tokens alone.
        counts (`Tensor` `(1, N)`): How many rows of the batch a token stands for.
        layout ([`PackedLayout`]): Which token sees which.
        prompts (`list` of [`EncodedPrompt`]): The distinct prompts, in order.
        rows, columns, places (`Tensor` `(M,)`):
            Token `columns[m]` of row `rows[m]` of the batch is predicted at place `places[m]` of the packed row.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    counts: torch.Tensor
    layout: PackedLayout
    prompts: list[EncodedPrompt]
    rows: torch.Tensor
    columns: torch.Tensor
    places: torch.Tensor

    def pack(self, values: torch.Tensor, blank: int) -> torch.Tensor:
        """Values `(B, L)` of tokens to `(1, N)`, each where its token is predicted; `blank` elsewhere."""
        packed = values.new_full(self.input_ids.shape, blank)
        packed[0, self.places] = values[self.rows, self.columns]
        return packed

    def unpack(self, values: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        """Values `(1, N)` to those of the batch's tokens `(B, L)`; 0 where a token was not predicted."""
        return values.new_zeros(shape).index_put((self.rows, self.columns), values[0, self.places])


def pack_rows(
    model: Any,
    prompts: Sequence[EncodedPrompt],
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    kept: int,
    every_token: bool = False,
) -> PackedRows:
    """
    Pack a batch.

    Args:
        model (`nn.Module`): Gives the prompts' positions, see [`~omni_grpo.families.Family.positions`].
        prompts (sequence of [`EncodedPrompt`]): One a row.
        input_ids (`Tensor` `(B, L)`): Prompts padded on the left, completions on the right.
        attention_mask (`Tensor` `(B, L)`): 1 at tokens.
        kept (`int`): Columns of the completions, the last ones.
        every_token (`bool`): Whether tokens that predict none are wanted, too: the last ones, and masked rows' prompts.

    Raises:
        `MediaError`: A prompt ends in a media token, whose position the completion cannot go on from.
    """
    first = input_ids.size(1) - kept
    lengths = attention_mask[:, first:].sum(dim=1).tolist()
    if not any(lengths):
        lengths[0] = 1  # all completions are masked; the pass is made all the same, other processes wait for it
    family, head = family_of(model), head_of(model)
    groups: dict[Any, list[int]] = {}
    for i, prompt in enumerate(prompts):
        if lengths[i] or every_token:
            groups.setdefault(prompt.identity, []).append(i)
    ids: list[torch.Tensor] = []
    positions: list[torch.Tensor] = []
    layout: list[PackedGroup] = []
    counts: list[torch.Tensor] = []
    rows, columns, places = [], [], []
    at = 0
    for members in groups.values():
        prompt = prompts[members[0]]
        where = family.positions(head, prompt.input_ids, prompt.media).to(input_ids.device)  # (axes, P)
        if (where[:, -1] != where[0, -1]).any() or len(prompt.input_ids) != where.size(1):
            raise MediaError(f"row {prompt.name!r}: its prompt ends in media; end it with the generation header")
        whole = torch.tensor(prompt.input_ids, device=input_ids.device)
        ids.append(whole[:-1])
        positions.append(where[:, :-1])
        counts.append(torch.full((len(whole) - 1,), len(members)))
        at += len(whole) - 1
        for i in members:
            n = lengths[i]
            size = n + every_token
            ids += [whole[-1:], input_ids[i, first : first + size - 1]]
            positions.append(where[:, -1:] + torch.arange(size, device=where.device))
            counts.append(torch.ones(size, dtype=torch.long))
            rows.append(torch.full((n,), i))
            columns.append(torch.arange(first, first + n))
            places.append(torch.arange(at, at + n))
            at += size
        layout.append(PackedGroup(len(whole) - 1, tuple(lengths[i] + every_token for i in members)))
    index = (torch.cat(part).to(input_ids.device) for part in (rows, columns, places))
    return PackedRows(
        torch.cat(ids)[None],
        torch.cat(positions, dim=1)[:, None].squeeze(0),
        torch.cat(counts)[None].to(input_ids.device),
        PackedLayout(tuple(layout)),
        [prompts[members[0]] for members in groups.values()],
        *index,
    )
