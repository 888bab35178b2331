# SPDX-License-Identifier: Apache-2.0
"""A data set that fills no batch is refused before any model is loaded, with a remedy that works; never trained on in zero steps."""

from __future__ import annotations

import json
import re
from importlib import import_module
from unittest import mock

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import TrainingArguments
from trl.trainer.utils import RepeatSampler

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, OmniSFTConfig, OmniSFTTrainer, PromptEncoder
from omni_grpo.model.loading import load_processor
from small_runs import SCRIPT_RUN, SMALL_RUN, length_reward

RUN = {
    **SCRIPT_RUN,
    "save_strategy": "no",
    "max_steps": 2,
}
RL = {"reward_funcs": ["killed_run.letters_reward"], "num_generations": 4, "max_completion_length": 6}


def rl(folder, **fields):
    return OmniGRPOConfig(output_dir=str(folder), use_cpu=True, bf16=False, **fields)


def batches(args, rows: int) -> int:
    """Generation batches of an epoch, by TRL's own sampler."""
    sampler = RepeatSampler(range(rows), args.num_generations, args.generation_batch_size // args.num_generations)
    return sum(1 for _ in sampler) // args.generation_batch_size


def refusal(args, rows: int) -> str | None:
    try:
        args.check_rows(rows)
    except ValueError as error:
        return str(error)
    return None


@given(
    size=st.integers(1, 12),
    group=st.integers(2, 8),
    steps=st.integers(1, 4),
    rows=st.integers(1, 20),
    processes=st.integers(1, 3),
    by_size=st.booleans(),
)
def test_refused_is_what_would_make_no_batch_and_the_remedy_makes_one(
    tmp_path_factory, size, group, steps, rows, processes, by_size
):
    """Mutants: rows held against the batch without their generations; of one process; a remedy that upstream refuses."""
    whole, folder = size * steps * processes, tmp_path_factory.getbasetemp()
    assume(whole % group == 0)
    how = {"generation_batch_size": whole} if by_size else {"steps_per_generation": steps}
    with mock.patch.object(TrainingArguments, "world_size", processes):
        args = rl(folder, per_device_train_batch_size=size, num_generations=group, **how)
        message = refusal(args, rows)
        assert (message is None) == (batches(args, rows) > 0)
        if message is None:
            return
        assert f"{rows} row(s)" in message
        assert f"one generation batch of {whole} (generation_batch_size, over {processes} process(es))" in message
        enough = int(re.search(r"at least (\d+) rows", message)[1])
        assert refusal(args, enough) is None and refusal(args, enough - 1)
        fewer = re.search(r"`steps_per_generation: (\d+)`", message)
        assert bool(fewer) == any(
            rows * group >= size * processes * s and size * processes * s % group == 0 for s in range(1, steps)
        )
        if fewer:
            how = {"steps_per_generation": int(fewer[1])}
            assert batches(rl(folder, per_device_train_batch_size=size, num_generations=group, **how), rows) == 1


@pytest.fixture
def start(mixed_file, tmp_path):
    """Runs an entry script on the first `rows` of the mixed rows."""

    def run(script, rows, **changes):
        few = mixed_file.with_name("few.jsonl")
        few.write_text("\n".join(mixed_file.read_text().splitlines()[:rows]))
        fields = {"train_file": str(few), "output_dir": str(tmp_path / "run")}
        fields |= RUN | (RL if script == "grpo_omni" else {}) | changes
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(fields))
        import_module(script).main(["--config", str(tmp_path / "run.yaml")])
        return json.loads((tmp_path / "run" / "stage.json").read_text())

    return run


@pytest.mark.parametrize("how", [{"gradient_accumulation_steps": 4}, {"generation_batch_size": 16}])
def test_rl_on_less_than_a_batch_is_refused_before_a_model_is_loaded(start, tiny, how):
    """There is no model of that name, and none is asked for. With the remedy's field the run goes on."""
    fields = {"per_device_train_batch_size": 4, **how}
    message = (
        r"train_file: 3 row\(s\) of 4 completions each \(num_generations\) do not fill one generation batch of 16 .*; "
        r"give at least 4 rows, or set `steps_per_generation: 3` \(without generation_batch_size\)$"
    )
    with pytest.raises(ValueError, match=message):
        start("grpo_omni", 3, model_name_or_path="nowhere", **fields)
    fields = {name: value for name, value in fields.items() if name != "generation_batch_size"}
    done = start("grpo_omni", 3, model_name_or_path=tiny, **fields, steps_per_generation=3)
    assert done["done"] and done["steps"] == 2


def test_rl_on_just_enough_rows_trains(start, tiny):
    fields = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    assert start("grpo_omni", 4, model_name_or_path=tiny, **fields)["steps"] == 2


def test_sft_that_would_drop_its_only_batch_is_refused(start, tiny):
    fields = {"per_device_train_batch_size": 4, "dataloader_drop_last": True}
    with pytest.raises(
        ValueError, match=r"3 row\(s\) do not fill one batch of 4 .*set `dataloader_drop_last: false`, or .* 4 rows"
    ):
        start("sft_omni", 3, model_name_or_path="nowhere", **fields)
    assert start("sft_omni", 3, model_name_or_path=tiny, **{**fields, "dataloader_drop_last": False})["steps"] == 2
    assert start("sft_omni", 4, model_name_or_path=tiny, **fields)["steps"] == 2


@pytest.mark.parametrize("script", ["sft_omni", "grpo_omni"])
def test_a_stage_without_a_step_is_not_done(start, tiny, script, tmp_path):
    """Whatever the cause. Mutant: untouched weights are saved, and the next stage builds on them."""
    fields = {"max_steps": -1, "num_train_epochs": 0, "per_device_train_batch_size": 4}
    with pytest.raises(RuntimeError, match="no step was made"):
        start(script, 4, model_name_or_path=tiny, **fields)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert not json.loads((tmp_path / "run" / "stage.json").read_text())["done"]


def test_trainers_in_python_refuse_alike_before_they_load(tiny, settings, mixed, tmp_path):
    encoder, few = PromptEncoder(load_processor(tiny), settings), mixed.select([0, 1])
    args = OmniGRPOConfig(**SMALL_RUN, output_dir=str(tmp_path), per_device_train_batch_size=24, num_generations=8)
    with pytest.raises(ValueError, match=r"2 row\(s\) of 8 completions each"):
        OmniGRPOTrainer("nowhere", length_reward, args, few, encoder=encoder)
    args = OmniSFTConfig(
        **SMALL_RUN, output_dir=str(tmp_path), per_device_train_batch_size=4, dataloader_drop_last=True
    )
    with pytest.raises(ValueError, match=r"2 row\(s\) do not fill one batch of 4"):
        OmniSFTTrainer("nowhere", args, few, encoder=encoder)
