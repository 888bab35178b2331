# SPDX-License-Identifier: Apache-2.0
"""
Which rows a variant asks, and which row lends its media to which.

Both follow from the ids, questions and media of the rows evaluated and from nothing else: not from their order, the
batches, the processes, or what an earlier run had finished.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omni_grpo.data.rows.prompts import Messages, build_messages
from omni_grpo.data.rows.schema import Example
from omni_grpo.evaluation.variants import VARIANTS, Source, alters, items_of


@dataclass(frozen=True)
class Plan:
    """
    The rows that a variant asks.

    Args:
        examples (sequence of [`Example`]): Those that are asked, in their order.
        donors (`Mapping[str, Example]`): The row whose media each of them is shown, by id.
        left_out (`Mapping[str, list[str]]`): Why rows are not asked, and their ids.
    """

    examples: Sequence[Example]
    donors: Mapping[str, Example] = field(default_factory=dict)
    left_out: Mapping[str, list[str]] = field(default_factory=dict)


def plan_variant(examples: Sequence[Example], style: str, load_audio_from_video: bool, variant: str) -> Plan:
    """
    Which rows a variant asks. All, where it removes or blanks; a row that has nothing to swap or to shuffle, or that no
    other row can lend its media, is left out by name, for its prompt would be the one with all media.

    Raises:
        `MediaError`: As [`~omni_grpo.data.rows.prompts.build_messages`].
        `ValueError`: No row is left.
    """
    done = VARIANTS[variant]
    if not (done.swapped or done.shuffled):
        return Plan(examples)
    prompts = {e.id: build_messages(e, style, load_audio_from_video) for e in examples}
    has_any = [e for e in examples if alters(prompts[e.id], variant)]
    donors = choose_donors(has_any, prompts, done.swapped, variant) if done.swapped else {}
    asked = [e for e in has_any if e.id in donors or not done.swapped]
    there, kept = ({e.id for e in some} for some in (has_any, asked))
    reasons = {
        f"has no {' or '.join(sorted(done.touched))}": [e.id for e in examples if e.id not in there],
        "no other row has other files of the same kinds": [e.id for e in has_any if e.id not in kept],
    }
    left_out = {reason: ids for reason, ids in reasons.items() if ids}
    if not asked:
        why = "; ".join(f"{reason}: {', '.join(ids[:3])}, …" for reason, ids in left_out.items())
        raise ValueError(f"variants: {variant} can ask no row ({why}); take it out of `variants`")
    return Plan(asked, donors, left_out)


def choose_donors(
    examples: Sequence[Example], prompts: Mapping[str, Messages], modalities: Collection[str], seed: str
) -> dict[str, Example]:
    """
    For each row another one that has the same kinds of media in the same order, and other files of `modalities`.

    A row of the same question and options lends first, where there is one: what is seen or heard then fits the
    question. Among those that may lend, chance decides, seeded by `seed` and the row's id. Rows that no other can lend
    to are not in the result. Files are told apart by their paths, segments of one file by the seconds they share.

    Args:
        examples (sequence of [`Example`]): All rows evaluated; the choice is made among them.
        prompts (`Mapping[str, Messages]`): Their prompts by id, from [`build_messages`].
        modalities (collection of `str`): What is lent.
        seed (`str`): Another seed, other donors.
    """
    sources = {e.id: [s for modality, s in items_of(prompts[e.id]) if modality in modalities] for e in examples}
    pools: dict[Any, list[Example]] = {}
    for e in sorted(examples, key=lambda e: e.id):
        for pool in _pools(e, prompts[e.id]):
            pools.setdefault(pool, []).append(e)
    donors = {}
    for e in examples:
        for pool in _pools(e, prompts[e.id]):
            drawn = _from_anywhere(pools[pool], f"{seed}/{e.id}")
            if (donor := next((d for d in drawn if _are_apart(sources[d.id], sources[e.id])), None)) is not None:
                donors[e.id] = donor
                break
    return donors


def _are_apart(ours: Sequence[Source], theirs: Sequence[Source]) -> bool:
    return not any(a == b and one.overlaps(other) for a, one in ours for b, other in theirs)


def _pools(example: Example, messages: Messages) -> tuple[Any, Any]:
    """Who may lend to a row: first those of its own question, then all that have the same kinds of media."""
    kinds = tuple((p["type"], p["audio_in_video"]) for m in messages for p in m["content"] if p["type"] != "text")
    return (kinds, example.problem, example.problem_type, example.options), kinds


def _from_anywhere(pool: Sequence[Example], seed: str) -> Iterator[Example]:
    """All of a pool in a circle, from a place that `seed` decides."""
    start = random.Random(seed).randrange(len(pool))
    return (pool[(start + k) % len(pool)] for k in range(len(pool)))
