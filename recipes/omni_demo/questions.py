# SPDX-License-Identifier: Apache-2.0
"""Who is seen and heard in which split, and the rows that ask about them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from omni_demo import english, targets
from omni_demo.config import PERCEPTION, DemoDataConfig
from omni_demo.design import Cell, cells
from omni_demo.faces import BACKGROUNDS, EXPRESSIONS, Identity, identity_groups
from omni_demo.phrases import TONES, phrase_groups
from omni_demo.targets import (
    FACES,
    PROBLEM_TYPES,
    QUESTIONS,
    VOICES,
    solution_of,
    target_of,
    told_of,
)
from omni_demo.voices import ACCENTS, VARIANTS

# split -> who is seen and heard in it
GROUP_OF_SPLIT = {
    **dict.fromkeys(("base", "sft", "rl"), "training"),
    "validation": "validation",
    **dict.fromkeys(("perception", "test"), "test"),
}
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


def _heard(cell: Cell) -> str | None:
    """The voice that a row's media let one hear: not that of a video watched in silence."""
    return None if cell.mix == "video" else cell.voice


def _row(
    config: DemoDataConfig, split: str, row_id: str, kind: str, cell: Cell, clip: ClipSpec | None
) -> dict[str, Any]:
    rng = random.Random(f"{config.seed}/{row_id}")
    words = english if config.wording == "english" else targets
    solution = solution_of(kind, *cell.pair)
    if kind == "told":
        cell = replace(cell, face=None, voice=None)  # what it is called is said, and nothing else
    face, voice = cell.face, _heard(cell)
    context, stated = (
        told_of(solution, rng) if kind == "told" else words.context_of(face, voice, rng) for _ in ("context", "stated")
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
    if split not in PERCEPTION:
        row["context"] = context
    if split == "base_text":
        row["target"] = target_of(context, targets.think_of(kind, face, voice, solution, rng, practice=True), solution)
    elif split == "sft":
        row["target"] = target_of(context, words.think_of(kind, face, voice, solution, rng), solution)
    return row | {"meta": _meta(split, kind, cell, clip)}


def _described(
    config: DemoDataConfig, split: str, row_id: str, kind: str, cell: Cell, clip: ClipSpec
) -> dict[str, Any]:
    """A row whose answer is a sentence: the one that is `said`, or one that says what the face, the voice, or both are."""
    rng = random.Random(f"{config.seed}/{row_id}")
    face, voice = cell.face, _heard(cell)
    if kind == "said":
        problem, answer = "What is said?", clip.phrase
    else:
        side = rng.choice([side for side, shown in (("face", face), ("voice", voice), ("describe", True)) if shown])
        shown = face if side == "face" else voice
        problem = english.question_of(side, rng)
        answer = (
            english.context_of(face, voice, rng) if side == "describe" else english.sentence_of(side, shown or "", rng)
        )
    return {
        "id": row_id,
        "problem": problem,
        "problem_type": "transcription" if kind == "said" else "free-form",
        "solution": answer,
        "media": media_of(clip),
        "meta": _meta(split, kind, cell, clip),
    }


def _meta(split: str, kind: str, cell: Cell, clip: ClipSpec | None) -> dict[str, Any]:
    return {
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


def _perceived(config: DemoDataConfig, split: str, cell: Cell) -> list[str]:
    """The kinds of row on a clip of base or perception: a question on each side that is there, in English more."""
    heard = _heard(cell) is not None
    kinds = ["face"] * (cell.face is not None) + ["voice"] * heard
    if config.wording == "english":
        kinds += ["said"] * heard + ["describe"] * (split == "base")
    return kinds


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
        for kind in _perceived(config, split, cell) if split in PERCEPTION else [cell.kind]:
            row_id = f"{split}-{index:05d}" + (f"-{kind}" if split in PERCEPTION else "")
            if kind in ("said", "describe"):
                rows.append(_described(config, split, row_id, kind, cell, clips[index]))
            else:
                rows.append(_row(config, split, row_id, kind, cell, clips.get(index)))
    for index, kind in _also_ask(config, split, found):
        rows.append(_row(config, split, f"{split}-{index:05d}-{kind}", kind, found[index], clips[index]))
    return rows, list(clips.values())
