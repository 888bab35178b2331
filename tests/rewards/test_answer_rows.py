# SPDX-License-Identifier: Apache-2.0
"""What `AnswerReward` does with a batch: settings, agreement, judge, and what it logs."""

import asyncio
import pickle
from dataclasses import FrozenInstanceError

import pytest

from gold_answers import completion
from judge_server import JudgeServer, always, grade_of, says
from omni_rewards import (
    ANSWER_REASONS,
    SUMMARY_CAPTION_REASONING_CONCLUSION,
    AnswerReward,
    AsyncAnswerReward,
    answer_reward,
    section_format_reward,
)

OPTIONS = ["A. praise", "B. taunt", "C. calm", "D. none"]


def logged(reward, completions, solutions, types, options=None, **columns):
    """The rewards, the columns of the completions table and the metrics."""
    extra: dict[str, list] = {}
    metrics: dict[str, float] = {}
    hooks = {"log_extra": extra.__setitem__, "log_metric": metrics.__setitem__}
    return reward(completions, solutions, types, options, **hooks, **columns), extra, metrics


def test_how_answers_were_read_and_why_they_earned_what_they_did() -> None:
    rows = [
        (completion("(b)"), "B", "multiple choice", OPTIONS),
        (completion("A or B"), "B", "multiple choice", OPTIONS),
        (completion("C, b"), "B,C,D", "emer_ov_mc", OPTIONS),
        (completion("Sad!"), "happy", "label", None),
        ("<answer>happy", "happy", "label", None),
        (completion("fury, glad"), "angry", "emer_ov", None),
        (completion("3 - 4; 4-5"), "3 to 5", "time_span", None),
    ]
    rewards, extra, _ = logged(answer_reward, *map(list, zip(*rows, strict=True)))
    assert extra["answer_parsed"] == ["B", "", "B,C", "sad", "", "angry, happy", "3 to 5"]
    assert extra["answer_reason"] == ["right", "unreadable", "partial", "wrong", "no_answer", "partial", "right"]
    assert set(extra["answer_reason"]) <= set(ANSWER_REASONS)
    assert [reward == 1.0 for reward in rewards] == [reason == "right" for reason in extra["answer_reason"]]
    assert [reward == 0.0 for reward in rewards] == [
        reason in ("wrong", "unreadable", "no_answer") for reason in extra["answer_reason"]
    ]


def test_option_spam_is_a_share_of_the_closed_questions() -> None:
    answers = ["A, B, C, D", "A or B", "B", "A,B,C,D", "yes and no", "no", "sad, happy"]
    types = ["multiple choice"] * 3 + ["emer_ov_mc", "yes_no", "judge", "emer_ov"]
    solutions = ["B", "B", "B", "B", "yes", "no", "sad"]
    *_, metrics = logged(answer_reward, list(map(completion, answers)), solutions, types, [OPTIONS] * 7)
    assert metrics["answer/option_spam_rate"] == pytest.approx(4 / 6)
    *_, metrics = logged(answer_reward, [completion("A,B,C,D")], ["A,B,C,D"], ["emer_ov_mc"], [OPTIONS])
    assert metrics["answer/option_spam_rate"] == 0.0  # where all are right it is no spam
    *_, metrics = logged(answer_reward, [completion("sad")], ["sad"], ["label"])
    assert "answer/option_spam_rate" not in metrics


def test_accuracy_without_reasoning_counts_completions_whose_reasoning_is_missing_or_blank() -> None:
    texts = ["<answer>sad</answer>", completion("sad", think=" \u200b"), "<answer>happy</answer>", completion("happy")]
    *_, metrics = logged(answer_reward, texts, ["sad"] * 4, ["label"] * 4)
    assert metrics["answer/accuracy_without_reasoning"] == pytest.approx(2 / 3)
    *_, metrics = logged(answer_reward, [completion("sad")], ["sad"], ["label"])
    assert "answer/accuracy_without_reasoning" not in metrics


def test_blank_reasoning_is_counted_by_the_format_reward() -> None:
    metrics: dict[str, float] = {}
    texts = [completion("a", think=think) for think in (" ", "\u200b", "words", "")] + ["<think>" * 3, ""]
    section_format_reward(texts, log_metric=metrics.__setitem__)
    assert metrics["format/blank_think_rate"] == pytest.approx(3 / 6)


def test_logging_changes_no_reward_and_is_not_needed() -> None:
    rows = [completion("(b)"), completion("A or B"), "B"], ["B"] * 3, ["multiple choice"] * 3, [OPTIONS] * 3
    assert logged(answer_reward, *rows)[0] == answer_reward(*rows) == [1.0, 0.0, 0.0]


AGREEMENT = [
    ("So the answer is (B).", "B", "B", "multiple choice", 1.0),
    ("So the answer is (A).", "B", "B", "multiple choice", 0.0),  # says one, answers the other: both lose
    ("So the answer is (A).", "A", "B", "multiple choice", 0.0),
    ("I look at her face.", "B", "B", "multiple choice", 1.0),  # concludes nothing
    ("The voice is warm, so this is praise.", "taunt", "taunt", "label", 0.0),
]


@pytest.mark.parametrize(("think", "answer", "gold", "problem_type", "expected"), AGREEMENT)
def test_agreement_may_be_required(think: str, answer: str, gold: str, problem_type: str, expected: float) -> None:
    arguments = [completion(answer, think)], [gold], [problem_type], [OPTIONS]
    rewards, extra, _ = logged(AnswerReward(require_agreement=True), *arguments)
    assert rewards == [expected]
    assert (extra["answer_reason"] == ["disagrees"]) == (answer == gold and not expected)
    assert answer_reward(*arguments) == [float(answer == gold)]  # not by default


def test_agreement_reads_labels_by_the_aliases_of_the_reward() -> None:
    """Mutant: the reward's `aliases` not handed on, so that its own word contradicts its label."""
    arguments = [completion("happy", "So the answer is ecstatic.")], ["happy"], ["label"]
    assert AnswerReward(require_agreement=True)(*arguments) == [0.0]
    assert AnswerReward(require_agreement=True, aliases={"ecstatic": "happy"})(*arguments) == [1.0]


def test_the_last_section_of_a_schema_is_the_answer() -> None:
    schema = SUMMARY_CAPTION_REASONING_CONCLUSION
    text = schema.render(dict.fromkeys(schema.names, "The answer is A.") | {"conclusion": "B"})
    arguments = [text], ["B"], ["multiple choice"], [OPTIONS]
    assert answer_reward(*arguments) == [0.0]
    assert AnswerReward(schema=schema)(*arguments) == [1.0]
    assert AnswerReward(schema=schema, require_agreement=True)(*arguments) == [0.0]


@pytest.mark.parametrize("kind", [AnswerReward, AsyncAnswerReward])
def test_settings_are_frozen_picklable_and_keep_the_metrics_name(kind) -> None:
    reward = kind(tolerance=0.1, aliases={"ok": "fine"}, judge={"endpoint": "http://localhost:1/v1", "model": "m"})
    assert pickle.loads(pickle.dumps(reward)) == reward
    assert reward.__name__ == "answer_reward"
    assert isinstance(hash(reward), int)
    with pytest.raises(FrozenInstanceError):
        reward.tolerance = 0.2


def test_the_asynchronous_form_gives_the_same() -> None:
    rows = [completion("(b)"), completion("A or B"), "B"], ["B"] * 3, ["multiple choice"] * 3, [OPTIONS] * 3
    assert asyncio.run(AsyncAnswerReward()(*rows)) == answer_reward(*rows)


FREE = ["He laughs at her.", "he laughs AT her", "A mocking laugh.", "", "A mocking laugh."]


def test_a_judge_grades_free_answers_that_are_not_the_gold_words() -> None:
    texts, gold = [completion(answer) for answer in FREE], "He laughs at her."
    rows = texts, [gold] * 5, ["free-form"] * 5
    columns = {"problem": ["What does he do?"] * 5}
    with JudgeServer() as server:
        reward = AnswerReward(judge={"endpoint": server.endpoint, "model": "m"})
        rewards, extra, metrics = logged(reward, *rows, **columns)
        asked = [request.texts for request in server.requests]
        coroutine = AsyncAnswerReward(judge=reward.judge)(*rows, **columns)
        assert asyncio.run(coroutine) == rewards
    assert asked == [{"QUESTION": "What does he do?", "REFERENCE": gold, "CANDIDATE": "A mocking laugh."}]
    assert rewards == [1.0, 1.0, grade_of(asked[0]) / 5, 0.0, grade_of(asked[0]) / 5]
    assert extra["answer_reason"] == ["right", "right", "judged", "no_answer", "judged"]
    assert metrics["judge/failed"] == 0.0


def test_without_its_judge_a_free_answer_is_none_and_the_other_rows_stand() -> None:
    rows = [completion("A mocking laugh."), completion("B")], ["He laughs.", "B"], ["free-form", "multiple choice"]
    with JudgeServer(always(says("I refuse."))) as server:
        reward = AnswerReward(judge={"endpoint": server.endpoint, "model": "m", "retries": 0})
        rewards, _, metrics = logged(reward, *rows, [None, OPTIONS])
    assert rewards == [None, 1.0]
    assert metrics["judge/failed"] == 1.0
    with pytest.raises(ValueError, match="gold answer"):  # broken data raise before anyone is asked
        reward([completion("x")], [" "], ["free-form"])
