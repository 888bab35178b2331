# SPDX-License-Identifier: Apache-2.0
"""The configuration of the demo data, and how a command line overrides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

SPLITS = ("base", "base_text", "perception", "sft", "rl", "validation", "test")
PERCEPTION = ("base", "perception")  # splits that ask what each side of a clip shows, and no more
WITH_TASKS = ("sft", "rl", "validation", "test")  # splits that ask about agreement and intent
# Media of a row. `video+silence` and `grey+audio` are clips with sound on which one channel shows nothing.
MIXES = ("video+audio", "image+audio", "video", "image", "audio", "video+silence", "grey+audio", "text")
WORDINGS = ("template", "english")
_AT_LEAST_ONE = {"frame_size_px", "fps", "num_frames", "sample_rate_hz", "audio_bit_rate", "clips_per_identity"}


@dataclass(frozen=True)
class DemoDataConfig:
    """
    What to make. Every count is a number of rows, except of `base_clips` and `perception_clips`.

    The design is exactly balanced, so counts come in blocks: agreement in eights, intent and told in fours, face and
    voice in sixes, and so do base and perception clips. A count that is no whole number of blocks raises `ValueError`.
    """

    output_dir: str = "data/demo"
    splits: tuple[str, ...] = ("sft", "rl", "validation", "test")
    # Here agreement and intent come in pairs where both sides are shown: one face clip, two voices, two answers.
    contrast_splits: tuple[str, ...] = ()
    seed: int = 7
    # Contexts and targets from the few forms of `omni_demo.targets`, or from the thousands of `omni_demo.english`; in
    # English, base also practises sentences and the words that are said.
    wording: str = "template"
    num_workers: int | None = None  # None: one per core; the result does not depend on it

    frame_size_px: int = 192
    fps: int = 8
    num_frames: int = 23  # 2.875 s, the same for every clip: its length must tell nothing about the voice
    sample_rate_hz: int = 16_000
    audio_bit_rate: int = 48_000
    video_crf: int = 23
    clips_per_identity: int = 4

    base_clips: int = 4002
    perception_clips: int = 0  # base's questions on the people and voices of test
    base_text_agreement: int = 640
    base_text_told: int = 480
    base_text_face: int = 360
    base_text_voice: int = 360
    sft_agreement: int = 40
    sft_intent: int = 28
    sft_face: int = 126
    sft_voice: int = 126
    rl_agreement: int = 904
    rl_intent: int = 904
    rl_face: int = 96
    rl_voice: int = 96
    validation_agreement: int = 104
    validation_intent: int = 96
    test_agreement: int = 400
    test_intent: int = 400
    test_face: int = 150
    test_voice: int = 150

    # Shares of the media mixes; a remainder goes to the first mix named.
    # Agreement and intent where some rows lack a channel. Nobody can know their answers; what they teach is to say what
    # is there, to keep to the form, and to answer within what the other channel leaves open.
    sft_agreement_mixes: Mapping[str, float] = field(default_factory=lambda: {"video+audio": 1.0})
    sft_intent_mixes: Mapping[str, float] = field(
        default_factory=lambda: {
            "video+audio": 0.142,
            "video": 0.143,
            "audio": 0.286,
            "video+silence": 0.143,
            "grey+audio": 0.286,
        }
    )
    rl_task_mixes: Mapping[str, float] = field(
        default_factory=lambda: {
            "video+audio": 0.64,
            "image+audio": 0.05,
            "text": 0.04,
            "video": 0.09,
            "audio": 0.09,
            "video+silence": 0.045,
            "grey+audio": 0.045,
        }
    )
    face_mixes: Mapping[str, float] = field(
        default_factory=lambda: {"video+audio": 0.50, "video": 0.25, "video+silence": 0.25}
    )
    voice_mixes: Mapping[str, float] = field(
        default_factory=lambda: {"video+audio": 0.50, "audio": 0.25, "grey+audio": 0.25}
    )
    base_mixes: Mapping[str, float] = field(
        default_factory=lambda: {
            "video+audio": 0.58,
            "image+audio": 0.09,
            "video": 0.07,
            "image": 0.07,
            "audio": 0.07,
            "video+silence": 0.06,
            "grey+audio": 0.06,
        }
    )

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = getattr(self, spec.name)
            if spec.type == "int" and (type(value) is not int or value < (spec.name in _AT_LEAST_ONE)):
                raise ValueError(
                    f"{spec.name} must be a whole number, {spec.name in _AT_LEAST_ONE:d} or more: {value!r}"
                )
        if self.num_workers is not None and (type(self.num_workers) is not int or self.num_workers < 1):
            raise ValueError(f"num_workers must be 1 or more, or null: {self.num_workers!r}")
        if self.wording not in WORDINGS:
            raise ValueError(f"unknown wording {self.wording!r}; choose from {', '.join(WORDINGS)}")
        if self.wording == "english" and "base_text" in self.splits:
            raise ValueError("base_text has its practice in templates alone; take it out, or set wording to template")
        for split in self.splits:
            if split not in SPLITS:
                raise ValueError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")
        for split in self.contrast_splits:
            if split not in WITH_TASKS:
                raise ValueError(f"contrast_splits: {split!r} has no pairs; choose from {', '.join(WITH_TASKS)}")
        for name in (
            "sft_agreement_mixes",
            "sft_intent_mixes",
            "rl_task_mixes",
            "face_mixes",
            "voice_mixes",
            "base_mixes",
        ):
            mixes = getattr(self, name)
            if unknown := sorted(set(mixes) - set(MIXES)):
                raise ValueError(f"unknown mix {unknown[0]!r} in {name}; choose from {', '.join(MIXES)}")
            if not mixes or abs(sum(mixes.values()) - 1) > 1e-6 or min(mixes.values()) < 0:
                raise ValueError(f"{name} must be shares that sum to 1, got {dict(mixes)}")
        if self.frame_size_px % 2:
            raise ValueError(f"frame_size_px must be even for H.264, got {self.frame_size_px}")

    @property
    def duration_s(self) -> float:
        """Length of every clip, in seconds."""
        return self.num_frames / self.fps

    def rows(self, split: str, kind: str) -> int:
        """Number of rows of `kind` in `split`; 0 where the split has none."""
        return getattr(self, f"{split}_{kind}", 0)


def load_config(path: Path | None, overrides: Mapping[str, Any]) -> DemoDataConfig:
    """
    Read a YAML file of fields and lay `overrides` over it.

    Raises:
        ValueError: a key that is no field, named, with the fields there are.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values.update(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    values.update(overrides)
    known = [f.name for f in fields(DemoDataConfig)]
    for key in values:
        if key not in known:
            raise ValueError(f"unknown option {key!r}; the options are {', '.join(known)}")
    for name in ("splits", "contrast_splits"):
        splits = values.get(name)
        if isinstance(splits, str):
            values[name] = tuple(part.strip() for part in splits.split(",") if part.strip())
        elif splits is not None:
            values[name] = tuple(splits)
    return DemoDataConfig(**values)


def parse_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """
    `--name value` and `--name=value` pairs to a dictionary; values are read as YAML scalars.

    >>> parse_overrides(["--seed", "3", "--splits=sft,rl"])
    {'seed': 3, 'splits': 'sft,rl'}

    Raises:
        ValueError: an argument that is no option, or an option without a value.
    """
    overrides: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        name = rest.pop(0)
        if not name.startswith("--"):
            raise ValueError(f"expected --option, got {name!r}")
        name, equals, text = name[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ValueError(f"--{name} needs a value")
            text = rest.pop(0)
        overrides[name.replace("-", "_")] = yaml.safe_load(text)
    return overrides
