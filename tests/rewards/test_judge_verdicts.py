# SPDX-License-Identifier: Apache-2.0
"""The score in what a judge wrote."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_rewards.judge.verdicts import read_reply, read_score
from work import soon

SAME = [
    '{"score": 4}',
    ' {"score": 4, "reason": "good"} ',
    '```json\n{"score": 4}\n```',
    '{"score": 4.0}',
    '{"score": "4"}',
    "4",
    "4.",
    " 4\n",
    "**4**",
    "4/5",
    "4 / 5",
    "4 out of 5",
    "8/10",
    "80%",
    "4 points",
    "Score: 4",
    "score = 4/5",
    "**Score:** 4",
    "The final score is 4.",
    "My rating: 4 stars",
    "The face is named, the voice is not.\nScore: 4",
    "Score: 4. The voice is missing.",
    "Score: 4, and to repeat: score: 4/5",
    '<think>At first a score: 1.</think>\n{"score": 4}',
    'Here you are: {"score": 4}',
    '{"score": 4} The voice is missing.',
    '{"score": 4}\n\nIt names 3 of the 5 elements.',
    'The voice is missing.\n```json\n{"score": 4}\n```\nThat is all.',
    "{'score': 4}",
    "{'score': '4', 'reason': 'it\\'s good'}",
    '{"Score": 4}',
    '{"SCORE": 4.0}',
    '{"reason": "Score: 2 would be too harsh", "score": 4}',
    '{"result": {"score": 4}}',
    '{"score": 4}\n{"score": 4}',
    '{"score": 4} Score: 4/5',
    '{"score": 4,}',
    "```json\n4\n```",
]
NONE = [
    "",
    "good",
    "I'm sorry, I cannot grade this.",
    "I would give it 4 or 5",
    "50",
    "6",
    "5.01",
    "-1",
    "6/5",
    "5/0",
    "3-4",
    "3–4",
    "Score: 3-4",
    "Score: 3 to 4",
    "Score: 3 or 4",
    "Score: 4/5/6",
    "Score: 4. No, score: 2.",
    "Score: 4, or score: 50",
    '{"score": 50}',
    '{"score": -1}',
    '{"score": true}',
    '{"score": null}',
    '{"score": [4]}',
    '{"score": NaN}',
    '{"score": Infinity}',
    '{"score": 1e999}',
    '{"points": 4}',
    '{"score": 4',
    "{'score': 4",
    '{"score": 4} No, {"score": 2}',
    '{"score": 4} Score: 2',
    '{"score": 4, "score": 2}',
    '{"score": 4, "Score": 2}',
    "{'score': 4} {'score': 2}",
    '{"score": 4} {"score": true}',
    '{"score": 4} {"score": 50}',
    "{'score': True}",
    "{'score': 1e999}",
    '{"score": "3-4"}',
    '{"score": ' + "[" * 7000 + "]" * 900 + "}",
    "[4]",
    "４",
    "1e0",
    "four",
    "4 of the 5 elements are there, 1 is invented",
    "<think>Score: 4",
]


@pytest.mark.parametrize("text", SAME)
def test_the_same_score_in_every_form(text: str) -> None:
    assert read_score(text) == 0.8


@pytest.mark.parametrize("text", NONE)
def test_no_score(text: str) -> None:
    assert read_score(text) is None


@given(st.text())
def test_a_score_is_a_share_or_none(text: str) -> None:
    for written in (text, f"Score: {text}", f'{{"score": {text}}}', f"{text}/5"):
        score = read_score(written)
        assert score is None or 0.0 <= score <= 1.0


@given(st.integers(-3, 12), st.integers(1, 12))
def test_a_number_counts_if_it_is_on_its_scale(number: int, top: int) -> None:
    forms = {str(number): top, f"Score: {number}": top, json.dumps({"score": number}): top, f"{number}/{top}": 5}
    for text, scale in forms.items():
        assert read_score(text, scale) == (number / top if 0 <= number <= top else None)


@pytest.mark.parametrize(
    "text", ["score " * 50_000, "4" * 400_000, "score: 4 " * 40_000, " " * 400_000, '{"a":' * 90_000]
)
def test_long_replies_take_no_time(text: str) -> None:
    with soon():
        assert read_score(text) is None


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"4", b"{}", b'{"choices": [{"message": "4"}]}', b'{"choices": {"0": 1}}']
)
def test_a_body_that_is_no_chat_completion_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match="reply"):
        read_reply(body)
