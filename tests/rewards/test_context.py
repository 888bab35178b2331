# SPDX-License-Identifier: Apache-2.0
"""Context reward: what is missing and what is invented cost, seen and heard apart."""

import asyncio
import itertools
import pickle
import random
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge_server import JudgeServer, grade_of
from omni_demo import targets
from omni_rewards import AsyncContextReward, ContextReward, Judge, SectionSchema, context_reward, context_score
from omni_rewards._elements import key_elements
from work import soon

PAIRS = list(itertools.product(targets.FACES, targets.VOICES))
WORDS = ["happy", "sad", "man", "table", "smiles", "frowns", "shouts", "music", "quiet", "red", "runs", "dog"]
CLAUSES = st.lists(
    st.tuples(st.sampled_from(["The face is ", "The voice is ", "There is a "]), st.sampled_from(WORDS))
)


def text_of(clauses: list) -> str:
    return " ".join(f"{start}{word}." for start, word in clauses)


def completion(context: str) -> str:
    return f"<context>{context}</context><think>b</think><answer>c</answer>"


def demo_contexts(face: str | None, voice: str | None) -> list[str]:
    if voice is None:
        return [sentence.format(face=face) for sentence in targets._FACE_SENTENCES]
    if face is None:
        return [sentence.format(voice=voice) for sentence in targets._VOICE_SENTENCES]
    return [sentence.format(face=face, voice=voice) for sentence in targets._PAIR_SENTENCES]


@pytest.mark.parametrize(("face", "voice"), PAIRS)
def test_every_wording_of_the_demo_earns_all_and_each_wrong_side_half(face: str, voice: str) -> None:
    reference = targets.context_of(face, voice, random.Random(0))
    for other_face, other_voice in PAIRS:
        expected = ((face == other_face) + (voice == other_voice)) / 2
        for written in demo_contexts(other_face, other_voice):
            assert context_score(written, reference) == expected, written


@pytest.mark.parametrize("face", targets.FACES)
def test_in_the_demo_a_voice_that_is_not_heard_is_invented(face: str) -> None:
    for reference in demo_contexts(face, None):
        assert all(context_score(written, reference) == 1.0 for written in demo_contexts(face, None))
        for voice in targets.VOICES:
            assert all(context_score(written, reference) == 0.5 for written in demo_contexts(face, voice))


REFERENCE = (
    "A young man in a black suit sits at a desk. His brows are furrowed and his lips are pressed together. "
    "He speaks in a low, trembling voice, and soft piano music plays."
)


@pytest.mark.parametrize(
    "planted",
    [
        " A dog barks.",
        " His voice is cheerful.",
        " His face is happy.",
        " A woman stands behind him.",
        " There is no desk.",
        " Thunder is heard.",
    ],
)
def test_each_invented_element_costs(planted: str) -> None:
    assert context_score(REFERENCE, REFERENCE) == 1.0
    once = context_score(REFERENCE + planted, REFERENCE)
    assert 0.0 < once < 1.0
    assert context_score(f"{REFERENCE}{planted} A green parrot laughs.", REFERENCE) < once
    assert context_score(REFERENCE + planted, REFERENCE, invented_weight=0.0) <= 1.0
    assert context_score(REFERENCE + planted, REFERENCE, invented_weight=2.0) < once


def test_each_missing_element_costs() -> None:
    sentences = REFERENCE.split(". ")
    scores = [context_score(". ".join(sentences[:n]), REFERENCE) for n in range(len(sentences) + 1)]
    assert scores[0] == 0.0 and scores[-1] == 1.0
    assert scores == sorted(set(scores))


@pytest.mark.parametrize(
    ("written", "reference"),
    [
        ("The face is not happy.", "The face is happy."),
        ("The face is happy.", "The face isn't happy."),
        ("The voice is happy.", "The face is happy."),
        ("The voice is sad. The face is happy.", "The face is sad. The voice is happy."),
        ("There is no music.", "There is music."),
        ("No speech is heard.", "Loud speech is heard."),
        ("Is the face happy?", "The face is happy."),
        ("脸看起来很高兴吗？", "脸看起来很高兴"),
        ("If the face is happy, the voice is sad.", "The face is happy. The voice is sad."),
        ("The face should look happy.", "The face looks happy."),
    ],
)
def test_a_contradiction_earns_nothing(written: str, reference: str) -> None:
    assert context_score(written, reference) == 0.0


@pytest.mark.parametrize(
    ("written", "reference"),
    [
        ("He SMILES.", "he is smiling"),
        ("A furious voice.", "The voice sounds angry."),
        ("An angry, trembling voice.", "The voice trembles and is full of anger. It is full."),
        ("The voice is angry, the face happy.", "I see that the face looks happy and hear an angry voice."),
        ("\uff28appy face", "A happy face."),
        ("他很高兴。", "他很高兴"),
    ],
)
def test_another_wording_loses_nothing_but_its_own_words(written: str, reference: str) -> None:
    assert context_score(written, reference, invented_weight=0.0) >= 0.5
    assert context_score(reference, reference) == context_score(written, written) == 1.0


@pytest.mark.parametrize(
    ("text", "seen", "heard"),
    [
        ("A warm voice beside an angry face.", {"angri"}, {"affectionat"}),  # both in one clause: the nearest
        ("The face is calm. An angry, low voice.", {"calm"}, {"angri", "low"}),  # the clause after, not the one before
        ("The face is calm, young. Bald.", {"calm", "young", "bald"}, set()),  # else the one before
    ],
)
def test_an_element_belongs_to_the_sense_named_near_it(text: str, seen: set, heard: set) -> None:
    found = key_elements(text)
    assert found["visual"] - {"besid"} == seen and found["audio"] - {"besid"} == heard and not found["unmarked"]


@pytest.mark.parametrize(
    ("written", "reference"),
    [
        ("A boy in a blue coat holds a red ball.", "A boy in a red coat holds a blue ball."),
        ("Two men argue about three dogs.", "Three men argue about two dogs."),
        ("A small man hits a tall woman.", "A tall man hits a small woman."),
        ("The coat is in a red box. A blue ball and a blue coat.", "A red box, a blue ball, a red coat."),
    ],
)
def test_what_is_said_of_another_thing_is_invented(written: str, reference: str) -> None:
    """Mutant: elements as a bag, whatever stands before whatever."""
    assert 0.0 < context_score(written, reference) < 1.0


@pytest.mark.parametrize(
    ("written", "reference"),
    [
        ("A woman stands at the window in a red coat.", "A woman in a red coat stands at the window."),
        ("A small woman is hit by a tall man.", "A tall man hits a small woman."),
        ("A tall young man shouts.", "A young, tall man. The man shouts."),
        ("The voice is calm and the face looks as if he smiles.", "A smile on the face. The voice, calm."),
        ('He says: "Why are you sad?"', 'He says: "Why are you sad?" '),
    ],
)
def test_another_order_of_the_same_words_loses_nothing(written: str, reference: str) -> None:
    """Mutants: every neighbour asked for in its place; "as if" taken for "if"."""
    assert context_score(written, reference) > 0.8


def test_who_does_it_to_whom_is_not_seen() -> None:
    """A stated limit, see `context_reward`; where this fails the docstring and the attack table are behind."""
    assert context_score("A small woman hits a tall man.", "A tall man hits a small woman.") == 1.0


def test_naming_everything_earns_no_more_than_a_guess() -> None:
    reference = "The face looks sad."
    all_faces = " ".join(f"The face looks {face}." for face in targets.FACES)
    guesses = [context_score(f"The face looks {face}.", reference) for face in targets.FACES]
    assert context_score(all_faces, reference) == pytest.approx(sum(guesses) / len(guesses))


@given(CLAUSES, CLAUSES)
def test_score_is_a_share_and_full_only_for_the_same_elements(written: list, reference: list) -> None:
    score = context_score(text_of(written), text_of(reference))
    if not reference:
        assert score is None
        return
    assert 0.0 <= score <= 1.0
    assert context_score(text_of(reference), text_of(reference)) == 1.0
    gold, found = key_elements(text_of(reference)), key_elements(text_of(written))
    if gold["visual"] and gold["audio"]:
        assert (score == 1.0) == (gold == found)


@given(CLAUSES, st.randoms())
def test_the_order_of_sentences_that_name_their_sense_does_not_matter(clauses: list, rng: random.Random) -> None:
    clauses = [clause for clause in clauses if "There" not in clause[0]]
    shuffled = rng.sample(clauses, len(clauses))
    assert key_elements(text_of(clauses)) == key_elements(text_of(shuffled))


@pytest.mark.parametrize(
    "unit", ["a ", "happy ", ",x", "face voice ", "你", "not ", ". ", "face or ", "so and the ", "\n", "a's"]
)
def test_takes_time_linear_in_the_text(unit: str) -> None:
    text = unit * (100_000 // len(unit))
    with soon():
        assert context_score(text, REFERENCE) == 0.0


def test_three_outcomes() -> None:
    texts = [completion("The face is sad."), completion("Table."), "<context>The face is sad.", "", completion("x")]
    references = ["The face is sad."] * 4 + [None]
    assert context_reward(texts, context=references) == [1.0, 0.0, 0.0, 0.0, None]
    assert context_reward(texts[:3], context=[" ", "It is.", None]) == [None] * 3  # nothing to name
    with pytest.raises(ValueError, match="without tags"):
        context_reward(texts[:1], context=["<context>The face is sad.</context>"])
    with pytest.raises(ValueError, match="zip"):
        context_reward(texts, context=references[:2])


def test_another_schema() -> None:
    schema = SectionSchema(("context", "answer"))
    text = "<context>The face is sad.</context><answer>b</answer>"
    assert ContextReward(schema=schema)([text], context=["A sad face."]) == [1.0]
    with pytest.raises(ValueError, match="section `context`"):
        ContextReward(schema=SectionSchema(("think", "answer")))


@pytest.mark.parametrize(
    "settings",
    [
        {"judge": {}},
        {"judge": {"model": "m"}},
        {"judge": {"endpoint": "http://localhost/v1"}},
        {"judge": {"endpoint": "", "model": "m"}},
        {"judge": {"endpoint": "http://localhost/v1", "model": "m", "temperature": 1}},
        {"rubric": " "},
        {"invented_weight": -1.0},
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match=r"judge|rubric|invented_weight"):
        ContextReward(**settings)


def test_is_frozen_and_pickles() -> None:
    settings = {"judge": {"endpoint": "http://localhost/v1", "model": "m"}, "rubric": "Grade {sense}."}
    reward = ContextReward(**settings)
    assert reward.judge == Judge(**settings["judge"])
    assert pickle.loads(pickle.dumps(reward)) == reward
    assert reward.__name__ == AsyncContextReward().__name__ == context_reward.__name__
    with pytest.raises(FrozenInstanceError):
        reward.rubric = "other"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("reference", ["His face is sad. His voice is calm.", "His face is sad.", "A dog and a man."])
def test_judged_one_question_a_sense_sync_and_async(reference: str) -> None:
    texts = [completion("A sad face."), completion("A calm voice."), "no context", completion("A sad face.")]
    with JudgeServer() as server:
        settings = {"judge": {"endpoint": server.endpoint, "model": "m"}, "rubric": "Grade {sense}."}
        rewards = ContextReward(**settings)(texts, context=[reference] * 3 + [None])
        again = asyncio.run(AsyncContextReward(**settings)(texts, context=[reference] * 3 + [None]))
    num_senses = 2 if "voice" in reference else 1
    assert len(server.requests) == 2 * 2 * num_senses
    candidates = [{"REFERENCE": reference, "CANDIDATE": text} for text in ("A sad face.", "A calm voice.")]
    assert rewards == again == [*(grade_of(texts) / 5 for texts in candidates), 0.0, None]
    asked = {request.body["messages"][0]["content"].split("Grade ")[1].split(".")[0] for request in server.requests}
    assert len(asked) == num_senses


HEARD = {"type": "audio", "path": "a.wav"}
SEEN = {"type": "image", "path": "a.png"}


@pytest.mark.parametrize(
    ("reference", "media", "invented"),
    [
        ("His face is sad.", [SEEN], ["sound"]),
        ("His face is sad.", None, ["sound"]),  # nothing is known but the reference
        ("His face is sad.", [SEEN, HEARD], []),  # there is a sound, of which the reference says nothing
        ("His face is sad.", [{"type": "video", "path": "a.mp4", "audio_in_video": True}], []),
        ("His voice is calm.", [HEARD], ["picture"]),
        ("His voice is calm.", [SEEN, HEARD], []),
        ("His face is sad. His voice is calm.", [SEEN], []),  # graded by a question of its own
        ("A dog and a man.", [SEEN], []),
    ],
)
def test_a_judge_is_told_which_sense_is_not_there(reference: str, media: list | None, invented: list[str]) -> None:
    """Mutant: a voice that nobody hears ignored, since the reference has none to hold it to."""
    asked = media and [[{"role": "user", "content": [*media, {"type": "text", "text": "?"}]}]]
    with JudgeServer() as server:
        judge = {"endpoint": server.endpoint, "model": "m"}
        ContextReward(judge)([completion("A sad face and a calm voice.")], [reference], prompts=asked)
    rubrics = [request.body["messages"][0]["content"] for request in server.requests]
    assert [
        word for rubric in rubrics for word in ("sound", "picture") if f"as there is no {word}" in rubric
    ] == invented
