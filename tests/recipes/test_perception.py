# SPDX-License-Identifier: Apache-2.0
"""Perception figures: what is named, missing, invented by sense; steps; consistency; the judge in their place."""

from __future__ import annotations

import doctest
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge_server import JudgeServer, says
from omni_grpo.evaluation import perception
from omni_grpo.evaluation.perception import (
    context_quality,
    perception_of,
    reference_steps,
    step_score,
    summarise_perception,
)
from omni_grpo.evaluation.perception_judge import judged
from omni_rewards import CONTEXT_THINK_ANSWER, Judge, context_coverage, context_score, parse_sections

REFERENCE = "The face looks happy. The voice sounds angry."
FEELINGS = ["happy", "sad", "angry", "calm", "afraid"]
scenes = st.tuples(st.sampled_from(FEELINGS), st.sampled_from(FEELINGS))
shares = st.floats(0, 1)


def scene(face: str, voice: str) -> str:
    return f"The face looks {face}. The voice sounds {voice}."


def row(text: str, **fields) -> dict:
    """A prediction row of a yes or no question."""
    sections = parse_sections(text).texts
    made = {
        "id": "row",
        "media": [],
        "completion": text,
        "sections": {name: sections.get(name) for name in CONTEXT_THINK_ANSWER.names},
        "problem": "Does the voice agree with the face?",
        "problem_type": "yes_no",
        "options": None,
        "answer_score": 1.0,
        "context": None,
        "reference_reasoning": None,
        **fields,
    }
    return made | {"perception": perception_of(made)}


def completion(context="It is.", think="So no.", answer="no") -> str:
    return CONTEXT_THINK_ANSWER.render({"context": context, "think": think, "answer": answer})


def test_docstring_examples_hold():
    assert doctest.testmod(perception).failed == 0


@given(scenes, scenes)
def test_senses_are_told_apart(gold, written):
    """Mutants: elements pooled over the senses; precision taken for the invented share."""
    quality = context_quality(scene(*written), scene(*gold))
    right = [g == w for g, w in zip(gold, written, strict=True)]
    assert [quality["recall_visual"], quality["recall_audio"]] == right
    assert [quality["invented_visual"], quality["invented_audio"]] == [not r for r in right]
    assert quality["recall"] == sum(right) / 2 == 1 - quality["invented"]


@given(scenes, scenes)
def test_the_score_is_the_context_rewards_and_full_marks_mean_no_fault(gold, written):
    quality = context_quality(scene(*written), scene(*gold))
    assert quality["score"] == context_score(scene(*written), scene(*gold))
    assert (quality["score"] == 1) == (quality["recall"] == 1 and quality["invented"] == 0)


@given(scenes, st.sampled_from(["A dog barks.", "Red curtains.", "Rain falls on tin."]))
def test_adding_what_is_not_there_costs_precision_and_never_recall(gold, addition):
    bare, more = (context_quality(text, scene(*gold)) for text in (scene(*gold), f"{scene(*gold)} {addition}"))
    assert more["recall"] == bare["recall"] == 1 and more["invented"] > bare["invented"] == 0


def test_no_context_recalls_nothing_and_invents_nothing():
    quality = context_quality(None, REFERENCE)
    assert quality["recall"] == quality["recall_audio"] == quality["score"] == 0 and "invented" not in quality
    assert context_quality("A dog.", "It is.") == {}, "the reference names nothing"


@given(st.text(max_size=60), st.text(max_size=60))
def test_counts_are_counts(written, reference):
    for counts in context_coverage(written, reference).values():
        assert min(counts) >= 0 and sum(counts) > 0


@given(st.lists(shares, min_size=1, max_size=6), shares)
def test_step_score_is_the_weighted_mean(steps, final):
    assert step_score(steps, final) == pytest.approx(0.8 * sum(steps) / len(steps) + 0.2 * final)
    assert 0 <= step_score(steps, final) <= 1 + 1e-12


@pytest.mark.parametrize(("steps", "final"), [([], 1.0), ([1.5], 1.0), ([1.0], -0.1)])
def test_what_is_no_score_is_refused(steps, final):
    with pytest.raises(ValueError, match=r"no step|from 0 to 1"):
        step_score(steps, final)


def test_steps_are_those_of_the_reference_so_that_leaving_one_out_costs():
    """Mutant: the model's own steps, of which one good one is all."""
    reference = "The face smiles. The voice is cold. So it is a taunt."
    assert len(reference_steps(reference)) == 3
    thoughts = ["The face smiles. The voice is cold. A taunt.", "The face smiles.", "So no."]
    figures = [row(completion(think=t), reference_reasoning=reference)["perception"]["steps"] for t in thoughts]
    assert figures == pytest.approx([1.0, 0.8 / 3 + 0.2, 0.2])


def test_consistency_counts_conclusions_that_can_be_read_alone():
    """One agrees, one does not, one concludes nothing, one has no think section; a score of words is not made up."""
    texts = [completion(), completion(answer="yes"), completion(think="Look again."), "<answer>no</answer>"]
    summary = summarise_perception([row(text) for text in texts])
    assert (summary["consistency"]["mean"], summary["consistency"]["n"]) == (0.5, 2)
    assert (summary["concludes"]["mean"], summary["concludes"]["n"]) == (pytest.approx(2 / 3), 3)
    assert summary.keys() == {"consistency", "concludes"}, "no reference, no other figure"


def test_summaries_average_over_the_rows_that_have_a_reference():
    rows = [
        row(completion(context=REFERENCE), context=REFERENCE),
        row(completion(context="The face looks sad."), context=REFERENCE),
        row(completion(context="A dog barks.")),
    ]
    summary = summarise_perception(rows)
    assert (summary["context_recall"]["mean"], summary["context_recall"]["n"]) == (0.5, 2)
    assert summary["context_invented_audio"]["n"] == 1, "the second wrote nothing of the voice"
    low, high = summary["context_recall"]["ci95"]
    assert 0 <= low < 0.5 < high <= 1


def test_a_judge_grades_in_place_of_the_words():
    async def by_length(request):
        if "STEP" in request.texts:
            return says(
                json.dumps({"score": 5 if request.texts["STEP"].split()[-1] in request.texts["REASONING"] else 0})
            )
        return says(json.dumps({"score": 5 if "happy" in str(request.texts.get("CANDIDATE")) else 0}))

    reference = "The face smiles. The voice is cold."
    rows = [
        row(completion(context="A happy face.", think="It smiles. So no."), context=REFERENCE),
        row(completion(context="A dog barks."), context=REFERENCE),
        row(completion(think="It smiles. So no."), reference_reasoning=reference),
        row("no sections", reference_reasoning=reference),
    ]
    with JudgeServer(by_length) as server:
        figures = judged(rows, Judge(endpoint=server.endpoint, model="m", backoff_s=0.01), CONTEXT_THINK_ANSWER)
    assert (figures["context_judged"]["mean"], figures["context_judged"]["n"]) == (0.5, 2)
    assert figures["steps_judged"]["mean"] == pytest.approx((0.8 * 0.5 + 0.2 + 0.2) / 2)
    assert figures["reasoning_judged"]["n"] == 4 and figures["context_judged"]["unavailable"] == 0


def test_a_judge_that_cannot_be_reached_leaves_rows_out_and_says_how_many():
    """Mutant: unavailable counted as 0."""
    judge = Judge(endpoint="http://127.0.0.1:9/v1", model="m", retries=0, budget_s=5)
    figures = judged([row(completion(), context=REFERENCE)], judge, CONTEXT_THINK_ANSWER)
    assert figures["context_judged"] == {"mean": None, "ci95": None, "n": 0, "unavailable": 1}
