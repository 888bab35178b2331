# SPDX-License-Identifier: Apache-2.0
"""The shortcut index on predictors whose use of each channel is known, and relations that hold for any scores."""

from __future__ import annotations

import doctest
import functools
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_demo import counterfactual
from omni_demo.design import block
from omni_demo.targets import INTENTS, PROBLEM_TYPES, QUESTIONS, SHARED, solution_of
from omni_grpo.data.rows.schema import Example
from omni_grpo.evaluation import shortcut
from omni_grpo.evaluation.donors import choose_donors
from omni_grpo.evaluation.protocol import Protocol
from omni_grpo.evaluation.results_table import table
from omni_grpo.evaluation.scoring import summarise
from omni_grpo.evaluation.shortcut import summarise_shortcuts, unchanged

ANSWERS = {"agreement": ("yes", "no"), "intent": tuple(INTENTS.values())}
SENSES = ("audio", "video")
shortcut_index = functools.partial(shortcut.shortcut_index, changes=counterfactual.swap_changes_answer)


@pytest.mark.parametrize("module", [shortcut, counterfactual], ids=lambda module: module.__name__)
def test_docstring_examples_hold(module):
    results = doctest.testmod(module)
    assert results.attempted and not results.failed


def demo_rows(n: int) -> list[dict]:
    """Half agreement, half intent, in the demo's balanced blocks."""
    pairs = [("agreement", p) for i in range(n // 16) for p in block("agreement", i)]
    pairs += [("intent", p) for i in range(n // 8) for p in block("intent", i)]
    return [
        {
            "id": f"row{i:04}",
            "problem": QUESTIONS[kind],
            "problem_type": PROBLEM_TYPES[kind],
            "options": None,
            "solution": solution_of(kind, face, voice),
            "meta": {"kind": kind, "face": face, "voice": voice},
        }
        for i, (kind, (face, voice)) in enumerate(pairs)
    ]


def donors_of(rows: list[dict], sense: str) -> dict[str, str]:
    examples = [Example(r["id"], r["problem"], r["problem_type"], r["solution"]) for r in rows]
    clip = {"type": "video", "text": None, "audio_in_video": True}
    prompts = {r["id"]: [{"role": "user", "content": [{**clip, "path": r["id"]}]}] for r in rows}
    return {k: d.id for k, d in choose_donors(examples, prompts, (sense,), f"swapped_{sense}").items()}


def right(kind, face, voice, rng):
    return solution_of(kind, face, voice) if rng.random() < 0.9 else rng.choice(ANSWERS[kind])


def by_face(kind, face, voice, rng):
    if kind == "agreement":
        return "yes" if face in SHARED[:2] else "no"
    return INTENTS["warm", face]


def by_voice(kind, face, voice, rng):
    if kind == "agreement":
        return "yes" if voice in SHARED[:2] else "no"
    return INTENTS[voice, "amused"]


def guess(kind, face, voice, rng):
    return rng.choice(ANSWERS[kind])


def prior(kind, face, voice, rng):
    return ANSWERS[kind][1]


PREDICTORS = {"honest": right, "audio-blind": by_face, "video-blind": by_voice, "guessing": guess, "prior": prior}


def answered(rows: list[dict], predictor, variant: str) -> list[dict]:
    by_id = {r["id"]: r for r in rows}
    sense = variant.removeprefix("swapped_") if variant.startswith("swapped_") else None
    donors = donors_of(rows, sense) if sense else {}
    found = []
    for r in rows:
        seen = dict(r["meta"])
        if sense:
            key = {"audio": "voice", "video": "face"}[sense]
            seen[key] = by_id[donors[r["id"]]]["meta"][key]
        rng = random.Random(f"{r['id']}/{variant}")
        answer = predictor(seen["kind"], seen["face"], seen["voice"], rng)
        found.append(
            {
                **r,
                "answer_score": float(answer == r["solution"]),
                "answer_parsed": answer,
                "answer_reason": "right" if answer == r["solution"] else "wrong",
                "sections": {"context": f"{seen['face']} {seen['voice']}", "answer": answer},
                "altered": True,
                "donor": donors.get(r["id"]),
                "format_ok": True,
                "num_tokens": 1,
            }
        )
    return found


@pytest.fixture(scope="module")
def indices():
    rows = demo_rows(400)
    assert len(rows) == 400
    swaps = {sense: f"swapped_{sense}" for sense in SENSES}
    return {
        (name, sense): shortcut_index(answered(rows, predict, "full"), answered(rows, predict, swap), sense)
        for name, predict in PREDICTORS.items()
        for sense, swap in swaps.items()
    }


def test_the_index_tells_who_goes_by_what(indices):
    """
    The truth is known by construction: in the right order, with intervals that do not overlap.

    Mutants: rows whose truth the swap leaves alone counted, accuracy under the swap scored against the donor's truth.
    """
    for sense in SENSES:
        blind = indices[f"{sense}-blind", sense]
        other = indices[f"{'video' if sense == 'audio' else 'audio'}-blind", sense]
        honest = indices["honest", sense]
        order = [honest, other, blind]
        assert [i.value for i in order] == sorted(i.value for i in order)
        assert all(low.ci95[1] < high.ci95[0] for low, high in pairwise(order))
        assert blind.value == 1.0 and blind.ci95[0] > 0.9
        assert honest.value < 0.15, "one answer in ten is a guess"
        for name in ("guessing", "prior"):  # a score that no evidence was needed for
            assert indices[name, sense].ci95[0] > honest.ci95[1] and indices[name, sense].value > 0.75
        assert all(100 < i.n == i.n_known < 300 for i in order), "half of the swaps change the truth"


@pytest.mark.parametrize(("predict", "low", "high"), [(right, 0.0, 0.2), (by_face, 1.0, 1.0)])
def test_without_a_known_truth_what_chance_earns_is_no_shortcut(predict, low, high):
    """Questions that are not the demo's: an honest model that is shown another sound can only guess."""
    rows = [r | {"problem": f"{r['problem']} ({r['id']})"} for r in demo_rows(400)]
    whole = answered(rows, predict, "full")
    whole = [r | {"answer_score": 1.0} for r in whole] if predict is by_face else whole  # it knows from the face alone
    deaf = whole if predict is by_face else answered(rows, guess, "swapped_audio")
    index = shortcut_index(whole, [{**r, "donor": "row0000", "altered": True} for r in deaf], "audio")
    assert (index.n, index.n_known) == (400, 0)
    assert low <= index.value <= high and index.ci95[1] - index.ci95[0] < 0.35


scored = st.lists(
    st.tuples(*[st.sampled_from([0.0, 0.5, 1.0])] * 2, st.integers(0, 30), st.booleans()), min_size=1, max_size=30
)


def both(cases, known: bool) -> tuple[list[dict], list[dict]]:
    rows = demo_rows(32) if known else [r | {"problem": "Other?"} for r in demo_rows(32)]
    whole = [r | {"answer_score": a} for r, (a, *_) in zip(rows, cases, strict=False)]
    donors = [rows[d % len(whole)]["id"] for _, _, d, _ in cases]
    swapped = [
        r | {"answer_score": s, "donor": donor, "altered": altered}
        for r, donor, (_, s, _, altered) in zip(whole, donors, cases, strict=True)
    ]
    return whole, swapped


@settings(max_examples=40)
@given(cases=scored, known=st.booleans(), data=st.data())
def test_the_index_is_a_share_of_the_rows_in_any_order(cases, known, data):
    """Mutants: no clipping, no width where all resamples agree."""
    whole, swapped = both(cases, known)
    index = shortcut_index(whole, swapped, "audio")
    if index is None:
        return
    low, high = index.ci95
    assert 0 <= low <= index.value <= high <= 1 and high > low
    assert index == shortcut_index(data.draw(st.permutations(whole)), data.draw(st.permutations(swapped)), "audio")


def test_the_interval_is_one_of_the_rows_not_of_their_order():
    """Mutant: rows resampled in the order in which they come."""
    rows = [r | {"problem": "Other?"} for r in demo_rows(160)]
    whole = [r | {"answer_score": 0.6 + (i * 37 % 100) / 250} for i, r in enumerate(rows)]
    swapped = [r | {"answer_score": 0.3 + (i * 61 % 97) / 160, "donor": "row0000"} for i, r in enumerate(rows)]
    index = shortcut_index(whole, swapped, "audio")
    assert 0 < index.ci95[0] < index.value < index.ci95[1] < 1
    assert (
        index == shortcut_index(whole[::-1], swapped[::-1], "audio") == shortcut_index(whole, swapped[::-1], "audio")
    )


@settings(max_examples=25)
@given(cases=scored, known=st.booleans())
def test_more_that_is_left_under_the_swap_is_a_higher_index(cases, known):
    whole, swapped = both(cases, known)
    more = [r | {"answer_score": min(1.0, r["answer_score"] + 0.5)} for r in swapped]
    values = [shortcut_index(whole, some, "audio") for some in (swapped, more)]
    assert values[0] is None or values[0].value <= values[1].value
    same = shortcut_index(
        whole, [r | {"answer_score": w["answer_score"]} for r, w in zip(swapped, whole, strict=True)], "audio"
    )
    assert same is None or same.value == 1.0, "what never changes does not depend on the sound"


def test_a_swap_that_leaves_the_truth_as_it_is_does_not_count():
    whole, swapped = both([(1.0, 1.0, 0, True)], True)  # its own voice
    assert shortcut_index(whole, swapped, "audio") is None
    assert shortcut_index(whole, [r | {"altered": False, "donor": None} for r in swapped], "audio") is None


def test_equal_answers_are_told_in_any_spelling():
    """Mutants: raw texts compared, a context that is missing once counted."""

    def rows(*pairs):
        return [
            {
                "id": str(i),
                "answer_parsed": parsed,
                "answer_score": 0.0,
                "sections": {"answer": said, "context": context},
            }
            for i, (parsed, said, context) in enumerate(pairs)
        ]

    whole = rows(("yes", "Yes!", "A face."), (None, "Two  men", None), (None, None, "b"), ("no", "no", "C, d"))
    other = rows(("yes", "yes", "a face"), (None, "two men.", "x"), (None, None, "c"), ("yes", "yes", "c d"))
    found = unchanged(whole, other)
    assert (found["answers"]["share"], found["answers"]["n"]) == (0.75, 4)
    assert (found["contexts"]["share"], found["contexts"]["n"]) == (pytest.approx(2 / 3), 3)
    assert unchanged(rows(("a", "a", None)), rows(("a", "a", None)))["contexts"] is None


def test_the_summary_has_every_group_and_is_printed():
    rows = demo_rows(64)
    results = {v: answered(rows, by_face, v) for v in ("full", "swapped_audio", "swapped_video", "silent")}
    found = summarise_shortcuts(
        results, ["intent+agreement"], Protocol(counterfactual=counterfactual.swap_changes_answer)
    )
    assert list(found) == ["agreement", "intent", "intent+agreement", "all"]
    assert found["all"] == found["intent+agreement"]
    assert found["all"]["index"]["audio"]["value"] == 1.0
    silent = found["all"]["variants"]["silent"]
    assert (silent["lost"]["difference"], silent["answers"]["share"]) == (0.0, 1.0)
    video = found["all"]["variants"]["swapped_video"]
    assert video["answers"]["share"] < 1 and found["all"]["variants"]["swapped_audio"]["contexts"]["share"] < 1
    stage = summarise(results["full"], ["intent+agreement"]) | {"shortcuts": found, "variants": {}}
    printed = table({"stages": {"rl": stage}, "comparisons": []})
    assert "rl: shortcut index of audio on intent 100.0 [" in printed
    assert "rl: unchanged under silent: 100.0 [" in printed
    assert summarise_shortcuts({"full": results["full"]}) == {} == summarise_shortcuts({"silent": results["silent"]})
