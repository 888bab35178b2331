# SPDX-License-Identifier: Apache-2.0
"""
WorldSense: questions that need picture and sound, 3,172 on 1,662 videos; 8 domains, 26 tasks.

`worldsense_qa.json` maps each video's id to its `domain`, `sub_category`, `duration`, `audio_class` and to `task0`,
`task1`, …, each with `task_domain`, `task_type`, `question`, `candidates` and the letter of the `answer`; the archives
unpack to `<video_id>.mp4`. Layout: open-compass/VLMEvalKit, `vlmeval/dataset/worldsense.py` and
`vlmeval/dataset/utils/worldsense.py`, to which the authors point.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omni_grpo.evaluation.benchmarks.records import heard_video, read_json, text, texts


def read_worldsense(annotations: Path, media_root: Path) -> Iterator[dict[str, Any]]:
    """
    Rows of `worldsense_qa.json`, one for each task of each video, all of them multiple choice.

    `media_root` is the folder with the videos. `meta` has `domain`, `task`, `task_domain` (recognition, understanding,
    reasoning), `duration` and `audio` (the classes of sound that the video has).

    Raises `ValueError` naming the video and task for a field that is missing, and for a video without a task.
    """
    for video, entry in read_json(annotations, dict).items():
        if not isinstance(entry, dict):
            raise ValueError(f"{video}: expected a JSON object, got {entry!r}")
        tasks = [name for name in entry if re.fullmatch(r"task\d+", name)]
        if not tasks:
            raise ValueError(f"{video}: there is no task0 among {', '.join(entry)}")
        for name in tasks:
            where, task = f"{video} {name}", entry[name]
            yield {
                "id": f"{video}-{name}",
                "problem": text(task, "question", where),
                "problem_type": "multiple choice",
                "options": texts(task, "candidates", where),
                "solution": text(task, "answer", where),
                "media": heard_video(f"{video}.mp4"),
                "meta": {
                    "domain": text(entry, "domain", where),
                    "task": text(task, "task_type", where),
                    "task_domain": text(task, "task_domain", where),
                    "duration": text(entry, "duration", where),
                    "audio": entry.get("audio_class"),
                },
            }
