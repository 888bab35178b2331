# SPDX-License-Identifier: Apache-2.0
"""
Daily-Omni: what is seen and heard at the same time in everyday clips; 1,197 questions on 684 videos of 30 or 60 s.

`qa.json` is a JSON list; `Videos.tar` unpacks to `Videos/<video_id>/<video_id>_video.mp4`. Layout: Lliar-liar/Daily-Omni,
`README.md` and `test_model/Qwen2.5-Omni/testmodel.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omni_grpo.evaluation.benchmarks.records import heard_video, read_json, text, texts


def read_daily_omni(annotations: Path, media_root: Path) -> Iterator[dict[str, Any]]:
    """
    Rows of `qa.json`, all of them multiple choice of four; `media_root` is the folder `Videos`.

    `meta` has `task` (the six values of `Type`), `duration` (`30s` or `60s`) and `category`.

    Raises `ValueError` naming the record for a field that is missing or of another kind.
    """
    for index, record in enumerate(read_json(annotations, list)):
        where = f"record {index}"
        video = text(record, "video_id", where)
        yield {
            "id": f"{video}-{index}",
            "problem": text(record, "Question", where),
            "problem_type": "multiple choice",
            "options": texts(record, "Choice", where),
            "solution": text(record, "Answer", where),
            "media": heard_video(f"{video}/{video}_video.mp4"),
            "meta": {
                "task": text(record, "Type", where),
                "duration": text(record, "video_duration", where),
                "category": record.get("video_category"),
            },
        }
