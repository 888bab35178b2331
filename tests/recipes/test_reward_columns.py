# SPDX-License-Identifier: Apache-2.0
"""A reward that applies to no row of the data is refused before training, unless it is allowed."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import pytest
from datasets import Dataset, Image

import grpo_omni
import omni_rewards
from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder
from omni_grpo.data.dataset import to_dataset
from omni_grpo.data.rows.loading import load_examples
from omni_grpo.data.rows.schema import DataError, Example
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.run.reward_columns import check_reward_columns, needed_columns
from omni_rewards import AsyncContextReward, ContextReward, answer_reward, context_reward, section_format_reward
from small_runs import SMALL_RUN, length_reward

ROW = Example(id="a", problem="Is it?", problem_type="yes_no", solution="yes")


def check(rewards, rows=(ROW,), allowed=False, context_gain=False):
    check_reward_columns(rewards, to_dataset(rows, "short"), allowed, context_gain)


def of_its_own(completions, label, **kwargs):
    return [float(value) for value in label]


def test_a_reward_declares_its_columns_as_parameters_without_a_default():
    """Mutant: the settings of a reward, or what TRL gives, taken for columns."""
    for name in (name for name in omni_rewards.__all__ if name.endswith("_reward")):
        columns = {"answer_reward": ["solution", "problem_type"], "context_reward": ["context"]}
        columns["reasoning_reward"] = ["problem_type"]
        assert needed_columns(getattr(omni_rewards, name)) == columns.get(name, [])
    assert needed_columns(ContextReward()) == needed_columns(AsyncContextReward()) == ["context"]
    assert needed_columns(functools.partial(of_its_own, label=[1])) == needed_columns("a/reward-model") == []
    assert needed_columns(of_its_own) == ["label"]


def test_a_reward_that_applies_to_no_row_is_refused_unless_allowed(caplog):
    """Mutants: one row without a context is enough to refuse; the check of the first reward alone."""
    rewards = [section_format_reward, context_reward]
    with pytest.raises(
        DataError, match=r"context_reward applies to no row: none has a `context`; .*`allow_unused_rewards"
    ):
        check(rewards, [ROW, replace(ROW, id="b", context=None)])
    check(rewards, [ROW, replace(ROW, id="b", context="A red door.")])
    check(rewards, [ROW], allowed=True)
    assert "context_reward applies to no row: none has a `context`; it is logged as None" in caplog.text


@pytest.mark.parametrize("allowed", [False, True])
def test_a_column_that_a_reward_cannot_do_without_is_never_allowed_to_be_missing(allowed):
    """It would raise in the middle of the run. Mutant: `allow_unused_rewards` as its remedy."""
    with pytest.raises(DataError, match=r"of_its_own: no row has a `label`, which it needs; add it, or take") as error:
        check(of_its_own, [ROW], allowed)
    assert "allow_unused" not in str(error.value)
    untyped = [ROW, Example(id="b", problem="Is it?", problem_type="", solution="yes", prompt=None)]
    with pytest.raises(DataError, match=r"answer_reward: rows \[1\] have no `problem_type`, which it needs"):
        check([length_reward, answer_reward], untyped, allowed)
    check(of_its_own, [replace(ROW, columns={"label": 1})], allowed)


def test_context_gain_without_media_is_refused_unless_allowed():
    with pytest.raises(DataError, match=r"context_gain applies to no row: none has media"):
        check(section_format_reward, context_gain=True)
    check(section_format_reward, context_gain=True, allowed=True)


def test_a_column_of_pictures_is_not_decoded(clips):
    """Mutant: every picture read to see whether there is one."""

    def reads(completions, image, **kwargs):
        return [0.0] * len(completions)

    rows = Dataset.from_dict({"prompt": ["Is it?"], "image": [str(clips / "gone.png")]})
    check_reward_columns(reads, rows.cast_column("image", Image()), False)


def test_the_trainer_refuses_and_goes_on_where_it_is_allowed(tiny, settings, tmp_path, mixed):
    def run(**more):
        fields = {**SMALL_RUN, "output_dir": str(tmp_path), "per_device_train_batch_size": 4, "num_generations": 4}
        args = OmniGRPOConfig(**fields, max_completion_length=4, max_steps=1, **more)
        rewards = [length_reward, context_reward]
        encoder = PromptEncoder(load_processor(tiny), settings)
        OmniGRPOTrainer(load_model(tiny), rewards, args, mixed, encoder=encoder).train()

    with pytest.raises(DataError, match="context_reward applies to no row"):
        run()
    run(allow_unused_rewards=True)


def test_the_script_refuses_before_a_model_is_looked_for(tmp_path, mixed_file):
    (tmp_path / "run.yaml").write_text(
        json.dumps(
            {
                "output_dir": str(tmp_path / "run"),
                "model_name_or_path": str(tmp_path / "none"),
                "train_file": str(mixed_file),
                "prompt_style": "short",
                "reward_funcs": ["omni_rewards.context_reward"],
                "use_cpu": True,
                "bf16": False,
            }
        )
    )
    assert load_examples(mixed_file)
    with pytest.raises(DataError, match="context_reward applies to no row"):
        grpo_omni.main(["--config", str(tmp_path / "run.yaml")])
