# SPDX-License-Identifier: Apache-2.0
"""Schedules are functions of the step, so a resumed run meets the values that an unbroken one meets."""

from __future__ import annotations

import json
import math
import shutil
from itertools import pairwise

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from trl import ModelConfig

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder
from omni_grpo.credit.schedules import BetaSchedule
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.run.command_line import parse


def length_reward(completions, **kwargs):
    return [float(len(c[-1]["content"]) % 7) for c in completions]


def vowel_reward(completions, **kwargs):
    return [float(sum(c[-1]["content"].count(v) for v in "aeiou")) for c in completions]


@pytest.fixture
def make(tiny, settings, tmp_path):
    def build(folder="run", **overrides):
        fields = {
            "output_dir": str(tmp_path / folder),
            "per_device_train_batch_size": 4,
            "num_generations": 4,
            "max_completion_length": 4,
            "max_steps": 6,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "save_steps": 3,
            "reward_funcs": ["x.length_reward", "x.vowel_reward"],
            "beta": 0.04,
            "beta_end": 0.01,
            "reward_weights": [1.0, 0.5],
            "reward_weight_schedule": {2: [0.0, 1.0], 4: [0.3, 0.3]},
        }
        prompts = [[{"role": "user", "content": f"Question {k}?"}] for k in range(8)]
        return OmniGRPOTrainer(
            load_model(tiny),
            [length_reward, vowel_reward],
            OmniGRPOConfig(**{**fields, **overrides}),
            Dataset.from_dict({"prompt": prompts}),
            encoder=PromptEncoder(load_processor(tiny), settings),
        )

    return build


KEYS = ("beta", "reward_weight/length_reward", "reward_weight/vowel_reward", "reward")


def logged(trainer, key):
    return [log[key] for log in trainer.state.log_history if key in log]


def test_a_resumed_run_meets_the_values_of_an_unbroken_one(make, tmp_path):
    whole = make()
    whole.train()
    assert logged(whole, "beta") == pytest.approx([0.04, 0.03, 0.02, 0.01, 0.01, 0.01])
    assert logged(whole, "reward_weight/length_reward") == [1.0, 1.0, 0.0, 0.0, 0.3, 0.3]
    assert logged(whole, "reward_weight/vowel_reward") == [0.5, 0.5, 1.0, 1.0, 0.3, 0.3]
    shutil.copytree(tmp_path / "run" / "checkpoint-3", tmp_path / "cut" / "checkpoint-3")
    resumed = make("cut")
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-3"))
    for key in KEYS:
        assert logged(resumed, key) == pytest.approx(logged(whole, key)), key


def test_weights_that_change_change_what_is_summed(make):
    """The schedule reaches TRL's own sum, also under `uniform`."""
    trainer = make(credit_map="uniform", learning_rate=0.0, beta=0.04, save_strategy="no")
    trainer.train()
    for step, log in enumerate(log for log in trainer.state.log_history if "reward" in log):
        weights = [log[f"reward_weight/{n}_reward"] for n in ("length", "vowel")]
        means = [log[f"rewards/{n}_reward/mean"] for n in ("length", "vowel")]
        assert log["reward"] == pytest.approx(sum(w * m for w, m in zip(weights, means, strict=True)), abs=1e-5), step


def test_the_kl_weight_reaches_the_loss(make):
    """Same weights, same samples: the loss of a step differs by what its beta adds."""
    steep, flat = make("a", save_strategy="no"), None
    steep.train()
    flat = make("b", save_strategy="no", beta_end=None)
    flat.train()
    assert logged(steep, "loss")[0] == logged(flat, "loss")[0]
    assert logged(steep, "loss")[2] != logged(flat, "loss")[2]
    assert not logged(flat, "beta")


@given(
    start=st.floats(1e-4, 1),
    end=st.floats(1e-4, 1),
    share=st.floats(0.01, 1),
    steps=st.integers(1, 10_000),
)
def test_beta_begins_and_ends_where_it_should_and_never_turns(start, end, share, steps):
    schedule = BetaSchedule(None, start, end, share)
    values = [schedule.at(k, steps) for k in range(0, steps + 1, max(1, steps // 50))]
    assert values[0] == start
    assert all((b - a) * (end - start) >= -1e-12 for a, b in pairwise(values))
    for step in (math.ceil(share * steps), steps):
        assert schedule.at(step, steps) == pytest.approx(end)


def test_humanomniv2s_formula():
    schedule, steps = BetaSchedule(None, 0.04, 0.01, 0.5), 1000
    for k in (0, 100, 499, 500, 501, 1000):
        published = 0.04 * (1 - 0.75 * k / (steps / 2)) if k <= steps / 2 else 0.01
        assert schedule.at(k, steps) == pytest.approx(published)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"beta": 0.0}, "beta_end: needs beta and beta_end above 0"),
        ({"beta_end": 0.0}, "beta_end: needs beta and beta_end above 0"),
        ({"beta_share": 0.0}, "beta_share in"),
        ({"reward_weight_schedule": {0: [1.0]}}, "one weight for each of the 2 rewards"),
        ({"reward_weight_schedule": {0: [1.0, 1.0], 5: [1.0] * 3}}, r"5: .* one weight for each of the 2 rewards"),
        ({"reward_weights": [1.0, 1.0, 1.0]}, "reward_weights has 3 entries, reward_funcs has 2; give one weight"),
        ({"reward_weight_schedule": {"late": [1.0, 1.0]}}, "'late'"),
        ({"reward_weight_schedule": "late"}, "not a map"),
        ({"reward_weight_schedule": "{late"}, "reward_weight_schedule: not JSON"),
        ({"section_schema": ["Think", "answer"]}, "section_schema: section name 'Think'"),
    ],
)
def test_fields_that_cannot_be_are_refused(make, fields, message):
    with pytest.raises(ValueError, match=message):
        make(**fields)


def test_yaml_and_command_line_say_the_same(tmp_path):
    """Maps come as YAML in a file and as JSON on the command line; the sections reach the trainer's schema."""
    credit = {"answer_reward": ["answer"], "section_format_reward": "everywhere"}
    file = tmp_path / "run.yaml"
    file.write_text(
        f"output_dir: {tmp_path}\nuse_cpu: true\nbf16: false\ncredit_map: {json.dumps(credit)}\n"
        "reward_weight_schedule: {0: [1, 0], 200: [1, 1]}\nsection_schema: [plan, answer]\n"
    )
    (yaml, _) = parse((OmniGRPOConfig, ModelConfig), ["--config", str(file)])
    more = ["--credit_map", json.dumps(credit), "--reward_weight_schedule", '{"0": [1, 0], "200": [1, 1]}']
    file.write_text(f"output_dir: {tmp_path}\nuse_cpu: true\nbf16: false\n")
    (line, _) = parse(
        (OmniGRPOConfig, ModelConfig), ["--config", str(file), *more, "--section_schema", "plan", "answer"]
    )
    for args in (yaml, line):
        assert args.credit_map == credit
        assert args.reward_weight_schedule == {0: [1.0, 0.0], 200: [1.0, 1.0]}
        assert args.schema(None).names == ("plan", "answer")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_trainer_in_python_names_its_rewards_once(tiny, settings, tmp_path, count):
    """Weights are held to the rewards that the trainer is given. Mutant: to those that the launcher has by default."""
    rewards = [length_reward, vowel_reward, lambda completions, **kwargs: [0.0] * len(completions)][:count]
    args = OmniGRPOConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=4,
        num_generations=4,
        reward_weights=[0.5] * count,
        reward_weight_schedule={0: [1.0] * count, 2: [0.25] * count},
    )
    rows = Dataset.from_dict({"prompt": [[{"role": "user", "content": "Question?"}]]})
    encoder = PromptEncoder(load_processor(tiny), settings)
    trainer = OmniGRPOTrainer(load_model(tiny), rewards if count > 1 else rewards[0], args, rows, encoder=encoder)
    assert trainer.reward_weights.tolist() == [0.5] * count
    with pytest.raises(ValueError, match=f"reward_weights has {count} entries, reward_funcs has {count + 1}"):
        OmniGRPOTrainer("nowhere", [*rewards, vowel_reward], args, rows, encoder=encoder)
