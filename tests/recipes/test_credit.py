# SPDX-License-Identifier: Apache-2.0
"""A reward moves the tokens it is credited at and no other: shown on the gradient of TRL's own loss."""

from __future__ import annotations

import functools
from unittest import mock

import pytest
import torch
from peft import LoraConfig
from trl import GRPOTrainer

from omni_grpo.credit import credit as module
from omni_grpo.credit.advantages import skill_weights
from omni_grpo.credit.section_masks import TokenPlaces
from omni_grpo.model.loading import language_model_targets
from omni_rewards import CONTEXT_THINK_ANSWER, parse_sections
from section_rollouts import (
    ABOUT,
    ALL,
    MOVES,
    NAMES,
    REACHES_MALFORMED,
    WEIGHTS,
    Trained,
    build,
    check,
    push,
    reward,
    rewards,
    score,
)

LOSSES = ["dapo", "grpo", "bnpo", "dr_grpo", "cispo", "sapo"]


@pytest.fixture
def make(tiny, settings, tmp_path):
    """A trainer with this credit map; keyword arguments override its configuration."""
    return functools.partial(build, tiny, settings, tmp_path)


@pytest.mark.parametrize("credit_map", MOVES)
@pytest.mark.parametrize("loss_type", ["dapo", "cispo"])
def test_each_reward_moves_its_own_tokens_and_no_other(make, credit_map, loss_type):
    trainer = make(credit_map, loss_type=loss_type)
    check(trainer, MOVES[credit_map], REACHES_MALFORMED[credit_map])


@pytest.mark.parametrize("loss_type", LOSSES)
def test_the_answer_reward_leaves_every_other_token_at_exactly_zero(make, loss_type):
    """Strict, all other rewards equal: no push at all outside the answer, under every loss that takes `(B, T)`."""
    constant = [reward(name) for name in NAMES]
    for k in range(3):
        constant[k] = lambda completions, **kwargs: [0.5] * len(completions)
        constant[k].__name__, constant[k].sections = NAMES[k], ABOUT[NAMES[k]]
    trainer = make("strict", constant, loss_type=loss_type, scale_rewards="group")
    batch = score(trainer)
    gradient = push(trainer, batch)
    for row, known in enumerate(trainer.known_places(batch["completion_ids"])):
        moved = [place for place, g in zip(known, gradient[row].tolist(), strict=False) if g]
        assert moved == [p for p in known if p == "answer" and not trainer.is_malformed(row % 4)]


def shifted(original):
    return lambda *args: TokenPlaces((found := original(*args)).ok, [found.indices[0], *found.indices[:-1]])


def from_token_zero(original):
    """HumanOmniV2's mask: everything up to the end of the context is context."""

    def mutant(*args):
        ok, indices = original(*args)
        return TokenPlaces(ok, [0 if 0 in indices[i:] else place for i, place in enumerate(indices)])

    return mutant


def wrong_column(original):
    return lambda *args: original(*args).roll(1, dims=1)


MUTANTS = {"token_places": [shifted, from_token_zero], "relative_rewards": [wrong_column]}


@pytest.mark.parametrize("credit_map", ["strict", "paper", "own"])
@pytest.mark.parametrize(("target", "mutant"), [(t, m) for t, ms in MUTANTS.items() for m in ms])
def test_the_check_catches_mutants(make, credit_map, target, mutant):
    with mock.patch.object(module, target, mutant(getattr(module, target))):
        trainer = make(credit_map)
        with pytest.raises(AssertionError):
            check(trainer, MOVES[credit_map], REACHES_MALFORMED[credit_map])


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("importance_sampling_level", "sequence", "mean over the whole sequence"),
        ("loss_type", "luspo", "one ratio for all their tokens"),
        ("loss_type", "vespo", "made of the ratios of all tokens"),
    ],
)
def test_losses_that_leak_are_refused_with_the_reason(make, field, value, reason):
    with pytest.raises(ValueError, match=reason):
        make("strict", **{field: value})
    make("uniform", **{field: value})
    make("paper", [reward("answer_reward")], reward_funcs=["x.y"], reward_weights=None, **{field: value})


LEAKS = [("luspo", "sequence"), ("grpo", "sequence"), ("vespo", "token")]


@pytest.mark.parametrize(("loss_type", "level"), [*((name, "token") for name in LOSSES), *LEAKS])
def test_what_an_answer_learned_shows_at_the_context_only_under_refused_losses(make, loss_type, level):
    """After a step the answer's tokens have another ratio. Does the push on the context's tokens change with it?"""
    with mock.patch.object(module, "refuse_leaks"):
        trainer = make("strict", loss_type=loss_type, importance_sampling_level=level)
    batch = score(trainer)
    push(trainer, batch)
    batch["old_per_token_logps"] = trainer.leaf.detach() - 0.05
    before = push(trainer, batch)
    places = trainer.known_places(batch["completion_ids"])
    for row, known in enumerate(places):
        for t, place in enumerate(known):
            if place == "answer":
                batch["old_per_token_logps"][row, t] -= 0.1
    changed = push(trainer, batch) != before
    leaked = [p for row, known in enumerate(places) for t, p in enumerate(known) if changed[row, t] and p != "answer"]
    assert bool(leaked) == ((loss_type, level) in LEAKS)


def advantages_by_hand(trainer, seed: int = 0) -> dict[tuple[int, ...], list[float]]:
    """Strict credit, mean only, in plain Python: completion to the advantage of each token."""
    credited = {"context": 1, "think": 2, "answer": 3, "tag": 0, "outside": 0}
    table = {}
    for prompt in range(8):
        group = [trainer.completion(prompt, place) for place in range(4)]
        texts = [[{"content": trainer._tokenizer.decode(ids, skip_special_tokens=True)}] for ids, _ in group]
        scores = [f(texts) for f in rewards()]
        relative = [[w * (s - sum(row) / 4) for s in row] for w, row in zip(WEIGHTS, scores, strict=True)]
        for place, (ids, places) in enumerate(group):
            bad = trainer.is_malformed(place)
            table[tuple(ids)] = [relative[0 if bad else credited[p]][place] for p in places]
    return table


@pytest.mark.parametrize(
    ("overrides", "passes"),
    [
        ({"num_iterations": 2, "max_steps": 2}, 2),
        ({"gradient_accumulation_steps": 4, "per_device_train_batch_size": 4}, 1),
        ({"steps_per_generation": 2, "num_iterations": 3, "max_steps": 6, "per_device_train_batch_size": 4}, 3),
        ({"gradient_accumulation_steps": 2, "peft": True, "beta": 0.1}, 1),
    ],
    ids=["iterations", "accumulation", "both", "lora"],
)
def test_credit_stays_with_its_completion_however_batches_are_cut(make, overrides, passes):
    """Shuffled, split, taken several times: each row in the loss has the advantages of its own completion."""
    overrides, seen = dict(overrides), []
    lora = LoraConfig(r=4, target_modules=language_model_targets(None)) if overrides.pop("peft", None) else None
    trainer = make("strict", cls=Trained, peft_config=lora, **overrides)
    start = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    by_hand = advantages_by_hand(trainer)
    original = GRPOTrainer._compute_loss

    def spy(self, model, inputs):
        for row, mask, given in zip(
            inputs["completion_ids"], inputs["completion_mask"], inputs["advantages"], strict=True
        ):
            ids = tuple(row[mask.bool()].tolist())
            seen.append(ids)
            expected = torch.tensor(by_hand[ids] + [0.0] * (len(given) - len(ids)))
            torch.testing.assert_close(given, expected, rtol=0, atol=1e-6)
        return original(self, model, inputs)

    with mock.patch.object(GRPOTrainer, "_compute_loss", spy):
        trainer.train()
    assert {seen.count(ids) for ids in seen} == {passes}
    assert len(set(seen)) == trainer.args.generation_batch_size
    assert any(not torch.equal(p, start[n]) for n, p in trainer.model.named_parameters() if n in start)


def test_metrics_tell_where_tokens_and_credit_are(make):
    trainer = make("strict", [*rewards()[:3], reward("answer_reward")])
    trainer.is_malformed = lambda place: False
    batch = score(trainer)
    metrics = {name: values[-1] for name, values in trainer._metrics["train"].items() if name.startswith("credit/")}
    places = [p for row in trainer.known_places(batch["completion_ids"]) for p in row]
    for place in ALL:
        assert metrics[f"credit/share/{place}"] == pytest.approx(places.count(place) / len(places))
    at_answer = torch.cat(
        [
            batch["advantages"][row, [t for t, p in enumerate(known) if p == "answer"]]
            for row, known in enumerate(trainer.known_places(batch["completion_ids"]))
        ]
    )
    assert metrics["credit/advantage_mean/answer"] == pytest.approx(at_answer.mean().item(), abs=1e-6)
    assert metrics["credit/advantage_std/answer"] == pytest.approx(at_answer.std(correction=0).item(), abs=1e-6)
    assert metrics["credit/frac_empty_mask"] == 0
    assert len([m for m in metrics if "correlation" in m]) == 6
    assert all(-1 <= v <= 1 for m, v in metrics.items() if "correlation" in m)
    shown = list(trainer._logs["advantages"])
    means = [
        row[: len(known)].mean().item()
        for row, known in zip(batch["advantages"], trainer.known_places(batch["completion_ids"]), strict=True)
    ]
    assert shown == pytest.approx(means, abs=1e-6)


def test_rewards_that_are_one_have_correlation_one(make):
    twins = [*rewards()[:3], reward("context_reward")]
    twins[3].__name__ = "answer_reward"
    trainer = make("paper", twins)
    score(trainer)
    assert trainer._metrics["train"]["credit/correlation/context_reward~answer_reward"] == [pytest.approx(1.0)]


def test_an_empty_mask_raises_the_alarm(make, caplog):
    """A malformed completion is counted; a well-formed one without tokens for a section is a defect, said aloud."""
    trainer = make("strict")
    score(trainer)
    assert trainer._metrics["train"]["credit/frac_empty_mask"] == [0.25], "every fourth completion never closes"
    assert "without a token" not in caplog.text
    broken = lambda *args: TokenPlaces(True, [4] * len(args[1]))  # noqa: E731
    with mock.patch.object(module, "token_places", broken):
        score(trainer)
    assert trainer._metrics["train"]["credit/frac_empty_mask"][-1] == 1
    assert "without a token" in caplog.text


def test_skill_is_strict_with_the_papers_weights(make):
    trainer = make("skill", reward_weights=None)
    assert trainer.reward_weights.tolist() == pytest.approx([0.15, 0.25, 0.25, 0.35])
    check(trainer, MOVES["strict"], REACHES_MALFORMED["strict"])
    with pytest.raises(ValueError, match="sets the reward weights itself"):
        make("skill")
    assert sum(skill_weights(ABOUT, CONTEXT_THINK_ANSWER)) == pytest.approx(1)


def test_the_table_of_completions_is_what_it_says(make):
    """Our oracle is one: the fixed completions are well formed, or malformed, as the parser sees them."""
    trainer = make("strict")
    for place in range(4):
        ids, places = trainer.completion(0, place)
        sections = parse_sections(trainer._tokenizer.decode(ids, skip_special_tokens=True))
        assert sections.ok != trainer.is_malformed(place)
        assert len(ids) == len(places)
