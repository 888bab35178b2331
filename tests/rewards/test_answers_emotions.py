# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_rewards import EMOTION_ALIASES, EMOTION_LABEL_SETS, AnswerReward, answer_score
from omni_rewards.emotions import emotion_of

WORDS = st.lists(st.sampled_from([*EMOTION_ALIASES, "ecstatic", "numb"]), min_size=1, max_size=6)

SYNONYMS = {name: [word for word, group in EMOTION_ALIASES.items() if group == name] for name in EMOTION_ALIASES}


def test_every_word_leads_to_its_group_and_groups_to_themselves() -> None:
    assert {emotion_of(group) for group in EMOTION_ALIASES.values()} == set(EMOTION_ALIASES.values())
    assert all(emotion_of(word.upper()) == group for word, group in EMOTION_ALIASES.items())


def test_no_word_is_listed_under_two_emotions() -> None:
    """A word of two groups would silently move to the later one."""
    from omni_rewards.emotions import _GROUPS

    lines = _GROUPS.replace("\n    ", " ").strip().splitlines()
    words = [word.strip() for line in lines for word in line.replace(":", ",").split(",")]
    assert len(words) == len(set(words))


@pytest.mark.parametrize("label_set", EMOTION_LABEL_SETS)
def test_labels_of_a_set_are_apart_and_each_gold_label_earns_the_maximum(label_set: str) -> None:
    labels = EMOTION_LABEL_SETS[label_set]
    assert len({emotion_of(label) for label in labels}) == len(labels)
    for gold in labels:
        assert [answer_score(answer, gold, label_set) for answer in labels] == [float(a == gold) for a in labels]


@pytest.mark.parametrize(
    ("answer", "solution", "problem_type", "expected"),
    [
        ("Anger.", "angry", "DFEW", 1.0),
        ("furious", "angry", "DFEW", 1.0),
        ("scared", "fear", "DFEW", 1.0),
        ("surprised", "surprise", "DFEW", 1.0),
        ("开心", "happy", "DFEW", 1.0),
        ("calm", "neutral", "DFEW", 0.0),
        ("anxious", "fear", "MAFW", 0.0),  # MAFW has both
        ("anxious", "anxiety", "MAFW", 1.0),
        ("fear", "fearful", "RAVDESS", 1.0),
        ("neutral", "calm", "RAVDESS", 0.0),  # RAVDESS has both
        ("happy or angry", "angry", "DFEW", 0.0),
        ("angry, happy", "angry", "DFEW", 0.0),
        ("not angry", "angry", "DFEW", 0.0),
        ("anger", "angry", "label", 0.0),  # `label` is the word itself
    ],
)
def test_labels(answer: str, solution: str, problem_type: str, expected: float) -> None:
    assert answer_score(answer, solution, problem_type) == expected


def test_options_are_the_label_set_of_an_emotion() -> None:
    assert answer_score("joyful", "happiness", "emotion", ["happiness", "grief"]) == 1.0
    with pytest.raises(ValueError, match="one of the labels happiness, grief"):
        answer_score("joy", "anger", "emotion", ["happiness", "grief"])


def test_ones_own_aliases_come_first_and_only_where_they_are_given() -> None:
    reward = AnswerReward(aliases={"Ecstatic": "joy", "Dog": "canine"})
    assert reward.read("ecstatic", "happy", "DFEW").score == 1.0 > answer_score("ecstatic", "happy", "DFEW")
    assert reward.read("dog", "canine", "label").score == 1.0 > answer_score("dog", "canine", "label")
    assert reward.read("canine", "dog", "label").score == 1.0
    assert reward.read("ecstatic, angry", "joy, anger", "emer_ov").score == 1.0


def test_open_vocabulary_emotions_are_a_set() -> None:
    assert answer_score("Sad; tired.", "tired, sad", "emer_ov") == 1.0
    assert answer_score("sad", "tired, sad", "emer_ov") == pytest.approx(2 / 3)
    assert answer_score("['anger', 'worry']", "worried, angry", "emer_ov") == 1.0
    assert answer_score("angry", "anger, mad, furious", "emer_ov") == 1.0  # one emotion in three words
    assert answer_score("", "sad", "emer_ov") == 0.0


@settings(max_examples=50)
@given(WORDS, WORDS, st.data())
def test_synonyms_and_repeats_neither_pay_nor_cost(gold, answer, data: st.DataObject) -> None:
    score = answer_score(", ".join(answer), ", ".join(gold), "emer_ov")
    synonyms = [word for group in map(emotion_of, answer) for word in SYNONYMS.get(group, [])]
    padded = [*answer, *data.draw(st.lists(st.sampled_from(synonyms or answer), max_size=5))]
    assert answer_score(", ".join(padded), ", ".join(gold), "emer_ov") == score


def test_naming_every_emotion_pays_little() -> None:
    assert answer_score(", ".join(EMOTION_ALIASES), "sad", "emer_ov") < 0.06
