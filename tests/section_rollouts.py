# SPDX-License-Identifier: Apache-2.0
"""A trainer whose completions and rewards are known beforehand, token by token, and the push of its loss on each."""

from __future__ import annotations

import random

import torch
from datasets import Dataset

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder
from omni_grpo.model.loading import load_model, load_processor
from small_runs import SMALL_RUN

NAMES = ("section_format_reward", "context_reward", "reasoning_reward", "answer_reward")
WEIGHTS = [0.3, 0.7, 1.1, 1.0]
SECTIONS = ("context", "think", "answer")
ABOUT = dict(zip(NAMES, (("tag",), ("context",), ("think",), ("answer",)), strict=True))
ALL = {*SECTIONS, "tag", "outside"}
OWN_MAP = {
    "section_format_reward": "everywhere",
    "omni_rewards.context_reward": ["context"],
    "reasoning_reward": ["think", "answer"],
    "answer_reward": ["answer", "tag"],
}
# Map -> where each reward shows, in well-formed completions and, where that is not nowhere, in malformed ones.
MOVES = {
    "strict": [{"tag", "outside"}, {"context"}, {"think"}, {"answer"}],
    "paper": [ALL, {"context"}, {"context", "think"}, ALL],
    "uniform": [ALL] * 4,
    "own": [ALL, {"context"}, {"think", "answer"}, {"answer", "tag"}],
}
REACHES_MALFORMED = {"strict": [0], "paper": [0, 3], "uniform": [0, 1, 2, 3], "own": [0, 3]}


def reward(name: str, seed: int = 0, missing=()):
    """A reward of that name: a number drawn for each text, another for another seed; `None` in the places `missing`."""

    def score(completions, **kwargs):
        texts = [c[-1]["content"] for c in completions]
        return [None if i in missing else random.Random(f"{name} {seed} {t}").random() for i, t in enumerate(texts)]

    score.__name__ = name
    score.sections = ABOUT.get(name)
    return score


def rewards(**seeds: int):
    return [reward(name, seeds.get(name, 0)) for name in NAMES]


class Fixed(OmniGRPOTrainer):
    """Takes completions from a table, built section by section, so that every token's place is known beforehand."""

    leaf: torch.Tensor

    def completion(self, prompt: int, place: int) -> tuple[list[int], list[str]]:
        chance = random.Random(f"{prompt} {place}")
        words = lambda: " ".join(chance.choices(["face", "voice", "sad", "calm", "agree"], k=chance.randint(1, 4)))  # noqa: E731
        parts = [("tag", "<context>"), ("context", words()), ("tag", "</context>"), ("outside", "\n")]
        parts += [("tag", "<think>"), ("think", words()), ("tag", "</think>"), ("tag", "<answer>")]
        parts += [("answer", words())]
        parts += [] if self.is_malformed(place) else [("tag", "</answer>")]
        encode = self._tokenizer
        ids = [(name, i) for name, text in parts for i in encode(text)["input_ids"]]
        ids.append(("outside", self._tokenizer.eos_token_id))
        return [i for _, i in ids], [name for name, _ in ids]

    def is_malformed(self, place: int) -> bool:
        return place == 3

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        group = self.num_generations
        return [
            self.completion(int(n), i % group)[0] for i, n in enumerate(row.name for row in self._rollout.rows)
        ], None

    def _calculate_rewards(self, *args):
        self.rewarded = super()._calculate_rewards(*args)
        return self.rewarded

    def known_places(self, completion_ids: torch.Tensor) -> list[list[str]]:
        """By looking the row up in the table; padding is left out."""
        table = {tuple(ids): places for ids, places in (self.completion(p, g) for p in range(8) for g in range(4))}
        rows = [[i for i in row.tolist() if i != self._tokenizer.pad_token_id] for row in completion_ids]
        return [table[tuple(row)] for row in rows]

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        """The loss's log-probabilities as a leaf, whose gradient is each token's push."""
        logps, entropies, aux = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if torch.is_grad_enabled():
            self.leaf = logps.detach().clone().requires_grad_()
            return self.leaf, entropies.detach(), aux
        return logps, entropies, aux


class Trained(Fixed):
    """The same, learning for real."""

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        return super(Fixed, self)._get_per_token_logps_and_entropies(*args, **kwargs)


def build(tiny, settings, folder, credit_map, funcs=None, cls=Fixed, peft_config=None, **overrides):
    """A trainer of the tiny model with this credit map; `overrides` are fields of its configuration."""
    prompts = [[{"role": "user", "content": f"Question {k}?"}] for k in range(8)]
    fields = {
        **SMALL_RUN,
        "output_dir": str(folder),
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 64,
        "max_steps": 1,
        "credit_map": OWN_MAP if credit_map == "own" else credit_map,
        "reward_funcs": [f"x.{n}" for n in NAMES],
        "reward_weights": WEIGHTS,
        "scale_rewards": "none",
    }
    fields |= overrides
    return cls(
        load_model(tiny),
        funcs or rewards(),
        OmniGRPOConfig(**fields),
        Dataset.from_dict({"prompt": prompts, "id": [str(k) for k in range(8)]}),
        encoder=PromptEncoder(load_processor(tiny), settings),
        peft_config=peft_config,
    )


def score(trainer, funcs=None):
    """One generated batch of two prompts, four completions each, scored by `funcs`."""
    trainer.reward_funcs = funcs or trainer.reward_funcs
    trainer.model.train()
    rows = [trainer.train_dataset[k] for k in (0, 1) for _ in range(4)]
    return trainer._generate_and_score_completions(rows)


def push(trainer, batch) -> torch.Tensor:
    """Gradient `(B, T)` of TRL's loss with respect to each token's log-probability."""
    trainer.current_gradient_accumulation_steps = 1
    trainer._compute_loss(trainer.model, batch).backward()
    return trainer.leaf.grad


def check(trainer, moves, malformed) -> None:
    """Changing one reward changes the gradient at its places, at each of their tokens, and nowhere else, exactly."""
    before = score(trainer)
    reference = push(trainer, before)
    places = trainer.known_places(before["completion_ids"])
    for k, name in enumerate(NAMES):
        after = score(trainer, rewards(**{name: 1}))
        assert torch.equal(after["completion_ids"], before["completion_ids"])
        changed = push(trainer, after) != reference
        for row, known in enumerate(places):
            moved = {place for place, c in zip(known, changed[row].tolist(), strict=False) if c}
            still = {place for place, c in zip(known, changed[row].tolist(), strict=False) if not c}
            if trainer.is_malformed(row % 4):
                expected = set(known) if k in malformed else set()
            else:
                expected = moves[k] & set(known)
            assert moved == expected, (name, row, moved, expected)
            assert still == set(known) - expected, (name, row, still)
