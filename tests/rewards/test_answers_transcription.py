# SPDX-License-Identifier: Apache-2.0
"""Error rates against jiwer and rapidfuzz, by script; overlap scores of free text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_rewards import AnswerReward, answer_score
from omni_rewards.free_form import longest_common_subsequence, rouge_l, token_f1
from omni_rewards.transcription import edit_distance
from work import lines_run

jiwer = pytest.importorskip("jiwer")
distances = pytest.importorskip("rapidfuzz.distance")

WORDS = st.lists(st.sampled_from(["the", "a", "man", "laughs", "cries", "aloud", "goes"]), min_size=1, max_size=40)


@given(WORDS, WORDS)
def test_word_error_rate_is_jiwers(gold, answer) -> None:
    rate = jiwer.wer(" ".join(gold), " ".join(answer))
    for problem_type in ("OCR", "transcription"):
        assert answer_score(" ".join(answer), " ".join(gold), problem_type) == pytest.approx(max(0.0, 1 - rate))


@settings(max_examples=40)
@given(WORDS, WORDS)
def test_character_error_rate_is_jiwers(gold, answer) -> None:
    rate = jiwer.cer(" ".join(gold), " ".join(answer))
    reward = AnswerReward(unit="character")
    assert reward.read(" ".join(answer), " ".join(gold), "OCR").score == pytest.approx(max(0.0, 1 - rate))


@given(st.text("abc", max_size=80), st.text("abc", max_size=80))
def test_the_edit_distance_is_rapidfuzzs(first: str, second: str) -> None:
    assert edit_distance(first, second) == distances.Levenshtein.distance(first, second)


@given(st.text("abc", max_size=80), st.text("abc", max_size=80))
def test_the_longest_common_subsequence_is_rapidfuzzs(first: str, second: str) -> None:
    assert longest_common_subsequence(first, second) == distances.LCSseq.similarity(first, second)


def test_an_edit_distance_takes_some_steps_a_word() -> None:
    """About 13 lines a word; in seconds 0.2 to 1.1 times jiwer's. Mutant: a table of all pairs of words."""
    gold = [f"word{i * 7919 % 1000}" for i in range(480)]
    answer = [word if i % 5 else "other" for i, word in enumerate(gold)]
    assert lines_run(edit_distance, gold, answer) < 20 * len(gold)


@pytest.mark.parametrize(
    ("answer", "gold", "problem_type", "expected"),
    [
        ("exit\n ONLY", "Exit only", "OCR", 1.0),
        ("exit only.", "Exit only", "OCR", 0.5),  # a sign has no full stop, or it has
        ("exit only.", "Exit only", "transcription", 1.0),  # nobody says it
        ("don’t stop", "Don't stop!", "transcription", 1.0),
        ("3.5", "35", "transcription", 0.0),
        ("-5 degrees", "5 degrees", "transcription", 0.5),
        ("出口在左边", "出口在右边", "OCR", 0.8),  # by character: one of five
        ("出 口 在 右 边", "出口在右边", "OCR", 1.0),
        ("ｅｘｉｔ　出口", "EXIT 出口", "OCR", 1.0),
        ("これはペンです", "これは本です", "OCR", 4 / 6),
        ("ฉันรักเธอ", "ฉันรักเขา", "OCR", 7 / 9),
        ("저는 학생 입니다", "저는 선생 입니다", "OCR", 2 / 3),  # Korean has spaces
        ("你好世界", "你好，世界。", "transcription", 1.0),
        ("exit " * 3, "exit", "OCR", 0.0),  # more errors than words
        ("she laughs. " * 5, "she laughs", "transcription", 0.0),
    ],
)
def test_transcriptions_by_script(answer: str, gold: str, problem_type: str, expected: float) -> None:
    assert answer_score(answer, gold, problem_type) == pytest.approx(expected)


def test_characters_of_words_with_spaces_between() -> None:
    reward = AnswerReward(unit="character")
    assert reward.read("exitonly", "exit only", "OCR").score == pytest.approx(8 / 9)
    assert reward.read("出 口", "出口", "OCR").score == 1.0


@given(WORDS, WORDS)
def test_only_the_gold_words_in_their_order_earn_the_maximum(gold, answer) -> None:
    score = answer_score(" ".join(answer), " ".join(gold), "free-form")
    assert 0.0 <= score <= 1.0 and (score == 1.0) == (answer == gold)
    assert score == pytest.approx((rouge_l(answer, gold) + token_f1(answer, gold)) / 2)
    assert answer_score(" ".join(gold), " ".join(answer), "free-form") == score


def test_words_in_another_order_count_for_less() -> None:
    gold, shuffled = "the dog bites the man", "the man bites the dog"
    assert token_f1(shuffled.split(), gold.split()) == 1.0
    assert answer_score(shuffled, gold, "free-form") == pytest.approx((1.0 + 0.6) / 2)


def test_padding_and_repeating_the_gold_answer_cost() -> None:
    gold = "He laughs at the joke."
    scores = [answer_score(answer, gold, "free-form") for answer in (gold, gold + " Yes.", gold * 2, gold * 50)]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 4
