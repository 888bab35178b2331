# SPDX-License-Identifier: Apache-2.0
"""The perception figures as a judge behind an endpoint grades them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omni_grpo.data.rows.prompts import build_messages
from omni_grpo.data.rows.schema import Example, MediaItem
from omni_grpo.evaluation.perception import mean_figure, reference_steps, step_score
from omni_grpo.evaluation.records import Mean, Prediction
from omni_rewards import ContextReward, Judge, Question, ReasoningReward, SectionSchema

STEP_RUBRIC = (
    "You are given STEP, one step of sound reasoning, and REASONING, which another system wrote about the same "
    "question. Grade whether the reasoning takes this step. 5: it states it, in whatever words. 3: in part. 0: it does "
    "not, or contradicts it. Everything else in the reasoning earns and costs nothing."
)


def judged(rows: Sequence[Prediction], judge: Judge, schema: SectionSchema) -> dict[str, Mean]:
    """
    Context, reasoning and steps of `rows` as a judge grades them; as [`summarise_perception`], with `unavailable`, the
    number of rows that it gave no score.

    Raises nothing for a judge that cannot be reached: all rows are unavailable then.
    """
    texts = [row["completion"] for row in rows]
    names = ("problem", "problem_type", "options", "context", "reference_reasoning")
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in names}
    graded: dict[str, list[tuple[bool, float | None]]] = {}
    own = [Example(row["id"], media=tuple(MediaItem(**item) for item in row["media"])) for row in rows]
    columns |= {"id": [e.id for e in own], "prompts": [build_messages(e, "short") for e in own]}
    if "context" in schema.names:
        scores = ContextReward(judge, schema=schema)(texts, **columns)
        has = [bool(row["context"] or (judge.send_media and row["media"])) for row in rows]
        graded["context_judged"] = list(zip(has, scores, strict=True))
    if {"think", "answer"} <= set(schema.names):
        graded["reasoning_judged"] = [(True, s) for s in ReasoningReward(judge, schema=schema)(texts, **columns)]
    graded["steps_judged"] = _judged_steps(rows, judge)
    return {
        name: {
            **mean_figure([s for _, s in cells if s is not None]),
            "unavailable": sum(a and s is None for a, s in cells),
        }
        for name, cells in graded.items()
        if any(applies for applies, _ in cells)
    }


def _judged_steps(rows: Sequence[Prediction], judge: Judge) -> list[tuple[bool, float | None]]:
    steps = [reference_steps(row["reference_reasoning"] or "") for row in rows]
    thoughts = [row["sections"].get("think") for row in rows]
    asked = [
        Question(STEP_RUBRIC, (("STEP", step), ("REASONING", think)))
        for own, think in zip(steps, thoughts, strict=True)
        for step in own
        if think
    ]
    answers = iter(judge.ask(asked).scores)
    cells: list[tuple[bool, float | None]] = []
    for row, own, think in zip(rows, steps, thoughts, strict=True):
        given = [next(answers) if think else 0.0 for _ in own]
        known = [score for score in given if score is not None]
        whole = bool(own) and len(known) == len(own)
        cells.append((bool(own), step_score(known, row["answer_score"]) if whole else None))
    return cells
