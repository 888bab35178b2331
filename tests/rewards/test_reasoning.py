# SPDX-License-Identifier: Apache-2.0
"""Reasoning reward: a thought that concludes one thing with an answer that says another loses."""

import asyncio
import itertools
import pickle
import random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge_server import JudgeServer, grade_of, honest, says
from omni_grpo.demo import targets
from omni_rewards import (
    THINK_ANSWER,
    AsyncReasoningReward,
    Judge,
    ReasoningReward,
    SectionSchema,
    conclusion_agrees,
    reasoning_reward,
)

OPTIONS = ["A. praise", "B. taunt", "C. a joke", "D. calm, patient"]
ANSWERS = {
    "face": targets.FACES,
    "voice": targets.VOICES,
    "agreement": ("yes", "no"),
    "intent": tuple(targets.INTENTS.values()),
    "told": tuple(targets.INTENTS.values()),
}


def demo_rows() -> list[tuple[str, str, str, str, str]]:
    """`(kind, context, think, face, voice)` of every wording, one pair of face and voice each."""
    rows = []
    for kind in ANSWERS:
        pairs = itertools.product(targets.FACES, targets.VOICES)
        if kind in ("intent", "told"):
            pairs = ((face, voice) for voice, face in targets.INTENTS)
        for face, voice in pairs:
            if kind == "agreement" and not {face, voice} <= set(targets.SHARED):
                continue
            solution = targets.solution_of(kind, face, voice)
            for think in targets.wordings(kind, solution) + targets.wordings(kind, solution, practice=True):
                context = f"The face looks {face}. The voice sounds {voice}."
                if kind == "told":
                    context = targets.told_of(solution, random.Random(think))
                rows.append((kind, context, think.format(face=face, voice=voice, answer=solution), face, voice))
    return rows


def score(context: str, think: str, answer: str, problem_type: str, **columns) -> float | None:
    text = targets.target_of(context, think, answer)
    return reasoning_reward([text], [problem_type], **{name: [value] for name, value in columns.items()})[0]


def test_every_target_of_the_demo_earns_all_and_every_other_answer_loses() -> None:
    rows = demo_rows()
    assert len(rows) > 250
    for kind, context, think, face, voice in rows:
        solution, problem_type = targets.solution_of(kind, face, voice), targets.PROBLEM_TYPES[kind]
        for answer in ANSWERS[kind]:
            agrees = conclusion_agrees(think, answer, problem_type, None)
            assert agrees is (answer == solution), (think, answer)
            assert score(context, think, answer, problem_type) == float(answer == solution), (think, answer)


def test_every_planted_contradiction_of_the_context_loses() -> None:
    """The context says another face, or another voice, than the thought does."""
    checked = 0
    for kind, _, think, face, voice in demo_rows():
        if kind == "told":  # its context speaks of neither face nor voice
            continue
        solution, problem_type = targets.solution_of(kind, face, voice), targets.PROBLEM_TYPES[kind]
        for other_face, other_voice in [(next(f for f in targets.FACES if f not in (face, voice)), voice)] * (
            f"{face}" in think and "not" not in think
        ) + [(face, next(v for v in targets.VOICES if v not in (face, voice)))] * (f"{voice}" in think):
            context = f"The face looks {other_face}. The voice sounds {other_voice}."
            told_of_both = face != voice or "oth" in think or "too" in think or "so is" in think
            if (other_face != face and kind == "voice") or (other_voice != voice and kind == "face"):
                continue  # the thought is about the other sense
            if told_of_both or kind in ("face", "voice"):
                assert score(context, think, solution, problem_type) < 1.0, (context, think)
                checked += 1
    assert checked > 250


AGREES = [
    ("yes_no", "He frowns. So the answer is no.", "no", "yes"),
    ("yes_no", "Yes, he does.", "yes", "no"),
    ("judge", "They match well.", "Yes", "No"),
    ("judge", "At first they seem to agree. But in truth the two contradict each other.", "no", "yes"),
    ("yes_no", "Do they agree? They don't agree.", "no", "yes"),
    ("yes_no", "Whether they agree is the question. The answer: yes.", "yes", "no"),
    ("multiple choice", "The tone is warm, so it is B.", "B", "A"),
    ("multiple choice", "A man laughs. It cannot be A. The answer is (B).", "(b)", "A"),
    ("multiple choice", "Not praise but a taunt.", "B. taunt", "praise"),
    ("multiple choice", "Option C is wrong, option D fits.", "D", "C"),
    ("multiple choice", "A. praise is ruled out. B. taunt is right.", "B", "A"),
    ("multiple choice", "I think he is calm, patient.", "D", "B"),
    ("emer_ov_mc", "He is calm, patient. So both B and D.", "B, D", "B"),
    ("emer_ov_mc", "He taunts her: B. There is a joke, so C as well.", "B,C", "C,D"),
    ("numerical", "3 + 4 = 7.", "7", "12"),
    ("numerical", "There are seven chairs.", "7", "8"),
    ("numerical", "So the answer is 1,250.5 metres.", "1250.50", "1250"),
    ("regression", "About 12 people are seen, so I say 12.", "12", "13"),
    ("label", "The answer is anger.", "angry", "sad"),
    ("label", "His brows are low, so he seems furious.", "anger", "joy"),
    ("emotion", "He smiles, so he is happy.", "joy", "fear"),
    ("DFEW", "The trembling voice means fear.", "fear", "happy"),
    ("emer_ov", "She is sad and tired.", "sadness, fatigue", "happy"),
    ("OCR", "The sign reads EXIT.", "EXIT", "ENTER"),
    ("free-form", "What follows is a surprise party.", "A surprise party.", "a fight"),
    ("time_span", "He speaks from 3.0 to 7.5 seconds.", "[3, 7.5]", "[1, 2]"),
    ("some new type", "So this is a dance.", "dance", "fight"),
]


@pytest.mark.parametrize(("problem_type", "think", "right", "wrong"), AGREES)
def test_what_is_concluded_agrees_with_its_answer_alone(problem_type: str, think: str, right: str, wrong: str) -> None:
    options = OPTIONS if problem_type in ("multiple choice", "emer_ov_mc") else None
    assert conclusion_agrees(think, right, problem_type, options) is True
    assert conclusion_agrees(think, wrong, problem_type, options) is False
    assert score("A man.", think, wrong, problem_type, options=options) == 0.0


@pytest.mark.parametrize(
    ("problem_type", "think"),
    [
        ("yes_no", "There is no smile on his face."),
        ("yes_no", "Is it yes or no?"),
        ("yes_no", "If they agree, he is glad."),
        ("multiple choice", "A man is seen."),
        ("multiple choice", "The answer is A or B."),
        ("multiple choice", "It is not A."),
        ("numerical", "I count the chairs."),
        ("label", "I should look again."),
        ("label", "It is praise or taunt or joke."),
        ("label", "This is unclear."),
        ("label", "It is not praise."),
        ("emotion", "The man walks."),
        ("free-form", "Let me think."),
        ("multiple choice", ""),
        ("label", "so " * 3000 + "it is praise"),
    ],
)
def test_what_concludes_nothing_is_none(problem_type: str, think: str) -> None:
    answer = {"yes_no": "yes", "multiple choice": "A", "numerical": "3", "emotion": "sad"}.get(problem_type, "praise")
    assert conclusion_agrees(think, answer, problem_type, OPTIONS if "choice" in problem_type else None) is None


def test_a_question_about_a_difference_turns_agreement_round() -> None:
    think, question = "They do not agree.", "Do face and voice disagree?"
    assert conclusion_agrees(think, "no", "yes_no") is True
    assert conclusion_agrees(think, "yes", "yes_no", None, question) is True
    assert conclusion_agrees(think, "no", "yes_no", None, question) is False
    assert score("Sad.", think, "no", "yes_no", problem=question) == 0.0


def test_the_parts_of_the_score() -> None:
    context = "The face is sad. The voice is calm."
    full = score(context, "The face is sad. So the answer is no.", "no", "yes_no")
    ungrounded = score(context, "The face is happy, not sad. So the answer is no.", "no", "yes_no")
    unused = score(context, "So the answer is no.", "no", "yes_no")
    silent = score(context, "The face is sad.", "no", "yes_no")
    assert full == 1.0 > max(ungrounded, unused, silent)
    assert min(ungrounded, unused, silent) > 0.0
    assert score(context, "The face is sad.", "He is sad.", "free-form") == 1.0  # its conclusion is not asked for


def test_what_is_denied_must_not_be_in_the_context() -> None:
    think = "The voice is not {}, so the answer is no."
    scores = [
        score("The face is sad. The voice is calm.", think.format(word), "no", "yes_no") for word in ("sad", "calm")
    ]
    assert scores[0] == 1.0 > scores[1]


def test_a_reference_counts_where_the_row_has_one() -> None:
    think = "The face is sad, so no."
    near, far = "The face is sad. So the answer is no.", "The dog barks at a red car and runs away. So no."
    scores = [
        score("A sad face.", think, "no", "yes_no", reference_reasoning=r) for r in (None, think, near, far, " ")
    ]
    assert scores[0] == scores[1] == scores[4] == 1.0
    assert scores[1] >= scores[2] > scores[3]


def test_three_outcomes() -> None:
    missing = [
        "",
        "<context>a</context><think> </think><answer>no</answer>",
        "<think>So no.</think><answer>no</answer>",
        "<context>A sad face.</context><answer>no</answer>",
        "<context>A sad face.</context><think>So no.</think>",
    ]
    assert reasoning_reward(missing, ["yes_no"] * 5) == [0.0] * 5
    short = ReasoningReward(schema=THINK_ANSWER)
    assert short([missing[2], "<think>Well.</think><answer>a</answer>"], ["yes_no", "free-form"]) == [1.0, None]
    with pytest.raises(ValueError, match="zip"):
        reasoning_reward(missing, ["yes_no"])


@given(st.text(), st.text(max_size=30), st.sampled_from([kind for kind, *_ in AGREES]))
def test_any_text_gets_a_verdict_and_a_score(think: str, answer: str, problem_type: str) -> None:
    options = OPTIONS if problem_type in ("multiple choice", "emer_ov_mc", "label") else None
    assert conclusion_agrees(think, answer, problem_type, options) in (True, False, None)
    given_score = score("The face is sad.", think, answer, problem_type, options=options)
    assert given_score is None or 0.0 <= given_score <= 1.0


@pytest.mark.parametrize(
    "unit", ["so it is a ", "A. ", "B ", "1 ", "the face is not ", ".\n", "both ", "(B)", "agree, "]
)
def test_long_thoughts_take_no_time(unit: str) -> None:
    import time

    think = unit * (100_000 // len(unit))
    start = time.process_time()
    for problem_type in ("yes_no", "multiple choice", "emer_ov_mc", "numerical", "label", "emotion"):
        conclusion_agrees(think, "B", problem_type, OPTIONS)
    score("The face is sad.", think, "B", "free-form")
    assert time.process_time() - start < 6.0


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
