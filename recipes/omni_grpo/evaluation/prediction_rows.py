# SPDX-License-Identifier: Apache-2.0
"""One completion as the row that is written: what was asked, what was said, how it was read, what it earned."""

from __future__ import annotations

from dataclasses import asdict

from omni_grpo.data.rows.schema import Example
from omni_grpo.evaluation.perception import perception_of
from omni_grpo.evaluation.records import Prediction
from omni_grpo.rollout.answers import Completion
from omni_rewards import AnswerReward, SectionSchema, parse_sections


def prediction_row(
    example: Example,
    completion: Completion,
    schema: SectionSchema,
    variant: str,
    bare: bool,
    answers: AnswerReward,
) -> Prediction:
    """
    The row of one completion.

    `answer_score` is 0 where the completion has no single well-formed section of the answer; `bare` takes the whole
    completion for the answer then.
    """
    sections = parse_sections(completion.text, schema)
    answer = sections.texts.get(schema.names[-1], completion.text if bare else None)
    options = list(example.options) if example.options else None
    read = answers.read(answer or "", example.solution, example.problem_type, options)
    score = 0.0 if answer is None else read.score
    row: Prediction = {
        "id": example.id,
        "problem": example.problem,
        "problem_type": example.problem_type,
        "options": example.options,
        "solution": example.solution,
        "context": example.context,
        "reference_reasoning": example.reference_reasoning,
        "media": [asdict(m) for m in example.media],
        "variant": variant,
        "completion": completion.text,
        "sections": {name: sections.texts.get(name) for name in schema.names},
        "format_ok": sections.ok,
        "format_reason": sections.reason,
        "answer_score": score,
        "answer_reason": "no_answer" if answer is None else read.reason,
        "answer_parsed": None if answer is None else read.parsed,
        "gold_parsed": answers.read(example.solution, example.solution, example.problem_type, options).parsed,
        "num_tokens": completion.num_tokens,
        "truncated": completion.truncated,
        "seconds": completion.seconds,
        "meta": dict(example.meta),
    }
    row["perception"] = perception_of(row)
    return row
