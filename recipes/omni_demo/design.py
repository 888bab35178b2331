# SPDX-License-Identifier: Apache-2.0
"""The design of the demo data: which face meets which voice, in which mix of media, in balanced blocks.

Agreement and intent are built so that neither the face nor the voice alone tells anything about the answer: every
answer is as frequent as it can be under each face, and under each voice. Only both together tell.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from omni_demo.config import PERCEPTION, DemoDataConfig
from omni_demo.targets import FACES, INTENTS, SHARED, VOICES

_FACELESS = ("audio", "grey+audio")
_VOICELESS = ("image", "video+silence")
_TWO_SIDED = ("video+audio", "image+audio")
_CONTRASTED = ("agreement", "intent")  # a block of these has each face twice, with two answers
_BLOCK = {"agreement": 8, "intent": 4, "told": 4, "face": 6, "voice": 6}


@dataclass(frozen=True)
class Cell:
    """
    One place of the design: a face with a voice, shown in a mix of media. A side that is not there is `None`; the
    answer follows from `pair`, of which it was a part all the same. Two cells of one `contrast` show one face clip with
    two voices, and their answers differ.
    """

    kind: str
    face: str | None
    voice: str | None
    mix: str
    pair: tuple[str, str]
    contrast: str | None = None


def block(kind: str, index: int) -> list[tuple[str, str]]:
    """
    `(face, voice)` pairs of one balanced block.

    An agreement block has four pairs that agree and four that do not, and every face and every voice once in each
    half; three blocks in a row have every pair that disagrees once.

    >>> block("agreement", 0)[3:6]
    [('afraid', 'afraid'), ('happy', 'angry'), ('angry', 'sad')]
    """
    if kind == "agreement":
        shift = 1 + index % 3
        return [(e, e) for e in SHARED] + [(e, SHARED[(i + shift) % 4]) for i, e in enumerate(SHARED)]
    if kind in ("intent", "told"):
        return [(face, voice) for voice, face in INTENTS]
    return [(face, VOICES[(i + index) % 6]) for i, face in enumerate(FACES)]


def allocate(num_blocks: int, shares: Mapping[str, float]) -> list[str]:
    """
    A mix for each block, evenly spread; the first mix takes what rounding leaves.

    >>> allocate(5, {"video+audio": 0.8, "text": 0.2})
    ['video+audio', 'video+audio', 'video+audio', 'video+audio', 'text']
    """
    first, *others = shares
    counts = {mix: min(num_blocks, round(num_blocks * shares[mix])) for mix in others}
    mixes = [mix for mix in others for _ in range(counts[mix])][:num_blocks]
    return [first] * (num_blocks - len(mixes)) + mixes


def cells(config: DemoDataConfig, split: str) -> list[Cell]:
    """The design of a split, shuffled.

    Raises:
        ValueError: a count that is no whole number of balanced blocks.
    """
    if split in PERCEPTION:
        plan = [("face", f"{split}_clips", config.rows(split, "clips"), config.base_mixes)]
    else:
        # The base never meets the rule of an intent: it practises the words alone.
        kinds = ["agreement", "told" if split == "base_text" else "intent"]
        kinds += [] if split in ("validation", "test") else ["face", "voice"]  # test asks those on the same clips
        if split in ("validation", "test"):
            shares = {kind: {"video+audio": 1.0} for kind in kinds}
        elif split == "base_text":
            shares = {kind: {"text": 1.0} for kind in kinds}
        else:
            tasks = {"agreement": config.rl_task_mixes, "intent": config.rl_task_mixes}
            if split == "sft":
                tasks = {"agreement": config.sft_agreement_mixes, "intent": config.sft_intent_mixes}
            shares = tasks | {"face": config.face_mixes, "voice": config.voice_mixes}
        plan = [(kind, f"{split}_{kind}", config.rows(split, kind), shares[kind]) for kind in kinds]
    found: list[Cell] = []
    for kind, name, count, shares in plan:
        if count % _BLOCK[kind]:
            raise ValueError(f"{name} must be a multiple of {_BLOCK[kind]} to be balanced, got {count}")
        for index, mix in enumerate(allocate(count // _BLOCK[kind], shares)):
            contrasts = split in config.contrast_splits and kind in _CONTRASTED and mix in _TWO_SIDED
            for face, voice in block(kind, index):
                face_shown = None if mix in _FACELESS else face
                pair_id = f"{split}-{kind}-{index:04d}-{face}" if contrasts else None
                found.append(Cell(kind, face_shown, None if mix in _VOICELESS else voice, mix, (face, voice), pair_id))
    random.Random(f"{config.seed}/{split}/cells").shuffle(found)
    return found
