# SPDX-License-Identifier: Apache-2.0
"""A reward moves the tokens it is credited at and no other: shown on the gradient of TRL's own loss."""

from __future__ import annotations

import random
from unittest import mock

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import GRPOTrainer

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder, section_credit
from omni_grpo.credit import resolve_credit_map, skill_weights
from omni_grpo.model import language_model_targets, load_model, load_processor
from omni_grpo.section_masks import TokenPlaces
from omni_rewards import CONTEXT_THINK_ANSWER, THINK_ANSWER, parse_sections

NAMES = ("section_format_reward", "context_reward", "reasoning_reward", "answer_reward")
WEIGHTS = [0.3, 0.7, 1.1, 1.0]
SECTIONS = ("context", "think", "answer")
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
LOSSES = ["dapo", "grpo", "bnpo", "dr_grpo", "cispo", "sapo"]


def reward(name: str, seed: int = 0, missing=()):
    """A reward of that name: a number drawn for each text, another for another seed; `None` in the places `missing`."""

    def score(completions, **kwargs):
        texts = [c[-1]["content"] for c in completions]
        return [None if i in missing else random.Random(f"{name} {seed} {t}").random() for i, t in enumerate(texts)]

    score.__name__ = name
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
        return [self.completion(int(n), i % group)[0] for i, n in enumerate(self._names)], None

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


@pytest.fixture
def make(tiny, settings, tmp_path):
    def build(credit_map, funcs=None, cls=Fixed, peft_config=None, **overrides):
        prompts = [[{"role": "user", "content": f"Question {k}?"}] for k in range(8)]
        fields = {
            "output_dir": str(tmp_path),
            "per_device_train_batch_size": 8,
            "num_generations": 4,
            "max_completion_length": 64,
            "max_steps": 1,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "save_strategy": "no",
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

    return build


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
        constant[k].__name__ = NAMES[k]
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
    with mock.patch.object(section_credit, target, mutant(getattr(section_credit, target))):
        trainer = make(credit_map)
        with pytest.raises(AssertionError):
            check(trainer, MOVES[credit_map], REACHES_MALFORMED[credit_map])


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
    for advantage, row, places in zip(stock, ours, trainer._token_places, strict=True):
        length = len(places.indices)
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
    relative = section_credit.relative_rewards(trainer._rewards, 4, scale)
    for k, name in enumerate(NAMES):
        for first in (0, 4):
            given = [i for i in range(first, first + 4) if i not in GAPS[name]]
            assert not relative[list(GAPS[name]), k].any()
            if given:
                alone = trainer._rewards[given, k : k + 1]
                if scale != "batch":
                    expected = section_credit.relative_rewards(alone, len(given), scale)
                    torch.testing.assert_close(relative[given, k : k + 1], expected)
                torch.testing.assert_close(relative[given, k].mean(), torch.tensor(0.0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", ["group", "batch"])
def test_each_reward_is_scaled_by_itself(scale):
    """A reward counted in other units moves as much, and makes no other move less."""
    rewards = torch.rand(8, 2, generator=torch.Generator().manual_seed(0))
    rewards[3, 0] = torch.nan
    small, large = (section_credit.relative_rewards(rewards * torch.tensor([1, f]), 4, scale) for f in (1, 1000))
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
    with mock.patch.object(section_credit, "refuse_leaks"):
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
    with mock.patch.object(section_credit, "token_places", broken):
        score(trainer)
    assert trainer._metrics["train"]["credit/frac_empty_mask"][-1] == 1
    assert "without a token" in caplog.text


def test_skill_is_strict_with_the_papers_weights(make):
    trainer = make("skill", reward_weights=None)
    assert trainer.reward_weights.tolist() == pytest.approx([0.15, 0.25, 0.25, 0.35])
    check(trainer, MOVES["strict"], REACHES_MALFORMED["strict"])
    with pytest.raises(ValueError, match="sets the reward weights itself"):
        make("skill")
    assert sum(skill_weights(NAMES)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("credit_map", "names", "schema", "message"),
    [
        ("soft", NAMES, CONTEXT_THINK_ANSWER, "'soft' is unknown; one of uniform, paper, strict, skill"),
        ("strict", ["length_reward"], CONTEXT_THINK_ANSWER, "does not say where 'length_reward' may act"),
        ("strict", ["context_reward"], THINK_ANSWER, "does not say where 'context_reward' may act"),
        ({"answer_rewart": ["answer"]}, NAMES, CONTEXT_THINK_ANSWER, "did you mean 'answer_reward'"),
        ({"answer_reward": ["reply"]}, NAMES, CONTEXT_THINK_ANSWER, "'reply' is no place; one of context"),
        ({"answer_reward": ["answer"]}, NAMES, CONTEXT_THINK_ANSWER, "yours does not say where 'section_format"),
    ],
)
def test_maps_that_do_not_fit_are_refused_by_name(credit_map, names, schema, message):
    with pytest.raises(ValueError, match=message):
        resolve_credit_map(credit_map, names, schema)


def test_presets_know_rewards_by_their_kind():
    names = ["think_answer_format_reward", "AnswerReward", "judged_context_reward", "length_reward"]
    assert resolve_credit_map("paper", names, CONTEXT_THINK_ANSWER) == [
        {"everywhere"},
        {"everywhere"},
        {"context"},
        {"everywhere"},
    ]
    assert resolve_credit_map("strict", names[:3], CONTEXT_THINK_ANSWER)[1:] == [{"answer"}, {"context"}]
    assert resolve_credit_map("paper", ["reasoning_reward"], THINK_ANSWER) == [{"think"}]


def test_two_normalisations_do_not_go_with_a_map(make):
    with pytest.raises(ValueError, match="multi_objective_aggregation"):
        make("strict", multi_objective_aggregation="normalize_then_sum")


def test_the_table_of_completions_is_what_it_says(make):
    """Our oracle is one: the fixed completions are well formed, or malformed, as the parser sees them."""
    trainer = make("strict")
    for place in range(4):
        ids, places = trainer.completion(0, place)
        sections = parse_sections(trainer._tokenizer.decode(ids, skip_special_tokens=True))
        assert sections.ok != trainer.is_malformed(place)
        assert len(ids) == len(places)
