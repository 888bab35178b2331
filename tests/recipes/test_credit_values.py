# SPDX-License-Identifier: Apache-2.0
"""Advantages: TRL's where they should be TRL's, and a reward that is not given moves nothing; maps that do not fit."""

from __future__ import annotations

import functools
from unittest import mock

import pytest
import torch
from trl import GRPOTrainer

from omni_grpo.credit.advantages import relative_rewards, resolve_credit_map
from omni_grpo.run.reward_settings import configured_rewards
from omni_rewards import CONTEXT_THINK_ANSWER, THINK_ANSWER, SectionSchema
from section_rollouts import ABOUT, NAMES, WEIGHTS, build, reward, score


@pytest.fixture
def make(tiny, settings, tmp_path):
    """A trainer with this credit map; keyword arguments override its configuration."""
    return functools.partial(build, tiny, settings, tmp_path)


def stock_advantages(trainer, funcs=None) -> tuple[torch.Tensor, torch.Tensor]:
    """TRL's own advantages `(B,)` and ours, of the same rollouts."""
    seen = []
    original = GRPOTrainer._generate_and_score_completions

    def spy(self, inputs):
        output = original(self, inputs)
        seen.append(output["advantages"].clone())
        return output

    with mock.patch.object(GRPOTrainer, "_generate_and_score_completions", spy):
        ours = score(trainer, funcs)["advantages"]
    return seen[0], ours


def test_everywhere_is_trls_sum_of_centred_rewards(make):
    trainer = make(dict.fromkeys(NAMES, "everywhere"))
    stock, ours = stock_advantages(trainer)
    assert stock.abs().min() > 1e-3
    lengths = [len(trainer.completion(k, place)[0]) for k in (0, 1) for place in range(4)]
    for advantage, row, length in zip(stock, ours, lengths, strict=True):
        torch.testing.assert_close(row[:length], advantage.expand(length), rtol=0, atol=1e-6)
        assert not row[length:].any(), "padding"


@pytest.mark.parametrize("scale", ["none", "group", "batch"])
def test_one_reward_everywhere_is_trls_under_every_scale(make, scale):
    trainer = make("paper", [reward("answer_reward")], reward_funcs=["x.y"], reward_weights=None, scale_rewards=scale)
    stock, ours = stock_advantages(trainer)
    torch.testing.assert_close(ours[:, 0], stock, rtol=0, atol=1e-6)


def test_uniform_hands_on_trls_own_tensor(make):
    stock, ours = stock_advantages(make("uniform", scale_rewards="group"))
    assert torch.equal(stock, ours)


# Two rows without a context reward, one row and one whole group without a reasoning reward.
GAPS = {
    "section_format_reward": set(),
    "context_reward": {1, 2},
    "reasoning_reward": {2, 4, 5, 6, 7},
    "answer_reward": {2},
}


def with_gaps(fill=None):
    """The rewards with values not given; `fill` gives them, as the mean of what the row's group has, or as 0."""

    def filled(name):
        full, gaps = reward(name), GAPS[name]

        def score(completions, **kwargs):
            values = full(completions)
            for i in gaps:
                group = [v for j, v in enumerate(values) if j // 4 == i // 4 and j not in gaps]
                values[i] = {"mean": sum(group) / len(group) if group else 0.0, "zero": 0.0}[fill]
            return values

        score.__name__ = name
        return score

    return [filled(name) if fill else reward(name, missing=GAPS[name]) for name in NAMES]


def test_what_is_not_given_moves_nothing_under_uniform(make):
    """It counts as its group's mean; stock TRL counts it as 0 (measured here, the reason for ours)."""
    trainer = make("uniform")
    stock, ours = stock_advantages(trainer, with_gaps())
    _, as_mean = stock_advantages(trainer, with_gaps("mean"))
    as_zero, _ = stock_advantages(trainer, with_gaps("zero"))
    torch.testing.assert_close(ours, as_mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(stock, as_zero, rtol=0, atol=1e-6)
    assert (ours - stock).abs().max() > 0.05


@pytest.mark.parametrize("credit_map", ["strict", "paper", "own", "everywhere"])
@pytest.mark.parametrize("scale", ["none", "group", "batch"])
def test_what_is_not_given_moves_nothing_under_a_map(make, credit_map, scale):
    """Each reward by itself: a gap is 0 for its row, and the others of its group are as if the row were not there."""
    chosen = dict.fromkeys(NAMES, "everywhere") if credit_map == "everywhere" else credit_map
    trainer = make(chosen, scale_rewards=scale)
    score(trainer, with_gaps())
    relative = relative_rewards(trainer.rewarded, 4, scale)
    for k, name in enumerate(NAMES):
        for first in (0, 4):
            given = [i for i in range(first, first + 4) if i not in GAPS[name]]
            assert not relative[list(GAPS[name]), k].any()
            if given:
                alone = trainer.rewarded[given, k : k + 1]
                if scale != "batch":
                    expected = relative_rewards(alone, len(given), scale)
                    torch.testing.assert_close(relative[given, k : k + 1], expected)
                torch.testing.assert_close(relative[given, k].mean(), torch.tensor(0.0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", ["group", "batch"])
def test_each_reward_is_scaled_by_itself(scale):
    """A reward counted in other units moves as much, and makes no other move less."""
    rewards = torch.rand(8, 2, generator=torch.Generator().manual_seed(0))
    rewards[3, 0] = torch.nan
    small, large = (relative_rewards(rewards * torch.tensor([1, f]), 4, scale) for f in (1, 1000))
    torch.testing.assert_close(large, small, rtol=2e-3, atol=0)
    deviations = small.view(2, 4, 2).std(dim=1) if scale == "group" else (small[[0, 1, 2, 4, 5, 6, 7]]).std(dim=0)
    assert 0.5 < deviations.min() <= deviations.max() < 1.3


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
@pytest.mark.parametrize("scale", ["none", "group", "batch"])
def test_a_reward_that_is_never_given_might_as_well_not_be_there(make, aggregation, scale):
    """Under every aggregation. Row 2 is scored by no reward at all."""
    gaps = [reward(n, missing=range(8) if n == "context_reward" else {2}) for n in NAMES]
    trainer = make("uniform", multi_objective_aggregation=aggregation, scale_rewards=scale)
    _, with_it = stock_advantages(trainer, gaps)
    rest = [g for g in gaps if g.__name__ != "context_reward"]
    weights = [w for w, n in zip(WEIGHTS, NAMES, strict=True) if n != "context_reward"]
    names = [f"x.{g.__name__}" for g in rest]
    without = make(
        "uniform",
        rest,
        reward_funcs=names,
        reward_weights=weights,
        multi_objective_aggregation=aggregation,
        scale_rewards=scale,
    )
    _, expected = stock_advantages(without)
    torch.testing.assert_close(with_it, expected, rtol=0, atol=1e-5)
    assert with_it[2] == 0
    assert with_it[0] != 0


@pytest.mark.parametrize(
    ("credit_map", "names", "schema", "message"),
    [
        ("soft", NAMES, CONTEXT_THINK_ANSWER, "'soft' is unknown; one of stock, uniform, paper, strict, skill"),
        ("strict", ["length_reward"], CONTEXT_THINK_ANSWER, "does not say where 'length_reward' may act"),
        ("strict", ["context_reward"], THINK_ANSWER, "does not say where 'context_reward' may act"),
        ({"answer_rewart": ["answer"]}, NAMES, CONTEXT_THINK_ANSWER, "did you mean 'answer_reward'"),
        ({"answer_reward": ["reply"]}, NAMES, CONTEXT_THINK_ANSWER, "'reply' is no place; one of context"),
        ({"answer_reward": ["answer"]}, NAMES, CONTEXT_THINK_ANSWER, "yours does not say where 'section_format"),
    ],
)
def test_maps_that_do_not_fit_are_refused_by_name(credit_map, names, schema, message):
    with pytest.raises(ValueError, match=message):
        resolve_credit_map(credit_map, {name: ABOUT.get(name) for name in names}, schema)


def test_presets_know_rewards_by_what_they_are_about():
    """Whatever their names. Mutants: by the end of a name; a reward that says nothing acts nowhere under `paper`."""
    rewards = {"a": ("tag",), "b": ("answer",), "c": ("context",), "d": ("think",), "e": None}
    paper = resolve_credit_map("paper", rewards, CONTEXT_THINK_ANSWER)
    assert paper == [{"everywhere"}, {"everywhere"}, {"context"}, {"context", "think"}, {"everywhere"}]
    del rewards["e"]
    strict = resolve_credit_map("strict", rewards, CONTEXT_THINK_ANSWER)
    assert strict == [{"tag", "outside"}, {"answer"}, {"context"}, {"think"}]
    assert resolve_credit_map("paper", {"d": ("think",)}, THINK_ANSWER) == [{"think"}]
    assert resolve_credit_map("strict", {"a": ("tag",), "b": ("answer",)}, SectionSchema(("answer",)))[1] == {"answer"}


def test_rewards_by_path_say_what_they_are_about():
    """As a run's YAML names them, with settings or without. Mutant: a partial that lost the attribute."""
    paths = ["omni_rewards.section_format_reward", "omni_rewards.answer_reward", "omni_rewards.context_reward"]
    made = configured_rewards(paths, {"omni_rewards.answer_reward": {"tolerance": 0.1}})
    assert [reward.sections for reward in made] == [("tag",), ("answer",), ("context",)]


def test_two_normalisations_do_not_go_with_a_map(make):
    with pytest.raises(ValueError, match="multi_objective_aggregation"):
        make("strict", multi_objective_aggregation="normalize_then_sum")
