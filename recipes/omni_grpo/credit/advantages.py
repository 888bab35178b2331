# SPDX-License-Identifier: Apache-2.0
"""Which reward moves which section, and the numbers that follow: rewards of a group to advantages of tokens."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from trl.trainer.utils import nanstd

from omni_grpo.credit.section_masks import OUTSIDE, TAG, places_of
from omni_rewards import SectionSchema

EVERYWHERE = "everywhere"
EPSILON = 1e-4  # added to a standard deviation, as TRL does

Places = frozenset[str]

# Preset -> kind of reward -> where it may act. A reward is of a kind if its name is that or ends in `_` and that.
_STRICT: dict[str, tuple[str, ...]] = {
    "format_reward": (TAG, OUTSIDE),
    "context_reward": ("context",),
    "context_gain": ("context",),
    "reasoning_reward": ("think",),
    "answer_reward": ("answer",),
    "contrast_reward": ("answer",),
    "accuracy_reward": ("answer",),
}
CREDIT_PRESETS: dict[str, dict[str, tuple[str, ...]]] = {
    "uniform": {},
    "paper": {
        "context_reward": ("context",),
        "context_gain": ("context",),
        "reasoning_reward": ("context", "think"),
        "": (EVERYWHERE,),
    },
    "strict": _STRICT,
    "skill": _STRICT,
}
# Where a reward that the trainer adds acts if a map of one's own does not place it.
_UNPLACED = {name: _STRICT[name] for name in ("context_gain", "contrast_reward")}
SKILL_WEIGHTS = {
    "format_reward": 0.15,
    "context_reward": 0.25,
    "reasoning_reward": 0.25,
    "answer_reward": 0.35,
    "accuracy_reward": 0.35,
}


def resolve_credit_map(
    credit_map: str | Mapping[str, Any], reward_names: Sequence[str], schema: SectionSchema
) -> list[Places] | None:
    """
    Where each reward may act.

    `uniform` is stock GRPO. `paper`: context reward on the context, reasoning reward on context and think, every other
    everywhere. `strict`: each reward on its own section, format on tags and what is outside. `skill`: strict, with
    the weights [`SKILL_WEIGHTS`]. A map of one's own names every reward, by name or dotted path, and for each the
    sections, `tag`, `outside` or `everywhere`; rewards of `omni_grpo.experimental` that it leaves out act as in `strict`.

    Args:
        credit_map (`str` or `Mapping`): A key of [`CREDIT_PRESETS`], or reward to places.
        reward_names (`Sequence[str]`): The run's rewards.
        schema ([`SectionSchema`]): The run's sections.

    Returns:
        `list[frozenset[str]]`: Places of each reward; `None` for `uniform`.

    Raises:
        `ValueError`: An unknown preset, reward or place; a reward that the map does not place.
    """
    places = places_of(schema)
    if isinstance(credit_map, str):
        if credit_map not in CREDIT_PRESETS:
            raise ValueError(f"credit_map: {credit_map!r} is unknown; one of {', '.join(CREDIT_PRESETS)}, or a map")
        if credit_map == "uniform":
            return None
        given = [_by_kind(CREDIT_PRESETS[credit_map], name) or () for name in reward_names]
        chosen: list[Places] = [frozenset(where) & {EVERYWHERE, *places} for where in given]
    else:
        own = {
            name.rpartition(".")[2]: [where] if isinstance(where, str) else where for name, where in credit_map.items()
        }
        if unknown := sorted(set(own) - set(reward_names)):
            near = difflib.get_close_matches(unknown[0], reward_names, n=1) or reward_names
            raise ValueError(f"credit_map: {unknown[0]!r} is none of this run's rewards; did you mean {near[0]!r}?")
        if wrong := sorted({p for where in own.values() for p in where} - {EVERYWHERE, *places}):
            raise ValueError(f"credit_map: {wrong[0]!r} is no place; one of {', '.join((*places, EVERYWHERE))}")
        chosen = [frozenset(own.get(name, _UNPLACED.get(name, ()))) for name in reward_names]
    for name, where in zip(reward_names, chosen, strict=True):
        if not where:
            raise ValueError(
                f"credit_map: {credit_map if isinstance(credit_map, str) else 'yours'} does not say where {name!r} may "
                f"act among the sections {', '.join(schema.names)}; give a map that names every reward, e.g. "
                f"{{{name}: [{schema.names[-1]}]}}"
            )
    return chosen


def skill_weights(reward_names: Sequence[str]) -> list[float | None]:
    """The weights of the preset `skill`, reward by reward; `None` for those of `omni_grpo.experimental`."""
    return [_by_kind(SKILL_WEIGHTS, name) for name in reward_names]


def _by_kind(table: Mapping[str, Any], name: str) -> Any:
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()  # a dataclass is a reward too
    kinds = [kind for kind in table if kind and (name == kind or name.endswith(f"_{kind}"))]
    return table[kinds[0]] if kinds else table.get("")


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
