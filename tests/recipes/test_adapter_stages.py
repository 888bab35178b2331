# SPDX-License-Identifier: Apache-2.0
"""Stages that build on an adapter: merged and trained in full, or gone on with; and adapters on a quantised model."""

from __future__ import annotations

import json
import shutil
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from trl import ModelConfig

from conftest import TEXTS
from omni_demo.model import TinyOmniConfig, save_tiny_omni
from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, OmniSFTConfig, OmniSFTTrainer, PromptEncoder
from omni_grpo.model.loading import language_model_targets, load_model, load_processor
from omni_grpo.run.scripts import model_kwargs, peft_config
from small_runs import SCRIPT_RUN, SMALL_RUN, length_reward

RUN = {
    **SCRIPT_RUN,
    "learning_rate": 1.0e-2,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "save_strategy": "no",
    "per_device_train_batch_size": 4,
    "max_steps": 2,
}
RL = {"reward_funcs": ["killed_run.letters_reward"], "num_generations": 2, "max_completion_length": 6}
LORA = {"use_peft": True, "lora_r": 2, "lora_dropout": 0.0}
WEIGHTS, ADAPTER = "model.safetensors", "adapter_model.safetensors"
needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")


@pytest.fixture(scope="module")
def run(tiny, mixed_file, tmp_path_factory):
    """Runs an entry script; keyword arguments go over its fields."""

    def start(script: str, **changes) -> Path:
        folder = tmp_path_factory.mktemp("stage") / "run"
        fields = {"model_name_or_path": tiny, "train_file": str(mixed_file), "output_dir": str(folder)}
        fields = {**RUN, **(RL if script == "grpo_omni" else {}), **fields, **changes}
        file = folder.with_suffix(".yaml")
        file.write_text(yaml.safe_dump(fields))
        import_module(script).main(["--config", str(file)])
        return folder

    return start


@pytest.fixture(scope="module")
def cold_start(run) -> Path:
    """SFT with LoRA."""
    return run("sft_omni", **LORA)


@pytest.mark.parametrize("script", ["sft_omni", "grpo_omni"])
def test_a_full_stage_trains_what_an_adapter_had_frozen(run, cold_start, script):
    """
    Every weight that a full stage on a plain checkpoint trains. Mutant: the flags as the adapter left them, whose
    backward has nothing to go to.
    """
    model = load_model(str(cold_start))
    assert all(p.requires_grad for p in model.parameters()) and not isinstance(model, PeftModel)
    before, after = model.state_dict(), load_file(run(script, model_name_or_path=str(cold_start)) / WEIGHTS)
    for name in ("lm_head.weight", "model.layers.0.mlp.up_proj.weight", "audio_tower.layers.0.fc1.weight"):
        ours = name if name in before else name.replace("model.layers", "model.language_model.layers")
        ours = ours if ours in before else f"model.{ours}"
        assert not torch.equal(before[ours], after[name]), name


def test_frozen_towers_stay_frozen_behind_an_adapter(run, cold_start):
    before = load_file(
        Path(json.loads((cold_start / "adapter_config.json").read_text())["base_model_name_or_path"]) / WEIGHTS
    )
    after = load_file(run("sft_omni", model_name_or_path=str(cold_start), freeze_audio=True) / WEIGHTS)
    moved = {name: not torch.equal(before[name], tensor) for name, tensor in after.items()}
    assert moved["lm_head.weight"] and not any(moved[name] for name in moved if name.startswith("audio_tower"))


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("script", ["sft_omni", "grpo_omni"])
def test_with_lora_a_stage_goes_on_with_the_adapter(run, cold_start, tiny, script, beta, capsys):
    """Its base stays the cold start's. Mutants: a new adapter on the merged weights; the adapter is loaded, not trained."""
    more = {"beta": beta} if script == "grpo_omni" else {}
    folder = run(script, model_name_or_path=str(cold_start), learning_rate=1e-4, **LORA, **more)
    assert f"training goes on with the adapter in {cold_start}" in capsys.readouterr().out
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == tiny
    before, after = load_file(cold_start / ADAPTER), load_file(folder / ADAPTER)
    assert before.keys() == after.keys()
    assert all(tensor.norm() > 0 for tensor in before.values())
    apart = [(before[name] - after[name]).norm() / before[name].norm() for name in before]
    assert all(0 < d < 0.2 for d in apart), "moved, and from there"
    if script == "grpo_omni" and beta:
        start = load_file(folder / "ref" / ADAPTER)
        assert all(torch.equal(start[name], before[name]) for name in before), "the reference is the cold start"


def test_at_learning_rate_zero_the_policy_is_the_cold_start(tiny, cold_start, settings, mixed, tmp_path):
    """Mutant: the reference is the base without its adapter, and the first KL is not 0."""
    model = load_model(str(cold_start), keep_adapter=True)
    args = OmniGRPOConfig(
        **{**SMALL_RUN, "learning_rate": 0.0},
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=6,
        max_steps=1,
        beta=0.1,
    )
    trainer = OmniGRPOTrainer(model, length_reward, args, mixed, encoder=PromptEncoder(load_processor(tiny), settings))
    trainer.train()
    assert [log["kl"] for log in trainer.state.log_history if "kl" in log] == [0.0]


def test_a_kept_adapter_is_resumed_exactly(cold_start, tiny, settings, mixed, tmp_path):
    """With its reference, which is a second adapter. Mutant: the reference becomes the checkpoint's policy."""

    def train(folder, resume=None):
        args = OmniGRPOConfig(
            **{**SMALL_RUN, "save_strategy": "steps", "lr_scheduler_type": "constant"},
            output_dir=str(folder),
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=6,
            max_steps=4,
            save_steps=2,
            beta=0.1,
        )
        model, encoder = load_model(str(cold_start), keep_adapter=True), PromptEncoder(load_processor(tiny), settings)
        trainer = OmniGRPOTrainer(model, length_reward, args, mixed, encoder=encoder)
        trainer.train(resume_from_checkpoint=resume)
        return {n: p.detach().clone() for n, p in trainer.model.named_parameters() if "lora" in n}

    whole = train(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "cut" / "checkpoint-2")
    resumed = train(tmp_path / "cut", str(tmp_path / "cut" / "checkpoint-2"))
    assert whole.keys() == resumed.keys() and any(".ref." in name for name in whole)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"lora_r": 4}, "lora_r"),
        ({"lora_alpha": 7, "use_dora": True}, "lora_alpha, use_dora"),
        ({"lora_target_modules": ["q_proj"]}, "lora_target_modules"),
    ],
)
def test_another_adapter_than_the_one_there_is_refused(cold_start, fields, named):
    """Not taken for the one that is there, nor silently left out. The remedy: fields that are left out, or agree."""
    path = {"model_name_or_path": str(cold_start), "use_peft": True}
    with pytest.raises(ValueError, match=rf"^{named}: .* is an adapter that says otherwise.*; leave them out"):
        peft_config(ModelConfig(**path, **fields))
    assert peft_config(ModelConfig(**path)) is None
    assert peft_config(ModelConfig(**path, lora_r=2, lora_dropout=0.0)) is None


def test_without_an_adapter_there_lora_is_as_described(tiny):
    config = peft_config(ModelConfig(model_name_or_path=tiny, use_peft=True, lora_r=4))
    assert isinstance(config, LoraConfig) and config.r == 4 and config.target_modules == language_model_targets(None)


# Quantised models

BITS = ["load_in_4bit", "load_in_8bit"]


@pytest.fixture(scope="module")
def wider(tmp_path_factory) -> str:
    """4 bits come in blocks of 64."""
    config = TinyOmniConfig(width=64, text_layers=1, vision_layers=1, audio_layers=1, image_size_px=56, vocab_size=400)
    return str(save_tiny_omni(tmp_path_factory.mktemp("models") / "wider", TEXTS, config))


@pytest.mark.parametrize("script", ["sft_omni", "grpo_omni"])
@pytest.mark.parametrize("field", BITS)
def test_a_quantised_model_is_not_trained_in_full(run, script, field, tmp_path):
    """Before the run's folder is made and any model loaded: there is none of that name."""
    with pytest.raises(ValueError, match=rf"^{field}: .*through LoRA alone; set `use_peft: true`"):
        run(script, model_name_or_path=str(tmp_path / "nowhere"), **{field: True})


@pytest.mark.parametrize("field", BITS)
def test_without_bitsandbytes_the_extra_is_named(tiny, field, monkeypatch):
    """Mutant: the field is passed over, and the model trains in full precision."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setattr("omni_grpo.run.scripts.find_spec", lambda name: sys.modules[name])
    with pytest.raises(ImportError, match=rf"^{field} needs bitsandbytes: pip install 'omni-grpo\[quantization\]'"):
        model_kwargs(ModelConfig(model_name_or_path=tiny, use_peft=True, **{field: True}))


@needs_bitsandbytes
@pytest.mark.parametrize("field", BITS)
def test_the_language_model_alone_is_quantised(tiny, field):
    """Mutant: the towers, too, which costs perception and saves little."""
    model = load_model(tiny, **model_kwargs(ModelConfig(model_name_or_path=tiny, use_peft=True, **{field: True})))
    kinds = {
        name: type(module).__name__ for name, module in model.named_modules() if "Linear" in type(module).__name__
    }
    kind = {"load_in_4bit": "Linear4bit", "load_in_8bit": "Linear8bitLt"}[field]
    assert kinds and {k for name, k in kinds.items() if "language_model" in name} == {kind}
    assert {k for name, k in kinds.items() if "language_model" not in name} == {"Linear"}


@needs_bitsandbytes
@pytest.mark.parametrize("field", BITS)
def test_qlora_trains_from_cold_start_to_rl(run, wider, field):
    """Both stages on the quantised base; the adapter is an ordinary one, which merges into the full-precision base."""
    quantised = {**LORA, field: True}
    first = run("sft_omni", model_name_or_path=wider, **quantised)
    second = run("grpo_omni", model_name_or_path=str(first), beta=0.1, **quantised)
    before, after = load_file(first / ADAPTER), load_file(second / ADAPTER)
    assert all(before[name].norm() > 0 and not torch.equal(before[name], after[name]) for name in before)
    merged, base = load_model(str(second)).state_dict(), load_model(wider).state_dict()
    assert all(merged[name].dtype == base[name].dtype for name in base)
    assert any(not torch.equal(merged[name], base[name]) for name in base)


@needs_bitsandbytes
@pytest.mark.parametrize("trainer", [OmniGRPOTrainer, OmniSFTTrainer])
def test_a_trainer_in_python_takes_a_quantisation(tiny, settings, mixed, tmp_path, trainer):
    """As TRL's trainers do for a model by its name. Mutant: the model is loaded without it."""
    from transformers import BitsAndBytesConfig

    small = {**SMALL_RUN, "output_dir": str(tmp_path), "per_device_train_batch_size": 8}
    args = OmniGRPOConfig(**small) if trainer is OmniGRPOTrainer else OmniSFTConfig(**small)
    made = {"args": args, "train_dataset": mixed, "encoder": PromptEncoder(load_processor(tiny), settings)}
    made |= {"reward_funcs": length_reward} if trainer is OmniGRPOTrainer else {}
    made |= {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    lora = LoraConfig(r=2, target_modules=language_model_targets(None))
    assert trainer(model=tiny, peft_config=lora, **made).model.is_loaded_in_8bit
    with pytest.raises(ValueError, match=r"quantization_config: the model is loaded already"):
        trainer(model=load_model(tiny), peft_config=lora, **made)
