# SPDX-License-Identifier: Apache-2.0
"""
MAFW, DFEW and RAVDESS: one emotion a clip, reported as WAR and UAR.

As in R1-Omni's evaluation the question offers no list of labels, so a model can answer with a word that is none of
them; that is a miss, and counted. Layouts:

- MAFW: MAFW-database/MAFW, `README.md` (`single_label.txt`), and sunlicai/MAE-DFER, `preprocess/mafw.py`
  (`…/single/no_caption/set_<1..5>/test.txt`); clips `<number>.mp4`
- DFEW: sunlicai/MAE-DFER, `preprocess/dfew.py` (`EmoLabel_DataSplit/test(single-labeled)/set_<1..5>.csv`), and
  jiangxingxun/DFEW, `README.md` (the seven numbers); original clips named by their number
- RAVDESS: https://zenodo.org/records/1188976, "File naming convention"
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omni_grpo.evaluation.benchmarks.records import heard_video

QUESTION = "Which emotion does the person in this video show most?"
_DFEW_LABELS = dict(enumerate(("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"), 1))
_RAVDESS_LABELS = dict(enumerate(("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"), 1))
_RAVDESS_CHANNELS = {1: "speech", 2: "song"}
_RAVDESS_INTENSITIES = {1: "normal", 2: "strong"}
_SOUND_AND_PICTURE = 1


def read_mafw(annotations: Path, media_root: Path) -> Iterator[dict[str, Any]]:
    """
    Rows of a fold's `test.txt`, or of `single_label.txt`: each line a clip's name and its label, the rest of the line
    left. `media_root` is the folder `clips`. Eleven labels.

    Raises `ValueError` naming the line for one without a name and a label.
    """
    for number, line in enumerate(annotations.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        parts = line.split(maxsplit=2)
        if len(parts) < 2 or not parts[0].endswith(".mp4"):
            raise ValueError(f"line {number}: expected a clip and its label, such as 03747.mp4 anger, got {line!r}")
        yield _row("MAFW", parts[0], parts[1], {"clip": parts[0]})


def read_dfew(annotations: Path, media_root: Path) -> Iterator[dict[str, Any]]:
    """
    Rows of a fold's `set_<k>.csv`: `video_name`, the clip's number, and `label`, from 1 to 7.

    The clips are found by their number, zeros in front or not, wherever they lie below `media_root` (the release has
    them in parts).

    Raises `ValueError` naming the line for a number or label that is none, for a clip that is not there, and for a
    number that two clips have.
    """
    clips: dict[int, list[Path]] = {}
    for path in sorted(media_root.rglob("*.mp4")):
        if path.stem.isdecimal():
            clips.setdefault(int(path.stem), []).append(path.relative_to(media_root))
    with annotations.open(encoding="utf-8-sig", newline="") as file:
        for line, record in enumerate(csv.DictReader(file), 2):
            name, label = (str(record.get(field) or "").strip() for field in ("video_name", "label"))
            if not name.isdecimal() or not label.isdecimal() or int(label) not in _DFEW_LABELS:
                raise ValueError(f"line {line}: expected video_name and a label from 1 to 7, got {record}")
            found = clips.get(int(name), [])
            if len(found) != 1:
                there = ", ".join(map(str, found)) or "none"
                raise ValueError(f"line {line}: clip {name} must be below {media_root} once, there is {there}")
            yield _row("DFEW", found[0].as_posix(), _DFEW_LABELS[int(label)], {"clip": name})


def read_ravdess(annotations: Path, media_root: Path) -> Iterator[dict[str, Any]]:
    """
    Rows of the clips with sound and picture below a folder, told from their names `01-CC-EE-II-SS-RR-AA.mp4`.

    Files without sound (`02-…`) are the same takes and are passed over. `meta` has `channel` (speech or song),
    `intensity` and `actor`. Eight labels; song has no disgust and no surprise.

    Raises `ValueError` for an mp4 whose name is none of RAVDESS's.
    """
    for path in sorted(annotations.rglob("*.mp4")):
        numbers = [int(part) for part in path.stem.split("-")] if re.fullmatch(r"\d\d(-\d\d){6}", path.stem) else []
        if len(numbers) != 7 or numbers[2] not in _RAVDESS_LABELS or numbers[1] not in _RAVDESS_CHANNELS:
            raise ValueError(f"{path}: not a name of RAVDESS, such as 01-01-06-01-02-01-12.mp4")
        modality, channel, emotion, intensity, _, _, actor = numbers
        if modality == _SOUND_AND_PICTURE:
            meta = {
                "channel": _RAVDESS_CHANNELS[channel],
                "intensity": _RAVDESS_INTENSITIES.get(intensity, str(intensity)),
                "actor": actor,
            }
            yield _row("RAVDESS", path.relative_to(media_root).as_posix(), _RAVDESS_LABELS[emotion], meta)


def _row(problem_type: str, path: str, label: str, meta: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": Path(path).with_suffix("").as_posix(),
        "problem": QUESTION,
        "problem_type": problem_type,
        "solution": label,
        "media": heard_video(path),
        "meta": meta,
    }
