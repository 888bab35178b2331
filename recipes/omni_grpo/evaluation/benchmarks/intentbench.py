# SPDX-License-Identifier: Apache-2.0
"""
IntentBench: why and how people do what they do, their emotions, and whether they lie; 2,689 questions on 633 videos.

`qa.json` is a JSON list in HumanOmniV2's own layout, with `Type` (why, how, what, when, who/which, other, emotion,
deception) and `source` (Socialiq, EMER, MDPE) beside it; `videos.zip` holds the clips that `video` names. Its paper
scores emotion sets by plain F1 and all else by accuracy. Layout: HumanMLLM/HumanOmniV2,
`src/open-r1-multimodal/eval/eval_humanomniv2.py`; PhilipC/IntentBench on the Hugging Face hub.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omni_grpo.data.rows.adapters import from_humanomniv2
from omni_grpo.evaluation.benchmarks.records import read_json, text


def read_intentbench(annotations: Path, media_root: Path) -> Iterator[dict[str, Any]]:
    """
    Rows of `qa.json`: `multiple choice`, `emer_ov_mc` (emotion sets) and `judge` (yes or no).

    `meta` has `question_type` and `source`. A reference context, which the emotion questions have, is kept; the worked
    solution is not, because nothing is trained on it.

    Raises `ValueError` as [`~omni_grpo.data.rows.adapters.from_humanomniv2`] does, and for a record without `Type`.
    """
    for index, record in enumerate(read_json(annotations, list)):
        if not isinstance(record, dict):
            raise ValueError(f"record {index}: expected a JSON object, got {record!r}")
        row = from_humanomniv2(record, index)
        row.pop("target", None)
        meta = {"question_type": text(record, "Type", f"record {index}"), "source": record.get("source")}
        yield {**row, "meta": meta}
