# SPDX-License-Identifier: Apache-2.0
"""Loading a thinker from each form in which one is kept."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    Qwen2_5OmniConfig,
    Qwen2_5OmniForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    set_seed,
)

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, OmniSFTConfig, OmniSFTTrainer, PromptEncoder
from omni_grpo.model.loading import copy_weights, language_model_targets, load_model, load_processor
from small_runs import SMALL_RUN, length_reward


@pytest.fixture(scope="module")
def full_model(tiny):
    """A full Qwen2.5-Omni around the tiny thinker."""
    thinker = load_model(tiny)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    talker = {
        **small,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "embedding_size": thinker.config.text_config.hidden_size,
        "vocab_size": 64,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
    }
    vocoder = {
        "dit_config": {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "ff_mult": 1,
            "emb_dim": 8,
        },
        "bigvgan_config": {"upsample_initial_channel": 8, "upsample_rates": [2], "upsample_kernel_sizes": [4]},
    }
    config = Qwen2_5OmniConfig(
        thinker_config=thinker.config.to_dict(),
        talker_config=talker,
        token2wav_config=vocoder,
        enable_audio_output=False,
    )
    set_seed(0)
    model = Qwen2_5OmniForConditionalGeneration(config)
    model.thinker.load_state_dict(thinker.state_dict())
    return model


@pytest.fixture(scope="module")
def full_checkpoint(full_model, tmp_path_factory):
    """Its checkpoint, the thinker's weights under `thinker.`."""
    folder = tmp_path_factory.mktemp("full")
    full_model.save_pretrained(folder)
    return str(folder)


def equal(a, b) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_thinker_is_taken_out_of_a_full_checkpoint(full_checkpoint, tiny):
    loaded = load_model(full_checkpoint)
    assert type(loaded).__name__ == "Qwen2_5OmniThinkerForConditionalGeneration"
    assert equal(loaded, load_model(tiny))
    assert equal(copy_weights(loaded), loaded), "the reference; TRL would look for the checkpoint's own architecture"


def test_an_adapter_is_merged_into_its_base(tiny, tmp_path):
    model = get_peft_model(load_model(tiny), LoraConfig(r=2, target_modules=language_model_targets(None)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    model.save_pretrained(tmp_path)
    merged, base = load_model(str(tmp_path)), load_model(tiny)
    ids = torch.tensor([[35, 36, 37, 38]])
    mask = torch.ones_like(ids)
    wanted = model.eval()(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(merged.eval()(input_ids=ids, attention_mask=mask).logits, wanted, rtol=0, atol=1e-5)
    assert (base.eval()(input_ids=ids, attention_mask=mask).logits - wanted).abs().max() > 1e-3


TRANSLATOR = {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 1, "num_heads": 2}


def test_another_architecture_is_refused_by_name(tmp_path):
    T5ForConditionalGeneration(T5Config(vocab_size=32, **TRANSLATOR)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a 't5' checkpoint; supported are"):
        load_model(str(tmp_path))


class LooksAlike(torch.nn.Module):
    """Has all that a thinker is found by, as Qwen3-Omni's has."""

    def __init__(self) -> None:
        super().__init__()
        self.audio_tower, self.visual, self.language_model = (torch.nn.Linear(2, 2) for _ in range(3))


@pytest.mark.parametrize("kind", ["GRPO", "SFT"])
@pytest.mark.parametrize("other", ["translator", "alike", "adapted", "full"])
def test_a_model_of_another_architecture_is_refused_by_type(full_model, tiny, settings, mixed, tmp_path, kind, other):
    """In both trainers, before anything is done to it. Mutant: whatever has two towers and a language model is taken."""
    model = {
        "translator": lambda: T5ForConditionalGeneration(T5Config(vocab_size=32, **TRANSLATOR)),
        "alike": LooksAlike,
        "adapted": lambda: get_peft_model(LooksAlike(), LoraConfig(target_modules=["visual"])),
        "full": lambda: full_model,
    }[other]()
    small = {**SMALL_RUN, "output_dir": str(tmp_path), "per_device_train_batch_size": 8}
    made = {"train_dataset": mixed, "encoder": PromptEncoder(load_processor(tiny), settings)}

    def make(model):
        if kind == "SFT":
            return OmniSFTTrainer(model, OmniSFTConfig(**small), **made)
        return OmniGRPOTrainer(model, length_reward, OmniGRPOConfig(**small), **made)

    name = {"translator": "T5ForConditionalGeneration", "full": "Qwen2_5OmniForConditionalGeneration"}.get(
        other, "LooksAlike"
    )
    with pytest.raises(ValueError, match=rf"^the model is a {name}; supported are `Qwen2_5OmniThinker"):
        make(model)
    if other == "full":
        make(model.thinker)
