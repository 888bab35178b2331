# SPDX-License-Identifier: Apache-2.0
"""The four-reward run on what a model samples, its judge behind HTTP: each reward moves the tokens that the map says."""

from __future__ import annotations

import inspect

import pytest
import torch
from datasets import Dataset

from omni_demo.judge_server import MODEL, JudgeServer, serving
from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.run.reward_settings import configured_rewards
from omni_rewards import parse_sections
from section_rollouts import push
from small_runs import SMALL_RUN

NAMES = ["section_format_reward", "answer_reward", "AsyncContextReward", "AsyncReasoningReward"]
SECTIONS = {"context", "think", "answer"}
EVERYWHERE = {*SECTIONS, "tag", "outside"}
# What each of the four moves, in the order of `NAMES`.
MOVES = {
    "strict": [{"tag", "outside"}, {"answer"}, {"context"}, {"think"}],
    "paper": [EVERYWHERE, EVERYWHERE, {"context"}, {"context", "think"}],
}
ROWS = [
    ("Does the voice agree with the face?", "yes_no", "no", "The face is sad. The voice is happy."),
    ("What does the face show: happy, angry, sad, afraid, amused or scornful?", "label", "sad", "The face looks sad."),
]


class Sampled(OmniGRPOTrainer):
    """Its loss's log-probabilities are a leaf, whose gradient is each token's push; otherwise the product as it is."""

    leaf: torch.Tensor

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        logps, entropies, aux = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if not torch.is_grad_enabled():
            return logps, entropies, aux
        self.leaf = logps.detach().clone().requires_grad_()
        return self.leaf, entropies.detach(), aux

    def batch(self) -> dict:
        torch.manual_seed(3)
        self.model.train()
        return self._generate_and_score_completions([row for row in self.train_dataset for _ in range(4)])


def other(reward):
    """The same reward, its scores changed wherever there is one, each in its own way."""

    def changed(scores):
        return [None if score is None else score + 0.01 * (index**2 + 1) for index, score in enumerate(scores)]

    async def awaited(completions, **columns):
        return changed(await reward(completions, **columns))

    def called(completions, **columns):
        return changed(reward(completions, **columns))

    wrapped = awaited if inspect.iscoroutinefunction(reward) else called
    wrapped.__name__, wrapped.sections = reward.__name__, reward.sections
    return wrapped


@pytest.fixture
def make(tiny, settings, tmp_path, clips):
    """A trainer of the four rewards, whose judge gives every question a grade that is not the right one: they differ."""

    def trainer(server: JudgeServer, credit_map: str, **overrides) -> Sampled:
        judge = {"endpoint": server.endpoint, "model": MODEL, "cache_dir": str(tmp_path / "judged"), "retries": 0}
        fields = {
            **SMALL_RUN,
            "output_dir": str(tmp_path / "run"),
            "per_device_train_batch_size": 8,
            "num_generations": 4,
            "max_completion_length": 96,
            "max_steps": 1,
            "constrained_decoding": "strict",
            "credit_map": credit_map,
            "scale_rewards": "none",
            "reward_funcs": [f"omni_rewards.{name}" for name in NAMES],
            "reward_settings": {f"omni_rewards.{name}": {"judge": judge} for name in NAMES if "Async" in name},
            "reward_weights": [0.3, 1.0, 0.7, 1.1],
        }
        args = OmniGRPOConfig(**fields | overrides)
        rows = [
            {
                "prompt": [{"role": "user", "content": [{"type": "image", "image": str(clips / f"image{k}.png")}, {"type": "text", "text": problem}]}],
                "id": str(k), "problem": problem, "problem_type": kind, "solution": solution, "context": context,
            }
            for k, (problem, kind, solution, context) in enumerate(ROWS)
        ]  # fmt: skip
        return Sampled(
            load_model(tiny),
            configured_rewards(args.reward_funcs, args.reward_settings),
            args,
            Dataset.from_list(rows),
            encoder=PromptEncoder(load_processor(tiny), settings),
        )

    return trainer


def places(trainer: Sampled, ids: list[int]) -> list[str]:
    """The place of each token, from the text alone: the section that it has a character of, else the tag, else outside."""
    decode = trainer._tokenizer.decode
    text = decode(ids, skip_special_tokens=True)
    sections = parse_sections(text)
    assert sections.ok, text
    marks = ["outside"] * len(text)
    for name in SECTIONS:
        opened, closed = text.index(f"<{name}>"), text.index(f"</{name}>")
        marks[opened : closed + len(name) + 3] = ["tag"] * (closed + len(name) + 3 - opened)
        marks[opened + len(name) + 2 : closed] = [name] * (closed - opened - len(name) - 2)
    found, end = [], 0
    for n in range(1, len(ids) + 1):
        grown = len(decode(ids[:n], skip_special_tokens=True))
        carried = marks[min(end, grown - 1) : grown]  # of a character in several tokens, each has a part
        found.append(next((name for name in (*SECTIONS, "tag") if name in carried), "outside"))
        end = grown
    return [*found[:-1], "outside"]  # the end token


@pytest.mark.parametrize("credit_map", MOVES)
def test_each_reward_moves_the_tokens_that_the_map_says_and_no_other(make, credit_map):
    """
    Exactly zero elsewhere, and at tokens that the constraint forced. Mutant: the reasoning's reward credited at the
    context under `strict`, or not under `paper`.
    """
    with serving(error_rate=1.0) as server:
        trainer = make(server, credit_map)
        own = list(trainer.reward_funcs)
        before = trainer.batch()
        reference = push(trainer, before)
        lengths, free = before["completion_mask"].sum(dim=1).tolist(), before["tool_mask"].bool()
        known = [places(trainer, ids[:n].tolist()) for ids, n in zip(before["completion_ids"], lengths, strict=True)]
        assert {place for row, where in enumerate(known) for t, place in enumerate(where) if free[row, t]} >= SECTIONS
        for k, reaches in enumerate(MOVES[credit_map]):
            trainer.reward_funcs = [other(r) if i == k else r for i, r in enumerate(own)]
            after = trainer.batch()
            assert torch.equal(after["completion_ids"], before["completion_ids"])
            changed = push(trainer, after) != reference
            for row, where in enumerate(known):
                expected = [place in reaches and bool(free[row, t]) for t, place in enumerate(where)]
                assert changed[row, : len(where)].tolist() == expected, (NAMES[k], row)
                assert not changed[row, len(where) :].any()


class Counted(JudgeServer):
    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.questions: list[str] = []

    def reply(self, messages):
        self.questions.append(messages[1]["content"] + messages[0]["content"])
        return super().reply(messages)


def test_the_judge_is_asked_once_a_distinct_question(make, monkeypatch):
    """Over the rewards of a step, and over steps: what was answered stands in the record."""
    monkeypatch.setattr("omni_demo.judge_server.JudgeServer", Counted)
    with serving(error_rate=1.0) as server:
        trainer = make(server, "paper")
        for _ in range(3):
            trainer.batch()
        assert len(server.questions) == len(set(server.questions)) > 8


def test_a_judge_that_is_down_for_the_whole_run_gives_none_and_never_a_zero(make):
    """The run ends, its two other rewards learnt from; every judged reward is counted as missing."""
    with serving() as server:
        trainer = make(server, "paper", max_steps=3)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert len(logs) == 3
    for entry in logs:
        assert entry["judge/failed"] > 0 and entry["rewards/section_format_reward/mean"] == 1.0
        assert all(entry[f"rewards/{name}/mean"] != 0.0 for name in ("context_reward", "reasoning_reward")), entry
