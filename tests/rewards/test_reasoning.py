# SPDX-License-Identifier: Apache-2.0
"""Reasoning reward: a judge grades it, and a thought that concludes one thing with an answer that says another loses."""

import ast
import asyncio
import inspect
import json
import pickle
import random
import re
from types import SimpleNamespace

import pytest
import yaml

from judge_server import JudgeServer, always, grade_of, honest, says
from omni_demo import targets
from omni_grpo.run.reward_settings import check_rewards, configured_rewards, read_settings
from omni_rewards import (
    THINK_ANSWER,
    AsyncReasoningReward,
    Judge,
    ReasoningReward,
    SectionSchema,
    reasoning_reward,
)

COMPLETION = targets.target_of("The face is sad.", "The face is sad. So no.", "no")


def test_without_a_judge_it_refuses_and_says_how_to_name_one() -> None:
    """Both remedies of the message are applied. Mutant: an offline score in the judge's place."""
    messages: set[str] = set()
    for refused in (
        ReasoningReward,
        AsyncReasoningReward,
        lambda: ReasoningReward(rubric="Grade it."),
        lambda: reasoning_reward([COMPLETION], ["yes_no"]),
    ):
        with pytest.raises(ValueError, match="needs a judge") as error:
            refused()
        messages.add(str(error.value))
    [message] = messages
    with JudgeServer(always(says(json.dumps({"score": 4})))) as server:
        shown = message.replace("http://localhost:8000/v1", server.endpoint)
        call = ast.parse(re.search(r"ReasoningReward\((.*?)\);", shown)[0].rstrip(";"), mode="eval").body
        in_python = ReasoningReward(**{k.arg: ast.literal_eval(k.value) for k in call.keywords})
        written = yaml.safe_load(re.search(r"reward_settings:.*", shown)[0])["reward_settings"]
        [in_yaml] = configured_rewards(["omni_rewards.reasoning_reward"], read_settings(written))
        assert in_python == in_yaml
        assert in_yaml([COMPLETION], ["yes_no"]) == [0.8]


@pytest.mark.parametrize("name", ["reasoning_reward", "ReasoningReward", "AsyncReasoningReward"])
def test_a_run_without_a_judge_is_refused_at_its_start(name: str, tmp_path) -> None:
    """As the entry script checks it, before anything is loaded. Mutant: the function taken as it is."""
    config, path = tmp_path / "rl.yaml", f"omni_rewards.{name}"
    config.write_text(yaml.safe_dump({"reward_funcs": [path]}))
    with pytest.raises(ValueError, match=rf"reward_settings: {path}: reasoning_reward needs a judge"):
        check_rewards(["--config", str(config)])
    judge = {"endpoint": "http://localhost:8000/v1", "model": "m"}
    config.write_text(yaml.safe_dump({"reward_funcs": [path], "reward_settings": {path: {"judge": judge}}}))
    check_rewards(["--config", str(config)])


def test_three_outcomes() -> None:
    missing = [
        "",
        "<context>a</context><think> </think><answer>no</answer>",
        "<think>So no.</think><answer>no</answer>",
        "<context>A sad face.</context><answer>no</answer>",
        "<context>A sad face.</context><think>So no.</think>",
    ]
    reward = ReasoningReward(_dead())
    assert reward([*missing, COMPLETION], ["yes_no"] * 6) == [0.0] * 5 + [None]
    assert ReasoningReward(_dead(), schema=THINK_ANSWER)([missing[2]], ["yes_no"]) == [None]
    with pytest.raises(ValueError, match="zip"):
        reward(missing, ["yes_no"])


def test_any_thought_is_the_judges_to_grade_unless_it_contradicts_its_answer() -> None:
    """Mutant: a score of words, which paid `happy. So no.` in full and sound reasoning in other words by half."""
    thoughts = ["happy. So no.", "Her smile and her sharp tone are at odds.", "They differ. So the answer is yes."]
    with JudgeServer(always(says(json.dumps({"score": 3})))) as server:
        texts = [targets.target_of("x happy.", think, "no") for think in thoughts]
        rewards = ReasoningReward({"endpoint": server.endpoint, "model": "m"})(texts, ["yes_no"] * 3)
    assert rewards == [0.6, 0.6, 0.0]
    assert len(server.requests) == 2


def test_it_is_documented_as_it_works() -> None:
    """What the docstring calls settled before the judge is asked stays settled with one that answers nothing."""
    doc = inspect.getdoc(reasoning_reward)
    assert "as a judge grades it" in doc.partition("\n")[0] and "needs a judge" not in doc
    contradicts = targets.target_of("The face is sad.", "The face is sad. So no.", "yes")
    assert ReasoningReward(_dead())([contradicts], ["yes_no"]) == [0.0]


def judged_rows(size: int = 4) -> dict:
    text = "<context>A {0} face.</context><think>The face is {0}, so {1}.</think><answer>{1}</answer>"
    rng = random.Random(0)
    pairs = [(rng.choice(targets.FACES), rng.choice(("praise", "taunt"))) for _ in range(size)]
    return {
        "completions": [[{"role": "assistant", "content": text.format(*pair)}] for pair in pairs],
        "problem_type": ["label"] * size,
        "prompts": [[{"role": "user", "content": [{"type": "text", "text": "What is it?"}]}]] * size,
        "reference_reasoning": [None, "It is so."] * (size // 2),
    }


def test_the_judge_sees_question_context_thought_answer_and_reference() -> None:
    with JudgeServer() as server:
        rows = judged_rows()
        rewards = ReasoningReward(judge={"endpoint": server.endpoint, "model": "m"}, rubric="Grade it.")(**rows)
    shown = {tuple(sorted(request.texts)) for request in server.requests}
    names = ["ANSWER", "CONTEXT", "QUESTION", "REASONING"]
    assert shown == {tuple(names), tuple(sorted([*names, "REFERENCE"]))}
    assert {request.texts["QUESTION"] for request in server.requests} == {"What is it?"}
    assert sorted(set(rewards)) == sorted({grade_of(request.texts) / 5 for request in server.requests})


def test_a_thought_that_contradicts_its_answer_is_not_worth_a_request() -> None:
    texts = [targets.target_of("A sad face.", "So it is praise.", answer) for answer in ("taunt", "praise")]
    log: dict[str, list] = {}
    with JudgeServer() as server:
        reward = ReasoningReward(judge={"endpoint": server.endpoint, "model": "m"})
        rewards = reward([*texts, "none"], ["label"] * 3, log_extra=log.__setitem__)
    assert rewards[0] == rewards[2] == 0.0
    assert len(server.requests) == 1
    assert log == {"reasoning": ["disagrees", "agrees", "unreadable"]}


def test_sync_and_async_agree_also_inside_a_running_loop() -> None:
    rows = judged_rows(8)
    with JudgeServer() as server:
        settings = {"judge": {"endpoint": server.endpoint, "model": "m"}}
        sync, coroutine = ReasoningReward(**settings), AsyncReasoningReward(**settings)

        async def main() -> list:
            both = await asyncio.gather(coroutine(**rows), coroutine(**rows))
            return [*both, sync(**rows)]

        assert asyncio.run(main()) == [sync(**rows)] * 3
    assert pickle.loads(pickle.dumps(coroutine)) == coroutine


@pytest.mark.parametrize(
    "settings", [{"judge": {"model": "m"}}, {"rubric": ""}, {"schema": SectionSchema(("think",))}]
)
def test_settings_that_cannot_work_are_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match=r"endpoint|rubric|answer"):
        ReasoningReward(**settings)


def test_in_trl_both_forms_give_the_same_rewards() -> None:
    """TRL's own method calls the one and awaits the other, in its own event loop; `None` becomes NaN."""
    torch = pytest.importorskip("torch")
    from accelerate import PartialState
    from trl import GRPOTrainer
    from trl.trainer.utils import get_callable_name, shutdown_event_loop_in_daemon, start_event_loop_in_daemon

    async def refuses_one(request) -> bytes:
        return says("No.") if "praise" in request.texts["ANSWER"] else await honest(request)

    rows = judged_rows(6)
    inputs = [
        {name: values[i] for name, values in rows.items() if name not in ("completions", "prompts")} for i in range(6)
    ]
    PartialState()  # TRL warns of rows without any reward through accelerate's log
    thread, loop, _ = start_event_loop_in_daemon(name="test")
    with JudgeServer(refuses_one) as server:
        settings = {"judge": {"endpoint": server.endpoint, "model": "m"}}
        funcs = [ReasoningReward(**settings), AsyncReasoningReward(**settings)]
        metrics: list[tuple[str, float]] = []
        trainer = SimpleNamespace(
            accelerator=SimpleNamespace(device="cpu", is_main_process=True),
            args=SimpleNamespace(report_to=[]),
            async_loop=loop,
            environments=None,
            reward_funcs=funcs,
            reward_processing_classes=[None, None],
            reward_func_names=[get_callable_name(func) for func in funcs],
            state=SimpleNamespace(global_step=0),
            _log_completion_extra=lambda column, values: None,
            _log_metric=lambda name, value: metrics.append((name, value)),
        )
        rewards = GRPOTrainer._calculate_rewards(trainer, inputs, rows["prompts"], rows["completions"], [[1]] * 6)
    shutdown_event_loop_in_daemon(thread, loop)
    expected = [float("nan") if value is None else value for value in ReasoningReward(judge=_dead())(**rows)]
    assert all(value != value for value in expected)
    assert rewards.shape == (6, 2)
    assert torch.equal(rewards[:, 0].nan_to_num(-1), rewards[:, 1].nan_to_num(-1))
    num_failed = int(rewards[:, 0].isnan().sum())
    assert 0 < num_failed < 6
    assert [value for name, value in metrics if name == "judge/failed"] == [num_failed] * 2
    assert trainer.reward_func_names == ["reasoning_reward"] * 2


def _dead() -> Judge:
    return Judge(endpoint="http://127.0.0.1:9/v1", model="m", retries=0)
