# SPDX-License-Identifier: Apache-2.0
"""A server that fails in every way: nothing is raised, the score is `None`, and the budget is kept."""

import json
import socket
import time

import pytest

from judge_server import JudgeServer, after, always, grade_of, honest, http, says
from omni_rewards import ContextReward, Judge, Question

QUESTIONS = [Question("Grade it.", (("CANDIDATE", f"text {i}"),)) for i in range(6)]
GOOD = json.dumps({"choices": [{"message": {"content": '{"score": 4}'}}]})


def judge_of(server: JudgeServer, **settings) -> Judge:
    return Judge(
        endpoint=server.endpoint,
        model="grader",
        **{"retries": 2, "backoff_s": 0.01, "timeout_s": 5.0, "budget_s": 20.0, **settings},
    )


# name -> (what the server sends; how often each question is asked with two retries)
FAULTS: dict[str, tuple[bytes | None, int]] = {
    "closes without a word": (None, 3),
    "429": (http("slow down", 429), 3),
    "500": (http("oops", 500), 3),
    "503": (http("", 503), 3),
    "403": (http("", 403), 1),
    "redirect": (http("", 302, "Location: http://127.0.0.1:9/"), 1),
    "half-closed in the head": (b"HTTP/1.1 200 OK\r\nContent-Type", 3),
    "half-closed in the body": (b"HTTP/1.1 200 OK\r\nContent-length: 9999\r\n\r\n" + GOOD.encode(), 3),
    "half-closed in a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-encoding: Chunked\r\n\r\nff\r\nabc", 3),
    "bad chunk size": (b"HTTP/1.1 200 OK\r\nTransfer-encoding: Chunked\r\n\r\nxyz\r\nabc", 3),
    "negative length": (b"HTTP/1.1 200 OK\r\nContent-length: -5\r\n\r\nabc", 3),
    "no HTTP": (b"\x00\xff\x16\x03\x01 garbage\n" * 20, 3),
    "one endless line": (b"HTTP/1.1 200 " + b"x" * 200_000, 3),
    "endless head": (b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 20_000, 3),
    "garbage body": (http("<html>Bad gateway</html>"), 3),
    "garbage bytes": (http(b"\xff\xfe\x00garbage"), 3),
    "wrong schema": (http('{"output": [{"text": "5"}]}'), 3),
    "JSON of another kind": (http("[1, 2]"), 3),
    "no choices": (http('{"choices": []}'), 3),
    "deep JSON": (http("[" * 100_000), 3),
    "empty content": (says(""), 3),
    "content is no text": (says([5]), 3),
    "content is null": (says(None), 3),
    "huge reply": (http(b" " * 2_000_000 + GOOD.encode()), 1),
    "huge reply without length": (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 2_000_000 + GOOD.encode(), 1),
    "huge length": (b"HTTP/1.1 200 OK\r\nContent-length: 99999999999999999999\r\n\r\nabc", 3),
    "refusal": (says("I'm sorry, I cannot grade this."), 1),
    "score out of range": (says('{"score": 50}'), 1),
    "score of another name": (says('{"points": 5}'), 1),
    "score is a range": (says("3-4"), 1),
    "score is not finite": (says('{"score": NaN}'), 1),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_none_and_counted_and_its_retries_are(name: str) -> None:
    reply, tries = FAULTS[name]
    logged: dict[str, float] = {}
    completions = ["<context>He frowns.</context><think>b</think><answer>c</answer>", "no context"] * 2
    with JudgeServer(always(reply)) as server:
        rewards = ContextReward(judge=judge_of(server))(
            completions, context=["He smiles."] * 2 + ["He nods."] * 2, log_metric=logged.__setitem__
        )
    assert rewards == [None, 0.0, None, 0.0]
    assert logged["judge/failed"] == 2.0
    assert len(server.requests) == logged["judge/requests"] == 2 * tries


@pytest.mark.parametrize("name", FAULTS)
def test_one_fault_costs_the_others_nothing(name: str) -> None:
    """The fault comes on a connection that is used again; a retry, where there is one, gets the score."""
    reply, tries = FAULTS[name]

    async def second_fails(request) -> bytes | None:
        return reply if request.number == 2 else await honest(request)

    with JudgeServer(second_fails) as server:
        scores = judge_of(server, max_in_flight=1).ask(QUESTIONS[:4]).scores
    expected = [grade_of(dict(question.texts)) / 5 for question in QUESTIONS[:4]]
    assert scores == (expected if tries > 1 else [expected[0], None, *expected[2:]])


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        judgement = Judge(endpoint=endpoint, model="m", retries=2, backoff_s=0.01).ask(QUESTIONS)
    assert judgement.scores == [None] * len(QUESTIONS)
    assert judgement.num_requests == 3 * len(QUESTIONS)


def test_unknown_host_is_none() -> None:
    assert Judge(endpoint="http://no-such-host.invalid/v1", model="m", retries=0).ask(QUESTIONS[:1]).scores == [None]


def test_plain_text_where_tls_is_spoken_is_none() -> None:
    with JudgeServer() as server:
        secure = server.endpoint.replace("http:", "https:")
        assert Judge(endpoint=secure, model="m", retries=0, timeout_s=0.5).ask(QUESTIONS[:1]).scores == [None]


@pytest.mark.parametrize("status", [401, 404])
def test_a_wrong_key_or_model_is_not_tried_with_every_question(status: int, caplog) -> None:
    with JudgeServer(always(http("", status))) as server:
        assert judge_of(server, max_in_flight=1).ask(QUESTIONS).scores == [None] * len(QUESTIONS)
    assert len(server.requests) == 1
    assert f"HTTP {status}" in caplog.text


def test_a_slow_server_costs_no_more_than_the_budget() -> None:
    with JudgeServer(after(30.0)) as server:
        start = time.perf_counter()
        judgement = judge_of(server, max_in_flight=2, timeout_s=20.0, budget_s=0.4, retries=9).ask(QUESTIONS)
        seconds = time.perf_counter() - start
    assert judgement.scores == [None] * len(QUESTIONS)
    assert judgement.num_requests == 2  # the others never got a turn
    assert 0.4 <= seconds < 20.0, "not the 30 s of the server"


def test_a_slow_try_ends_after_its_own_time_and_is_tried_again() -> None:
    async def slow_once(request) -> bytes:
        return await (after(30.0) if request.number == 1 else honest)(request)

    with JudgeServer(slow_once) as server:
        assert None not in judge_of(server, timeout_s=2.0).ask(QUESTIONS[:1]).scores
    assert len(server.requests) == 2


def test_what_was_scored_before_the_budget_ended_is_kept() -> None:
    async def slow_for_some(request) -> bytes:
        return await (honest if request.texts["CANDIDATE"] < "text 3" else after(30.0))(request)

    with JudgeServer(slow_for_some) as server:
        scores = judge_of(server, timeout_s=20.0, budget_s=4.0).ask(QUESTIONS).scores
    assert [score is None for score in scores] == [False] * 3 + [True] * 3


def test_retries_stop_where_the_next_would_come_after_the_budget() -> None:
    """Without looking ahead it would sleep 60 s; cut by the budget it would still sleep 20 s."""
    with JudgeServer(always(http("", 503))) as server:
        start = time.perf_counter()
        assert judge_of(server, backoff_s=60.0, retries=5).ask(QUESTIONS[:1]).scores == [None]
        assert time.perf_counter() - start < 15.0
    assert len(server.requests) == 1


def test_the_server_says_when_to_come_back() -> None:
    async def busy_once(request) -> bytes:
        return http("", 429, "Retry-After: 1") if request.number == 1 else await honest(request)

    with JudgeServer(busy_once) as server:
        start = time.perf_counter()
        assert None not in judge_of(server).ask(QUESTIONS[:1]).scores
        assert time.perf_counter() - start >= 1.0
        assert judge_of(server).ask(QUESTIONS[:1]).num_requests == 1
    with JudgeServer(always(http("", 429, "Retry-After: 9999"))) as server:
        assert judge_of(server).ask(QUESTIONS[:1]).scores == [None]
    assert len(server.requests) == 1  # later than the budget: not waited for


def test_back_off_grows_and_is_not_the_same_for_all(monkeypatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    with JudgeServer(always(http("", 500))) as server:
        monkeypatch.setattr("omni_rewards.judge.asking.asyncio.sleep", sleep)
        judge_of(server, backoff_s=0.5, retries=4, max_in_flight=1, budget_s=1000.0).ask(QUESTIONS[:3])
        monkeypatch.undo()
    for tries in range(4):
        delays = slept[tries::4]
        assert all(0.25 * 2**tries <= delay <= 0.5 * 2**tries for delay in delays)
        assert len(set(delays)) == 3


def test_a_row_with_a_question_of_two_unanswered_is_none() -> None:
    """Seen and heard are two questions; a mean of one of them would favour rows whose judge failed."""

    async def deaf(request) -> bytes:
        return http("", 500) if "HEARD (" in request.body["messages"][0]["content"] else says("5")

    with JudgeServer(deaf) as server:
        rewards = ContextReward(judge=judge_of(server, retries=0))(
            ["<context>He frowns.</context><think>b</think><answer>c</answer>"] * 2,
            context=["His face is sad. His voice is sad.", "His face is sad."],
        )
    assert rewards == [None, 1.0]
