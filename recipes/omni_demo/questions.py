# SPDX-License-Identifier: Apache-2.0
"""Who is seen and heard in which split, and the rows that ask about them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from omni_demo.config import DemoDataConfig
from omni_demo.design import Cell, cells
from omni_demo.faces import BACKGROUNDS, EXPRESSIONS, Identity, identity_groups
from omni_demo.phrases import TONES, phrase_groups
from omni_demo.targets import (
    FACES,
    PROBLEM_TYPES,
    QUESTIONS,
    VOICES,
    context_of,
    solution_of,
    target_of,
    think_of,
    told_of,
)
from omni_demo.voices import ACCENTS, VARIANTS

# split -> who is seen and heard in it
GROUP_OF_SPLIT = {"base": "training", "sft": "training", "rl": "training", "validation": "validation", "test": "test"}
_TRAINING_SPLITS = ("base", "sft", "rl")
_TONE_OF_VOICE = {"warm": "positive", "cold": "negative"}


@dataclass(frozen=True)
class ClipSpec:
    """Everything that decides how one clip looks and sounds, but for the sizes in the configuration."""

    stem: str  # path below the data folder, without the ending
    mix: str
    face: str | None
    voice: str | None
    expression: str | None
    identity: Identity | None
    background: str
    voice_name: str | None
    phrase: str | None
    seed: str


class Cast:
    """Who is seen, who is heard, and what is said in one split."""

    def __init__(self, config: DemoDataConfig, split: str) -> None:
        group = GROUP_OF_SPLIT[split]
        people = identity_groups(config.seed)[group]
        if split in _TRAINING_SPLITS:  # the splits of a group share its looks, but no person
            people = people[_TRAINING_SPLITS.index(split) :: len(_TRAINING_SPLITS)]
        self._people = people
        self._variants = VARIANTS[group]
        self._phrases = {tone: phrase_groups(tone, config.seed)[group] for tone in TONES}
        self._config = config
        self._split = split

    def clip(self, index: int, cell: Cell, like: int | None = None) -> ClipSpec:
        """
        The clip with number `index` of the split; depends on nothing but the configuration and its arguments.

        One `like` another shows the same person in the same way, who speaks with the same voice; the cell differs.
        """
        drawn = index if like is None else like
        seed = f"{self._config.seed}/{self._split}/{drawn}"
        rng = random.Random(seed)
        phrases = self._phrases[_TONE_OF_VOICE.get(cell.voice or "", "neutral")]
        person = self._people[drawn // self._config.clips_per_identity % len(self._people)]
        expression, background = rng.choice(EXPRESSIONS[cell.face or "happy"]), rng.choice(BACKGROUNDS)
        voice_name, phrase = f"{rng.choice(ACCENTS)}+{rng.choice(self._variants)}", rng.choice(phrases)
        return ClipSpec(
            stem=f"clips/{self._split}/{index:05d}",
            mix=cell.mix,
            face=cell.face,
            voice=cell.voice,
            expression=expression if cell.face else None,
            identity=person if cell.face else None,
            background=background,
            voice_name=voice_name if cell.voice else None,
            phrase=phrase if cell.voice else None,
            seed=seed,
        )


def media_of(clip: ClipSpec) -> list[dict[str, Any]]:
    """The `media` of a row on this clip."""
    video = {"type": "video", "path": f"{clip.stem}.mp4", "use_audio": clip.mix != "video"}
    image, audio = {"type": "image", "path": f"{clip.stem}.png"}, {"type": "audio", "path": f"{clip.stem}.wav"}
    return {
        "video+audio": [video],
        "video": [video],
        "video+silence": [video],
        "grey+audio": [video],
        "image+audio": [image, audio],
        "image": [image],
        "audio": [audio],
    }[clip.mix]


def _row(split: str, row_id: str, kind: str, cell: Cell, clip: ClipSpec | None, seed: int) -> dict[str, Any]:
    rng = random.Random(f"{seed}/{row_id}")
    solution = solution_of(kind, *cell.pair)
    if kind == "told":
        cell = replace(cell, face=None, voice=None)  # what it is called is said, and nothing else
    # What this row's media show: the sound of a video that is watched in silence is not in its context.
    face = cell.face
    voice = None if cell.mix == "video" else cell.voice
    context, stated = (
        told_of(solution, rng) if kind == "told" else context_of(face, voice, rng) for _ in ("context", "stated")
    )
    row: dict[str, Any] = {
        "id": row_id,
        "problem": QUESTIONS[kind] if clip else f"{stated} {QUESTIONS[kind]}",
        "problem_type": PROBLEM_TYPES[kind],
        "solution": solution,
        "media": [] if clip is None else media_of(clip),
    }
    if cell.contrast is not None and kind == cell.kind:
        row["pair"] = cell.contrast
    if split != "base":
        row["context"] = context
    if split in ("sft", "base_text"):
        think = think_of(kind, face, voice, solution, rng, practice=split == "base_text")
        row["target"] = target_of(context, think, solution)
    row["meta"] = {
        "kind": kind,
        "face": cell.face,
        "voice": cell.voice,
        "expression": clip.expression if clip else None,
        "voice_name": clip.voice_name if clip else None,
        "phrase": clip.phrase if clip else None,
        "identity": str(clip.identity) if clip and clip.identity else None,
        "mix": cell.mix,
        "split": split,
    }
    return row


def _also_ask(config: DemoDataConfig, split: str, found: list[Cell]) -> Iterator[tuple[int, str]]:
    """`(index, kind)` of the face and voice questions asked on clips made for agreement and intent, balanced."""
    if split != "test":
        return
    for kind, classes in (("face", FACES), ("voice", VOICES)):
        count = config.rows(split, kind)
        if count % len(classes):
            raise ValueError(f"{split}_{kind} must be a multiple of {len(classes)} to be balanced, got {count}")
        for name in classes:
            indices = [i for i, cell in enumerate(found) if getattr(cell, kind) == name]
            if len(indices) < count // len(classes):
                raise ValueError(f"{split} has {len(indices)} clips with a {name} {kind}, {split}_{kind} needs more")
            yield from ((i, kind) for i in indices[: count // len(classes)])


def plan(config: DemoDataConfig, split: str) -> tuple[list[dict[str, Any]], list[ClipSpec]]:
    """All rows of a split, in order, and the clips they need."""
    found = cells(config, split)
    cast = None if split == "base_text" else Cast(config, split)
    clips: dict[int, ClipSpec] = {}
    firsts: dict[str, int] = {}  # number of the clip of a pair that came first
    rows = []
    for index, cell in enumerate(found):
        if cast is not None and cell.mix != "text":
            like = firsts.setdefault(cell.contrast, len(clips)) if cell.contrast else None
            clips[index] = cast.clip(len(clips), cell, like)
        kinds = [cell.kind]
        if split == "base":  # a question on each side that is there
            silent = cell.mix == "video"
            kinds = ["face"] * (cell.face is not None) + ["voice"] * (cell.voice is not None and not silent)
        for kind in kinds:
            row_id = f"{split}-{index:05d}" + (f"-{kind}" if split == "base" else "")
            rows.append(_row(split, row_id, kind, cell, clips.get(index), config.seed))
    for index, kind in _also_ask(config, split, found):
        rows.append(_row(split, f"{split}-{index:05d}-{kind}", kind, found[index], clips[index], config.seed))
    return rows, list(clips.values())
