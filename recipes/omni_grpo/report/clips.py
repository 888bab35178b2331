# SPDX-License-Identifier: Apache-2.0
"""Test rows shown with their media and every stage's completion, chosen without a look at the scores."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from omni_grpo.data.media.segment import segment_of
from omni_grpo.data.rows.kinds import kind_of
from omni_grpo.evaluation.records import Prediction
from omni_grpo.report.embedding import Medium, embed
from omni_grpo.report.run_folder import RunFolder


class Clip(NamedTuple):
    """A test row: what was asked, its media, and each stage's row."""

    kind: str
    row: Prediction
    media: list[Medium]
    answers: dict[str, Prediction]


class Choice(NamedTuple):
    """The rows shown, and what they were chosen from."""

    clips: list[Clip]
    pool: int
    kinds: list[str]


def candidates(run: RunFolder) -> list[str]:
    """Ids that every evaluated stage answered with all media, in the order of the first stage's file."""
    first, *others = [*run.predictions.values()] or [{}]
    return [key for key in first if all(key in rows for rows in others)]


def choose_clips(run: RunFolder, num_clips: int) -> list[str]:
    """Up to `num_clips` ids: kinds take turns, and within a kind ids come in the order of their SHA-256.

    The choice depends on ids and kinds alone: neither scores nor completions nor the order of the rows change it.
    """
    first = next(iter(run.predictions.values()), {})
    by_kind: dict[str, list[str]] = {}
    for key in sorted(candidates(run), key=lambda key: hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()):
        by_kind.setdefault(kind_of(first[key]), []).append(key)
    queues = [by_kind[name] for name in sorted(by_kind)]
    turns = [queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue)]
    return turns[:num_clips]


def read_clips(run: RunFolder, num_clips: int) -> Choice:
    """The chosen rows with their media."""
    first, pool = next(iter(run.predictions.values()), {}), candidates(run)
    clips = []
    for key in choose_clips(run, num_clips):
        media = [embed(item["path"] + segment_of(item).fragment) for item in first[key]["media"]]
        answers = {stage: rows[key] for stage, rows in run.predictions.items()}
        clips.append(Clip(kind_of(first[key]), first[key], media, answers))
    return Choice(clips, len(pool), sorted({kind_of(first[key]) for key in pool}))
