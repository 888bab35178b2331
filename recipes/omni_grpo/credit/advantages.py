# SPDX-License-Identifier: Apache-2.0
"""Which reward moves which section, and the numbers that follow: rewards of a group to advantages of tokens."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from trl.trainer.utils import nanstd

from omni_grpo.credit.section_masks import OUTSIDE, TAG, places_of
from omni_rewards import SectionSchema

EVERYWHERE = "everywhere"
EPSILON = 1e-4  # added to a standard deviation, as TRL does

Places = frozenset[str]

CREDIT_PRESETS = ("stock", "uniform", "paper", "strict", "skill")
# By the place that a reward is about; the answer's is that of the last section, whatever its name.
SKILL_WEIGHTS = {TAG: 0.15, "context": 0.25, "think": 0.25, "answer": 0.35}
ADDED = ("context_gain", "contrast_reward")  # by the trainer, each with a weight and a place of its own


def resolve_credit_map(
    credit_map: str | Mapping[str, Any], rewards: Mapping[str, Sequence[str] | None], schema: SectionSchema
) -> list[Places] | None:
    """
    Where each reward may act.

    A reward says in its attribute `sections` what it is about: sections, or `tag` for the form. `uniform` is GRPO
    without credit by section, `stock` the same with a missing reward counted as 0, as TRL does.
    `paper`: a reward about sections before the last one acts on them and on those before (context on the context,
    reasoning on context and think), every other everywhere. `strict`: each on what it is about, the form also outside
    the sections. `skill`: strict, with the weights [`SKILL_WEIGHTS`]. A map of one's own names every reward, by name or
    dotted path, and for each the sections, `tag`, `outside` or `everywhere`; those of `omni_grpo.experimental` that it
    leaves out act as in `strict`.

    Args:
        credit_map (`str` or `Mapping`): One of [`CREDIT_PRESETS`], or reward to places.
        rewards (`Mapping[str, Sequence[str]]`): The run's rewards by name, with what each is about; `None` if unknown.
        schema ([`SectionSchema`]): The run's sections.

    Returns:
        `list[frozenset[str]]`: Places of each reward; `None` for `uniform` and `stock`.

    Raises:
        `ValueError`: An unknown preset, reward or place; a reward that the map does not place.

    >>> from omni_rewards import CONTEXT_THINK_ANSWER
    >>> [sorted(where) for where in resolve_credit_map("strict", {"my_reward": ["think"]}, CONTEXT_THINK_ANSWER)]
    [['think']]
    """
    places = places_of(schema)
    if isinstance(credit_map, str):
        if credit_map not in CREDIT_PRESETS:
            raise ValueError(f"credit_map: {credit_map!r} is unknown; one of {', '.join(CREDIT_PRESETS)}, or a map")
        if credit_map in ("stock", "uniform"):
            return None
        chosen = [_preset(credit_map, about, schema) for about in rewards.values()]
    else:
        own = {
            name.rpartition(".")[2]: [where] if isinstance(where, str) else where for name, where in credit_map.items()
        }
        if unknown := sorted(set(own) - set(rewards)):
            near = difflib.get_close_matches(unknown[0], rewards, n=1) or list(rewards)
            raise ValueError(f"credit_map: {unknown[0]!r} is none of this run's rewards; did you mean {near[0]!r}?")
        if wrong := sorted({p for where in own.values() for p in where} - {EVERYWHERE, *places}):
            raise ValueError(f"credit_map: {wrong[0]!r} is no place; one of {', '.join((*places, EVERYWHERE))}")
        added = {name: about or () for name, about in rewards.items() if name in ADDED}
        chosen = [frozenset(own.get(name, added.get(name, ()))) for name in rewards]
    for name, where in zip(rewards, chosen, strict=True):
        if not where:
            raise ValueError(
                f"credit_map: {credit_map if isinstance(credit_map, str) else 'yours'} does not say where {name!r} may "
                f"act among the sections {', '.join(schema.names)}; give the reward an attribute `sections`, or give a "
                f"map that names every reward, e.g. {{{name}: [{schema.names[-1]}]}}"
            )
    return chosen


def _preset(name: str, about: Sequence[str] | None, schema: SectionSchema) -> Places:
    """Where a preset lets a reward act that is `about` these places; nowhere if the schema has none of them."""
    there = set(about or ()) & set(places_of(schema))
    if name != "paper":
        return frozenset(there | ({OUTSIDE} if TAG in there else set()))
    if about and not there:
        return frozenset()
    before = schema.names[:-1]
    if not there or there - set(before):
        return frozenset({EVERYWHERE})
    return frozenset(before[: max(map(before.index, there)) + 1])


def skill_weights(rewards: Mapping[str, Sequence[str] | None], schema: SectionSchema) -> list[float | None]:
    """The weights of the preset `skill`, reward by reward; `None` for those of `omni_grpo.experimental`."""
    weights = {**SKILL_WEIGHTS, schema.names[-1]: SKILL_WEIGHTS["answer"]}
    return [None if name in ADDED else weights.get((about or ("",))[0]) for name, about in rewards.items()]


def credit_table(chosen: Sequence[Places], schema: SectionSchema, well_formed: bool) -> torch.Tensor:
    """
    1 where a reward `(K)` moves a place `(P)` of [`places_of`].

    In a malformed completion nobody knows what stands where, so a reward of the structure, one that is credited at
    `tag` or `outside`, reaches every token, and a reward of sections alone reaches none. `everywhere` stays so.
    """
    places = places_of(schema)

    def reaches(where: Places, place: str) -> bool:
        if EVERYWHERE in where:
            return True
        return place in where if well_formed else bool(where & {TAG, OUTSIDE})

    return torch.tensor([[float(reaches(where, place)) for place in places] for where in chosen])


def relative_rewards(rewards: torch.Tensor, group_size: int, scale: str) -> torch.Tensor:
    """
    Each reward against its own group: minus the mean, over the standard deviation if `scale` asks.

    A reward that is not given (NaN) is in no mean and no deviation, and is 0 in the result: it moves nothing.

    Args:
        rewards (`Tensor`): `(N, K)`, groups one after the other.
        group_size (`int`): Rows of a group.
        scale (`str`): `none`, `group` or `batch`, as TRL's `scale_rewards`.

    Returns:
        `Tensor`: `(N, K)`, without NaN.
    """
    grouped = rewards.view(-1, group_size, rewards.size(1))  # (N / G, G, K)
    relative = grouped - grouped.nanmean(dim=1, keepdim=True)
    if scale == "group":
        relative = relative / (nanstd(grouped, dim=1, keepdim=True) + EPSILON)
    elif scale == "batch":
        relative = relative / (nanstd(rewards, dim=0) + EPSILON)
    return torch.nan_to_num(relative, nan=0.0).view_as(rewards)


def token_advantages(
    relative: torch.Tensor,
    weights: torch.Tensor,
    places: torch.Tensor,
    well_formed: torch.Tensor,
    tables: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    r"""
    Advantage of every token: $$A_{i,t} = \sum_k c_k(i,t)\, w_k z_{i,k}$$, 0 on padding.

    Args:
        relative (`Tensor`): `(B, K)`, the $$z_{i,k}$$ of [`relative_rewards`].
        weights (`Tensor`): `(K,)`.
        places (`Tensor`): `(B, T)`, index of each token's place, -1 on padding.
        well_formed (`Tensor`): `(B,)`, boolean.
        tables (`tuple`): `(K, P)` each, from [`credit_table`], for well-formed completions and for malformed ones.

    Returns:
        `Tensor`: `(B, T)`.
    """
    table = torch.where(well_formed[:, None, None], *tables)  # (B, K, P)
    by_place = (table * (relative * weights)[:, :, None]).sum(dim=1)  # (B, P)
    return by_place.gather(1, places.clamp(min=0)) * (places >= 0)


def sum_then_normalize(rewards: torch.Tensor, weights: torch.Tensor, group_size: int, scale: str) -> torch.Tensor:
    """
    TRL's default advantages `(N,)`, but for what is not given (NaN): TRL counts it as 0, here it counts as the mean of
    its group, so that it moves no row. Without NaN the two agree. A row without any reward has advantage 0.
    """
    grouped = rewards.view(-1, group_size, rewards.size(1))
    filled = torch.where(grouped.isnan(), grouped.nanmean(dim=1, keepdim=True), grouped)
    total = (filled.view_as(rewards) * weights).nansum(dim=1)
    total[rewards.isnan().all(dim=1)] = torch.nan
    return relative_rewards(total[:, None], group_size, scale)[:, 0]
