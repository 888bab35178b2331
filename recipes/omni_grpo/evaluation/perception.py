# SPDX-License-Identifier: Apache-2.0
"""
Does a model perceive and reason, beside being right: context quality, consistency of think and answer, steps.

Offline, from words; `perception_judge` asks a judge, who also grades the reasoning itself. Computed of prediction rows,
where they have what is needed: a reference `context`, a `reference_reasoning`, or a conclusion that can be read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from omni_grpo.evaluation.records import Mean, Prediction
from omni_grpo.evaluation.statistics import accuracy_interval, bootstrap_interval
from omni_rewards import conclusion_agrees, context_coverage, context_score

STEP_WEIGHT = 0.8
_N_RESAMPLES = 2_000


def context_quality(written: str | None, reference: str) -> dict[str, float]:
    r"""
    Recall of a reference context's elements, and the share of the written ones that are invented; all by sense, too.

    $$\mathrm{recall} = \frac{\text{named}}{\text{named} + \text{missing}} \in [0, 1], \quad
    \mathrm{invented} = \frac{\text{invented}}{\text{named} + \text{invented}} \in [0, 1]$$

    Recall: higher is better; invented: lower is better. Where there is no context section, recall is `0.0` and there
    is no `invented`; nor is there where nothing is written of a sense. The result is empty for a reference that names
    nothing.

    Args:
        written (`str`, *optional*): The context section, without tags.
        reference (`str`): The reference context, without tags.

    Returns:
        `dict[str, float]`: `recall`, `invented`, `score` (that of `omni_rewards.context_score`), and `recall_visual`,
        `invented_visual`, `recall_audio`, `invented_audio` for the senses that the reference marks.

    Raises nothing.

    Source: ours, on the counts of `omni_rewards.context_coverage`.

    >>> context_quality("The face looks happy.", "The face looks happy. The voice sounds angry.")
    ... # doctest: +NORMALIZE_WHITESPACE
    {'recall': 0.5, 'invented': 0.0, 'score': 0.5, 'recall_visual': 1.0, 'invented_visual': 0.0, 'recall_audio': 0.0}
    """
    coverage = context_coverage(written or "", reference)
    if not coverage:
        return {}
    totals = [sum(counts) for counts in zip(*coverage.values(), strict=True)]
    figures = {**_shares(*totals), "score": context_score(written or "", reference) or 0.0}
    for sense, counts in coverage.items():
        if sense in ("visual", "audio") and counts.named + counts.missing:
            figures |= {f"{name}_{sense}": share for name, share in _shares(*counts).items()}
    return figures


def _shares(named: int, missing: int, invented: int) -> dict[str, float]:
    recall = {"recall": named / (named + missing)}
    return recall | ({"invented": invented / (named + invented)} if named + invented else {})


def step_score(steps: Sequence[float], final: float) -> float:
    r"""
    Reasoning and answer in one figure; higher is better.

    $$S = 0.8 \cdot \frac{1}{n} \sum_i s_i + 0.2 \cdot f \in [0, 1]$$

    A right answer without any of the steps earns 0.2.

    Args:
        steps (`Sequence[float]`): Score of each step, in `[0, 1]`.
        final (`float`): Score of the answer, in `[0, 1]`.

    Raises `ValueError` where there is no step, or a score is outside `[0, 1]`.

    Source: MathFlow (https://huggingface.co/papers/2503.16549), which grades the steps that the model wrote;
    [`reference_steps`] grades those of a reference, so that leaving one out costs.

    >>> step_score([1.0, 0.0], final=1.0)
    0.6
    """
    if not steps:
        raise ValueError("there is no step")
    if not all(0 <= score <= 1 for score in (*steps, final)):
        raise ValueError(f"scores must be from 0 to 1, got steps {list(steps)} and final {final}")
    return STEP_WEIGHT * sum(steps) / len(steps) + (1 - STEP_WEIGHT) * final


def reference_steps(reference: str) -> list[str]:
    """
    The steps of a reference reasoning: its sentences that say something.

    >>> reference_steps("The face smiles. The voice is cold! So it is a taunt.")
    ['The face smiles.', 'The voice is cold!', 'So it is a taunt.']
    """
    sentences = re.findall(r"[^.!?。！？\n]+[.!?。！？]*", reference)
    return [sentence.strip() for sentence in sentences if context_coverage("", sentence)]


def perception_of(row: Prediction) -> dict[str, Any]:
    """
    Offline figures of one prediction row: `context` ([`context_quality`]), `consistent`, `steps`.

    Each is there where it applies. `consistent` is `omni_rewards.conclusion_agrees`: whether think concludes the answer
    that is given, `None` where that cannot be read; `steps` is [`step_score`] over the reference's steps, each scored
    by the share of its elements that think names.
    """
    figures: dict[str, Any] = {}
    sections = row["sections"]
    if row["context"] and (quality := context_quality(sections.get("context"), row["context"])):
        figures["context"] = quality
    think, answer, reference = sections.get("think"), sections.get("answer"), row["reference_reasoning"]
    if think and answer:
        figures["consistent"] = conclusion_agrees(think, answer, row["problem_type"], row["options"])
    if reference and (steps := reference_steps(reference)):
        taken = [context_quality(think, step)["recall"] for step in steps]
        figures["steps"] = step_score(taken, row["answer_score"])
    return figures


def summarise_perception(rows: Sequence[Prediction]) -> dict[str, Mean]:
    """
    Mean, 95 % interval and number of rows of each perception figure that any row has, by name.

    `consistency` is the share of conclusions that agree with the answer, among think sections whose conclusion can be
    read; `concludes` is the share of these sections.
    """
    found = [row.get("perception") or {} for row in rows]
    agreements = [p["consistent"] for p in found if "consistent" in p]
    columns: dict[str, list[float]] = {}
    for figures in found:
        for name, value in figures.get("context", {}).items():
            columns.setdefault(f"context_{name}", []).append(value)
    columns["consistency"] = [float(a) for a in agreements if a is not None]
    columns["concludes"] = [float(a is not None) for a in agreements]
    columns["steps"] = [p["steps"] for p in found if "steps" in p]
    return {name: mean_figure(values) for name, values in columns.items() if values}


def mean_figure(values: Sequence[float]) -> Mean:
    """Mean, 95 % interval and number of `values`; `None` for the first two where there is none."""
    if not values:
        return {"mean": None, "ci95": None, "n": 0}
    binary = all(value in (0, 1) for value in values)
    ci95 = accuracy_interval(values) if binary else bootstrap_interval(values, n_resamples=_N_RESAMPLES)
    return {"mean": float(np.mean(values)), "ci95": ci95, "n": len(values)}
