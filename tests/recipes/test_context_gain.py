# SPDX-License-Identifier: Apache-2.0
"""Context gain equals its formula by hand, on plain and on packed rows, and moves the context's tokens alone."""

from __future__ import annotations

import functools
from unittest import mock

import pytest
import torch

from omni_grpo import OmniGRPOConfig
from omni_grpo.credit.advantages import resolve_credit_map
from omni_grpo.data.encoding.inputs import collate_media
from omni_grpo.experimental import context_gain
from omni_grpo.families import base_of
from omni_grpo.rollout.record import Rollout
from omni_grpo.scoring.scorer import Scorer
from omni_rewards import CONTEXT_THINK_ANSWER, THINK_ANSWER, SectionSchema
from section_rollouts import NAMES, WEIGHTS, Fixed, build, push, reward, score


class Seeing(Fixed):
    """Samples for real, so that its prompts' media are seen, and then takes completions from the table."""

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        super(Fixed, self)._generate_single_turn(prompt_ids, *args, **kwargs)
        return super()._generate_single_turn(prompt_ids, *args, **kwargs)

    def completion(self, prompt, place):
        ids, places = super().completion(prompt, place)
        if place == 2:  # one that says nothing of what it saw
            ids, places = zip(*((i, p) for i, p in zip(ids, places, strict=True) if p != "context"), strict=True)
        return list(ids), list(places)


def constant(name):
    def score(completions, **kwargs):
        return [0.5] * len(completions)

    score.__name__ = name
    return score


@pytest.fixture
def make(tiny, settings, mixed, tmp_path):
    """A trainer on the mixed rows: row 0 is a clip with sound, 1 is text, 2 an image with a sound."""

    def made(credit_map="strict", **overrides):
        fields = {"context_gain_weight": 0.5, "max_completion_length": 4, **overrides}
        trainer = build(tiny, settings, tmp_path, credit_map, cls=Seeing, **fields)
        trainer.train_dataset = mixed.remove_columns("id").add_column("id", [str(k) for k in range(8)])
        return trainer

    return made


def by_hand(trainer) -> list[float | None]:
    """Row 0's and row 1's gains, one completion a pass of the model, the prompt without media from the template."""
    processor, model, gains = trainer.processing_class, trainer.model.eval(), []
    for k, place in ((k, place) for k in (0, 1) for place in range(4)):
        ids, places = trainer.completion(k, place)
        at = [t for t, name in enumerate(places) if name == "context"]
        if not at or k == 1:
            gains.append(None)
            continue
        row = trainer.encoder(trainer.train_dataset[k]["prompt"], str(k))
        question = trainer.train_dataset[k]["prompt"][-1]["content"][-1]["text"]
        asked = [{"role": "user", "content": [{"type": "text", "text": question}]}]
        text = processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        without = processor.tokenizer(text)["input_ids"]
        means = []
        for prompt, media in ((row.input_ids, collate_media([row])), (without, {})):
            whole = torch.tensor([prompt + ids])
            with torch.no_grad():  # without a mask the model would not look where its media stand
                logits = model(input_ids=whole, attention_mask=torch.ones_like(whole), **media).logits[0]
            logits = logits.index_fill(1, torch.tensor(trainer.sampler.forbidden), -torch.inf)
            logps = logits[len(prompt) - 1 : -1].log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
            means.append(logps[at].mean().item())
        gains.append(means[0] - means[1])
    return gains


def gains_of(trainer) -> list[float | None]:
    score(trainer)
    return [None if value != value else value for value in trainer.rewarded[:, -1].tolist()]


def check(trainer) -> None:
    found, expected = gains_of(trainer), by_hand(trainer)
    assert [g is None for g in found] == [g is None for g in expected] == [False, False, True, False] + [True] * 4
    assert [g for g in found if g] == pytest.approx([g for g in expected if g], abs=2e-6)
    assert min(abs(g) for g in expected if g) > 1e-4, "the media do show"


PATHS = [
    {"share_prompt": "off"},
    {"share_prompt": "verify"},
    {"share_prompt": "verify", "freeze_vision": True, "freeze_audio": True},
    {"share_prompt": "off", "per_device_train_batch_size": 2, "steps_per_generation": 4},
]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: ",".join(map(str, p.values())))
def test_it_is_the_formula(make, path):
    check(make(**path))


MUTANTS = {
    "without_media": lambda encoder, prompt, row: row,
    "_mean": lambda values, at: sum(values[t] for t in at) if at else None,
    "places_of": lambda schema: ("think", "context", "answer"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_check_catches_mutants(make, name):
    with mock.patch.object(context_gain, name, MUTANTS[name]), pytest.raises(AssertionError):
        check(make())


@pytest.mark.parametrize("share_prompt", ["off", "auto"])
def test_a_model_whose_logits_do_not_know_of_the_media_gains_nothing(make, share_prompt):
    """No token sees another: what comes out behind a token is the same whatever stood before it."""
    trainer = make(share_prompt=share_prompt)
    for layer in base_of(trainer.model).language_model.layers:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
    found = [g for g in gains_of(trainer) if g is not None]
    assert len(found) == 3 and found == pytest.approx([0.0] * 3, abs=1e-6)


def test_it_pushes_the_contexts_tokens_in_its_direction_and_no_other(make):
    """All other rewards equal, strict credit: exactly zero elsewhere, and the better of the group are pushed up."""
    trainer = make(scale_rewards="group")
    batch = score(trainer, [*map(constant, NAMES), trainer.reward_funcs[-1]])
    gradient, gains = push(trainer, batch), trainer.rewarded[:, -1]
    for row, known in enumerate(trainer.known_places(batch["completion_ids"])):
        moved = [place for place, g in zip(known, gradient[row].tolist(), strict=False) if g]
        has_credit = row < 4 and not gains[row].isnan() and not trainer.is_malformed(row % 4)
        assert moved == [p for p in known if p == "context" and has_credit], row
        at = [t for t, p in enumerate(known) if p == "context"]
        if moved:  # the loss falls where the probability of a context above the group's mean rises
            assert (gradient[row, at].sign() == -(gains[row] - gains[:4].nanmean()).sign()).all()


def test_rows_in_another_order_earn_the_same(make):
    trainer = make(num_generations=2, share_prompt="off")
    rows = score(trainer)["rows"]
    gain = trainer.reward_funcs[-1]

    def ask(rows):
        with trainer._at(Rollout(rows)):
            prompts = [trainer.train_dataset[int(row.name)]["prompt"] for row in rows]
            return gain(prompts, [row.completion_ids for row in rows], log_metric=lambda *_: None)

    straight, order = ask(rows), [5, 0, 7, 2, 1, 6, 3, 4]
    mixed_up = ask([rows[i] for i in order])
    assert mixed_up == [s if s is None else pytest.approx(s, abs=2e-6) for s in (straight[i] for i in order)]


@pytest.mark.parametrize("share_prompt", ["off", "auto"])
@pytest.mark.parametrize("rows", [(0, 2), (0, 1), (1, 1)], ids=["media", "mixed", "text"])
def test_every_process_makes_the_same_passes_whatever_its_rows(make, share_prompt, rows):
    """Mutant: no pass without media where no row has any; under ZeRO-3 the other processes would wait for ever."""
    trainer = make(share_prompt=share_prompt, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    trainer.scorer._verified, calls = 1000, []
    original = Scorer.score

    def spy(self, model, batch, *args, **kwargs):
        calls.append(len(batch.prompts))
        return original(self, model, batch, *args, **kwargs)

    with mock.patch.object(Scorer, "score", spy):
        trainer.model.train()
        trainer._generate_and_score_completions([trainer.train_dataset[k] for k in rows for _ in range(4)])
    assert calls == [4, 4] * 2
    assert trainer.model.training and all(m.training for m in trainer.model.modules())


def test_it_is_logged_and_shown_like_other_rewards(make):
    trainer = make(context_gain_clip=None)
    found = [g for g in gains_of(trainer) if g is not None]
    metrics = trainer._metrics["train"]
    assert trainer.reward_func_names == [*NAMES, "context_gain"]
    assert metrics["rewards/context_gain/mean"] == [pytest.approx(sum(found) / 3)]
    seen, alone = (metrics[f"context_gain/{name}_media"][0] for name in ("with", "without"))
    assert seen - alone == pytest.approx(sum(found) / 3, abs=1e-6)
    assert len(trainer._logs["rewards"]["context_gain"]) == 8
    assert trainer.reward_weights.tolist() == pytest.approx([*WEIGHTS, 0.5])
    assert trainer.args.reward_weights == WEIGHTS, "the configuration stays as it was written"


def test_it_is_cut_at_the_clip(make):
    trainer = make(context_gain_clip=1e-5)
    assert [abs(g) for g in gains_of(trainer) if g is not None] == pytest.approx([1e-5] * 3)


def test_at_weight_zero_it_is_measured_and_moves_nothing(make):
    trainer, plain = make(context_gain_weight=0), make(context_gain_weight=None)
    found, without = (score(t, [*map(reward, NAMES), *t.reward_funcs[4:]])["advantages"] for t in (trainer, plain))
    assert torch.equal(found, without)
    assert "context_gain" in trainer._logs["rewards"] and "context_gain" not in plain._logs["rewards"]


def test_without_the_field_nothing_is_added(make):
    trainer = make(context_gain_weight=None)
    assert trainer.reward_func_names == list(NAMES)


def test_it_is_credited_at_the_context_unless_a_map_says_otherwise():
    rewards = {"answer_reward": ["answer"], "context_gain": ["context"], "contrast_reward": ["answer"]}
    where = functools.partial(resolve_credit_map, rewards=rewards, schema=CONTEXT_THINK_ANSWER)
    assert where("strict")[1:] == where({"answer_reward": "everywhere"})[1:] == [{"context"}, {"answer"}]
    assert where("paper")[1:] == [{"context"}, {"everywhere"}]
    assert where({"answer_reward": "answer", "context_gain": ["context", "think"]})[1] == {"context", "think"}


def test_presets_and_schedules_leave_it_its_weight(make):
    trainer = make("skill", reward_weights=None)
    assert trainer.reward_weights.tolist() == pytest.approx([0.15, 0.25, 0.25, 0.35, 0.5])
    trainer = make(reward_weight_schedule={2: [1, 0, 0, 1]})
    schedule = next(c for c in trainer.callback_handler.callbacks if type(c).__name__ == "RewardWeightSchedule")
    assert schedule.at(2) == [1, 0, 0, 1, 0.5]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"context_gain_weight": -1}, "context_gain_weight: must be 0 or more"),
        ({"context_gain_weight": float("nan")}, "context_gain_weight: must be 0 or more"),
        ({"context_gain_clip": 0}, "context_gain_clip: must be above 0"),
        ({"contrast_weight": 1}, "contrast_pairs: true"),
    ],
)
def test_mistakes_are_named(fields, named, tmp_path):
    with pytest.raises(ValueError, match=named):
        OmniGRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **fields)


@pytest.mark.parametrize("schema", [THINK_ANSWER, SectionSchema(("caption", "answer"))])
def test_sections_without_a_context_are_refused(make, schema):
    with pytest.raises(ValueError, match=r"context_gain_weight: the sections .* have no 'context'"):
        make(section_schema=list(schema.names))


def test_a_reward_of_its_name_is_refused(tiny, settings, tmp_path):
    with pytest.raises(ValueError, match="'context_gain' is the trainer's own name"):
        build(
            tiny, settings, tmp_path, "paper", [constant("context_gain")], context_gain_weight=1.0, reward_weights=None,
            reward_funcs=["x.y"],
        )  # fmt: skip
