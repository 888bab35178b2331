# SPDX-License-Identifier: Apache-2.0
"""The judge against a real server: how many requests, how many at a time, and what is never said."""

import asyncio
import json
import logging
import os
import pickle
import random
import re

import pytest

from judge_server import JudgeServer, after, grade_of, honest, http, says
from omni_grpo.run.reward_settings import configured_rewards
from omni_rewards import ContextReward, Judge, Question

CONTEXT = "omni_rewards.context_reward"
QUESTIONS = [Question("Grade it.", (("CANDIDATE", f"text {i}"),)) for i in range(256)]


def judge_of(server: JudgeServer, **settings) -> Judge:
    return Judge(endpoint=server.endpoint, model="grader", **{"backoff_s": 0.01, **settings})


def expected(question: Question) -> float:
    return grade_of(dict(question.texts)) / 5


def test_scores_come_back_in_the_order_of_the_questions() -> None:
    with JudgeServer() as server:
        scores = judge_of(server).ask(QUESTIONS[:40]).scores
    assert scores == [expected(question) for question in QUESTIONS[:40]]
    assert len(set(scores)) > 3


def test_256_completions_go_out_64_at_a_time() -> None:
    """A server that answers nobody before 64 have asked. Mutant: fewer at a time, whom it lets wait."""

    async def together(request) -> bytes:
        while server.most_in_flight < 64:
            await asyncio.sleep(0.01)
        return await honest(request)

    with JudgeServer(together) as server:
        judgement = judge_of(server, timeout_s=60.0, budget_s=60.0).ask(QUESTIONS)
    assert judgement.scores == [expected(question) for question in QUESTIONS]
    assert judgement.num_requests == len(server.requests) == 256
    assert server.most_in_flight == 64


@pytest.mark.parametrize("limit", [1, 3])
def test_never_more_in_flight_than_allowed(limit: int) -> None:
    with JudgeServer(after(0.02)) as server:
        judge_of(server, max_in_flight=limit).ask(QUESTIONS[:12])
    assert server.most_in_flight == limit
    assert server.num_connections == limit  # a connection is kept


def test_equal_questions_are_asked_once() -> None:
    with JudgeServer() as server:
        scores = judge_of(server).ask(QUESTIONS[:3] * 5).scores
    assert len(server.requests) == 3
    assert scores == [expected(question) for question in QUESTIONS[:3] * 5]


def test_what_is_sent() -> None:
    with JudgeServer() as server:
        judge_of(server, seed=7, max_tokens=9, extra_body={"top_k": 1}).ask(QUESTIONS[:1])
    [request] = server.requests
    sent = {name: request.body[name] for name in ("model", "temperature", "seed", "max_tokens", "top_k")}
    assert sent == {"model": "grader", "temperature": 0, "seed": 7, "max_tokens": 9, "top_k": 1}
    assert request.body["response_format"]["json_schema"]["schema"]["required"] == ["score"]
    assert "Authorization" not in request.headers


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_without_json_schemas_is_asked_without(status: int, caplog) -> None:
    async def plain(request) -> bytes:
        if "response_format" in request.body:
            return http("{}", status)
        return says(f"Score: {grade_of(request.texts)}/5")

    with JudgeServer(plain) as server:
        scores = judge_of(server, max_in_flight=1).ask(QUESTIONS[:5]).scores
    assert scores == [expected(question) for question in QUESTIONS[:5]]
    assert len(server.requests) == 6  # it is told once
    assert "json_schema: false" in caplog.text


@pytest.mark.parametrize("in_loop", [False, True])
def test_blocks_or_awaits_with_the_same_result(in_loop: bool) -> None:
    with JudgeServer() as server:
        judge = judge_of(server)

        async def main() -> tuple[list, list]:
            awaited = await judge.ask_async(QUESTIONS[:4])
            return awaited.scores, judge.ask(QUESTIONS[:4]).scores  # from inside the running loop

        if in_loop:
            awaited, blocking = asyncio.run(main())
        else:
            awaited, blocking = asyncio.run(judge.ask_async(QUESTIONS[:4])).scores, judge.ask(QUESTIONS[:4]).scores
    assert awaited == blocking == [expected(question) for question in QUESTIONS[:4]]


def test_the_key_is_read_when_asked_and_shown_nowhere(monkeypatch, caplog, tmp_path) -> None:
    secret = "sk-5up3r-53cr37"
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    caplog.set_level(logging.DEBUG)

    async def echo_key(request) -> bytes:
        if request.number == 1:
            return http(f"Incorrect API key provided: {request.headers['Authorization']}", 500)
        return await honest(request)

    with JudgeServer(echo_key) as server:
        judge = judge_of(server, api_key_env="JUDGE_KEY", cache_dir=str(tmp_path))
        monkeypatch.setenv("JUDGE_KEY", secret)  # after construction
        assert judge.ask(QUESTIONS[:2]).scores == [expected(question) for question in QUESTIONS[:2]]
        again = pickle.loads(pickle.dumps(judge))
        assert again == judge
        judge_of(server, api_key_env="JUDGE_KEY", retries=0, timeout_s=0.001).ask(QUESTIONS[2:3])
    assert {request.headers["Authorization"] for request in server.requests} == {f"Bearer {secret}"}
    written = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    for shown in (repr(judge), str(ContextReward(judge=judge)), caplog.text, written):
        assert secret not in shown
    assert secret.encode() not in pickle.dumps(judge)


def test_a_key_that_is_missing_or_no_header_stops_the_run_by_name(monkeypatch) -> None:
    judge = Judge(endpoint="http://127.0.0.1:9/v1", model="grader", api_key_env="JUDGE_KEY")
    for value in ("", "two\nlines", "schlüssel"):
        monkeypatch.setenv("JUDGE_KEY", value)
        with pytest.raises(ValueError, match="JUDGE_KEY") as error:
            judge.ask(QUESTIONS[:1])
        assert not value or value not in str(error.value)


@pytest.mark.parametrize("written", ["$JUDGE_URL", "${JUDGE_URL}"])
def test_the_endpoint_may_be_named_by_a_variable_read_at_construction(monkeypatch, written: str) -> None:
    """Mutants: the name taken for the address; the variable read anew with each question."""
    with JudgeServer() as server:
        monkeypatch.setenv("JUDGE_URL", server.endpoint)
        judge = Judge(endpoint=written, model="grader")
        [reward] = configured_rewards([CONTEXT], {CONTEXT: {"judge": {"endpoint": written, "model": "grader"}}})
        monkeypatch.setenv("JUDGE_URL", "http://127.0.0.1:9/v1")
        assert judge.ask(QUESTIONS[:2]).scores == [expected(question) for question in QUESTIONS[:2]]
        assert judge == Judge(endpoint=server.endpoint, model="grader") == reward.judge
        assert pickle.loads(pickle.dumps(judge)).endpoint == server.endpoint


@pytest.mark.parametrize("value", [None, ""])
def test_an_unset_variable_of_the_endpoint_is_refused_by_name_and_the_remedy_works(monkeypatch, value) -> None:
    """Mutant: an empty one taken for an address."""
    monkeypatch.delenv("JUDGE_URL", raising=False)
    if value is not None:
        monkeypatch.setenv("JUDGE_URL", value)
    settings = {"endpoint": "$JUDGE_URL", "model": "grader"}
    with pytest.raises(ValueError, match="JUDGE_URL") as error:
        Judge(**settings)
    with pytest.raises(ValueError, match=rf"reward_settings: {CONTEXT}.*JUDGE_URL"):
        configured_rewards([CONTEXT], {CONTEXT: {"judge": settings}})
    name, address = re.search(r"export (\w+)=(\S+)", str(error.value)).groups()
    monkeypatch.setenv(name, address)
    assert Judge(**settings).endpoint == address


@pytest.mark.parametrize("value", ["localhost:8000", "http://me:secret@host/v1"])
def test_what_the_variable_holds_is_held_to_the_same_rules(monkeypatch, value: str) -> None:
    monkeypatch.setenv("JUDGE_URL", value)
    with pytest.raises(ValueError, match="endpoint") as error:
        Judge(endpoint="$JUDGE_URL", model="grader")
    assert "secret" not in str(error.value)


def test_only_the_named_variable_is_read_from_the_environment(monkeypatch) -> None:
    read: set[str] = set()

    class Watched(dict):
        def __getitem__(self, name):
            read.add(name)
            return super().__getitem__(name)

        def get(self, name, default=None):
            read.add(name)
            return super().get(name, default)

    with JudgeServer() as server:
        monkeypatch.setattr(os, "environ", Watched(os.environ, JUDGE_KEY="k", OPENAI_API_KEY="k", http_proxy="x"))
        assert None not in judge_of(server).ask(QUESTIONS[:2]).scores
        without = {name for name in read if not name.startswith("PYTHON")}  # asyncio reads its debug flag
        assert None not in judge_of(server, api_key_env="JUDGE_KEY").ask(QUESTIONS[:2]).scores
    assert without == set()
    assert {name for name in read if not name.startswith("PYTHON")} == {"JUDGE_KEY"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"endpoint": ""}, "needs `endpoint`"),
        ({"model": ""}, "`model`"),
        ({"endpoint": "localhost:8000"}, "http or https URL"),
        ({"endpoint": "ftp://localhost"}, "http or https URL"),
        ({"endpoint": "http://"}, "http or https URL"),
        ({"endpoint": "http://a/\r\nX: y"}, "http or https URL"),
        ({"endpoint": "http://me:secret@host/v1"}, "api_key_env"),
        ({"api_key_env": "sk-secret-1"}, "name of an environment variable"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"retries": -1}, "retries"),
        ({"budget_s": 0}, "budget_s"),
        ({"timeout_s": float("inf")}, "timeout_s"),
        ({"backoff_s": -1.0}, "backoff_s"),
        ({"replay": True}, "cache_dir"),
        ({"extra_body": {"temperature": 1}}, "temperature"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Judge(**{"endpoint": "http://localhost:8000/v1", "model": "grader", **settings})
    assert "secret" not in str(error.value)


def test_the_global_random_state_is_the_runs_own() -> None:
    """A judge that fails must not change what the policy samples."""

    async def busy_once(request) -> bytes:
        return http("", 503) if request.number == 1 else await honest(request)

    state = random.getstate()
    with JudgeServer(busy_once) as server:
        assert None not in judge_of(server).ask(QUESTIONS[:1]).scores
    assert random.getstate() == state


def test_a_reply_in_chunks_and_one_up_to_the_end_of_the_stream() -> None:
    body = json.dumps({"choices": [{"message": {"content": "4/5"}}]}).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:])) + b"0\r\n\r\n"
    replies = [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
        b"HTTP/1.0 200 OK\r\n\r\n" + body,
    ]

    async def behaviour(request) -> bytes:
        return replies[request.number - 1]

    with JudgeServer(behaviour) as server:
        assert judge_of(server, max_in_flight=1).ask(QUESTIONS[:2]).scores == [0.8, 0.8]
