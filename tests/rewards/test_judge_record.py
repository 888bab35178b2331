# SPDX-License-Identifier: Apache-2.0
"""Replies on disk: asked once in all runs, by any number of processes, and again where an entry is damaged."""

import concurrent.futures
import multiprocessing
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge_server import JudgeServer, always, honest, http, says
from omni_rewards import ContextReward, Judge, Question, ReasoningReward
from omni_rewards.judge.record import ReplyRecord, content_key

QUESTIONS = [Question("Grade it.", (("CANDIDATE", f"text {i}"),)) for i in range(12)]
COMPLETION = "<context>His {0} is {1}.</context><think>The {0} is {1}, so {2}.</think><answer>{2}</answer>"
COMPLETIONS = [COMPLETION.format(a, b, c) for a in ("face", "voice") for b in ("sad", "calm") for c in ("yes", "no")]
COLUMNS = {
    "context": ["His face is sad. His voice is calm."] * 8,
    "problem_type": ["yes_no"] * 8,
    "problem": ["Is he sad?"] * 8,
}


def rewards_of(judge: Judge, **more) -> list:
    return [reward(judge=judge)(COMPLETIONS, **COLUMNS, **more) for reward in (ContextReward, ReasoningReward)]


def test_second_run_is_served_from_disk_and_replay_needs_no_server(tmp_path: Path) -> None:
    logged: dict[str, float] = {}
    with JudgeServer() as server:
        judge = Judge(endpoint=server.endpoint, model="grader", cache_dir=str(tmp_path))
        first = rewards_of(judge)
        asked = len(server.requests)
        second = rewards_of(replace(judge), log_metric=logged.__setitem__)
        assert len(server.requests) == asked > 8
    assert logged["judge/requests"] == logged["judge/failed"] == 0.0
    assert logged["judge/recorded"] == 8.0
    third = rewards_of(replace(judge, replay=True))  # the server is gone
    elsewhere = rewards_of(replace(judge, endpoint="http://no-such-host.invalid/v1"))
    assert first == second == third == elsewhere
    assert len({score for scores in first for score in scores}) > 3 and None not in first[0]


def test_what_is_not_recorded_is_unavailable_in_a_replay(tmp_path: Path, caplog) -> None:
    with JudgeServer() as server:
        judge = Judge(endpoint=server.endpoint, model="grader", cache_dir=str(tmp_path))
        known = judge.ask(QUESTIONS[:2]).scores
        replayed = replace(judge, replay=True).ask(QUESTIONS[:3])
        assert len(server.requests) == 2
    assert replayed.scores == [*known, None]
    assert "1 of 3" in caplog.text


@pytest.mark.parametrize(
    "changed",
    [{"model": "other"}, {"seed": 1}, {"max_tokens": 5}, {"extra_body": {"top_k": 1}}, {"max_text_chars": 3}],
)
def test_another_question_has_another_key(changed: dict) -> None:
    judge = Judge(endpoint="http://localhost/v1", model="grader")
    keys = [content_key(j.request(QUESTIONS[0])) for j in (judge, replace(judge), replace(judge, **changed))]
    assert keys[0] == keys[1] != keys[2]
    other = Question("Grade it with care.", QUESTIONS[0].texts)
    assert content_key(judge.request(other)) != keys[0]


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "null", '{"reply": 5, "check": ""}', "\x00" * 50, "[" * 100_000, None]
)
def test_a_damaged_entry_is_asked_again_and_written_anew(tmp_path: Path, damage: str | None) -> None:
    with JudgeServer() as server:
        judge = Judge(endpoint=server.endpoint, model="grader", cache_dir=str(tmp_path))
        good = judge.ask(QUESTIONS[:2]).scores
        path, _ = sorted(tmp_path.rglob("*.json"))
        entry = path.read_text()
        if damage is None:  # still JSON, and a score, but another one
            damage = re.sub(r'(score\\": )(\d)', lambda match: f"{match[1]}{5 - int(match[2])}", entry)
        path.write_text(damage)
        assert path.read_text() != entry
        assert judge.ask(QUESTIONS[:2]).scores == good
        assert len(server.requests) == 3
        assert path.read_text() == entry
        judge.ask(QUESTIONS[:2])
        assert len(server.requests) == 3


@pytest.mark.parametrize("reply", [http("", 500), http("garbage"), says("no idea"), says('{"score": 50}')])
def test_a_failure_is_not_kept(tmp_path: Path, reply: bytes) -> None:
    with JudgeServer(always(reply)) as server:
        judge = Judge(endpoint=server.endpoint, model="grader", cache_dir=str(tmp_path), retries=0)
        assert judge.ask(QUESTIONS[:1]).scores == [None]
        server.behaviour = honest
        assert None not in judge.ask(QUESTIONS[:1]).scores


def test_a_folder_that_cannot_be_written_costs_the_record_not_the_score(tmp_path: Path, caplog) -> None:
    (tmp_path / "file").write_text("")
    with JudgeServer() as server:
        judge = Judge(endpoint=server.endpoint, model="grader", cache_dir=str(tmp_path / "file" / "below"))
        assert None not in judge.ask(QUESTIONS[:3]).scores
    assert caplog.text.count("replies are not kept") == 1


def _ask(judge: Judge) -> list:
    return judge.ask(QUESTIONS).scores


def test_processes_share_a_folder(tmp_path: Path) -> None:
    """Three processes write and read the same twelve entries at once; every reader sees whole entries or none."""
    context = multiprocessing.get_context("spawn")
    with JudgeServer() as server, concurrent.futures.ProcessPoolExecutor(3, mp_context=context) as pool:
        judge = Judge(endpoint=server.endpoint, model="grader", cache_dir=str(tmp_path))
        results = list(pool.map(_ask, [judge] * 3))
        asked = len(server.requests)
        assert judge.ask(QUESTIONS).scores == results[0]
        assert len(server.requests) == asked  # every entry is whole
    assert all(scores == results[0] for scores in results) and None not in results[0]
    assert len(list(tmp_path.rglob("*.json"))) == len(QUESTIONS)
    assert list(tmp_path.rglob("*.part")) == []


@given(reply=st.text(), other=st.text())
def test_what_was_written_is_read(tmp_path_factory, reply: str, other: str) -> None:
    record = ReplyRecord(tmp_path_factory.mktemp("record"))
    key = content_key({"a": reply})
    assert record.read(key) is None
    record.write(key, {"a": reply}, other)
    record.write(key, {"a": reply}, reply)
    assert record.read(key) == reply
