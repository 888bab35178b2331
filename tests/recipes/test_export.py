# SPDX-License-Identifier: Apache-2.0
"""A trained thinker back in its full checkpoint: trained where it was trained, equal to the bit everywhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import (
    Qwen2_5OmniConfig,
    Qwen2_5OmniForConditionalGeneration,
    Qwen3OmniMoeConfig,
    Qwen3OmniMoeForConditionalGeneration,
)

from export_omni import main
from omni_grpo.model.loading import language_model_targets, load_model, load_processor
from tiny_families import qwen3_omni

DIT = {
    "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "ff_mult": 1, "emb_dim": 8, "head_dim": 8,
    "num_embeds": 16, "mel_dim": 8, "enc_emb_dim": 8, "enc_dim": 8, "enc_channels": [8, 8, 8, 8, 24],
    "enc_attention_channels": 4, "enc_res2net_scale": 2, "enc_se_channels": 4,
}  # fmt: skip
VOCODER = {
    "mel_dim": 8, "upsample_initial_channel": 8, "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 1, 1]],
    "upsample_rates": [2], "upsample_kernel_sizes": [4],
}  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: w for file in Path(folder).glob("*.safetensors") for name, w in load_file(file).items()}


@pytest.fixture(scope="module")
def full(tiny, tmp_path_factory) -> Path:
    """A whole Qwen2.5-Omni: the tiny thinker, a talker and a codec, in two files and bfloat16, with its voices."""
    thinker = load_model(tiny)
    width = thinker.config.text_config.hidden_size
    talker = {
        "vocab_size": 32, "embedding_size": width, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
    }  # fmt: skip
    config = Qwen2_5OmniConfig(
        thinker_config=thinker.config.to_dict(),
        talker_config=talker,
        token2wav_config={"dit_config": DIT, "bigvgan_config": VOCODER},
    )
    torch.manual_seed(1)
    model = Qwen2_5OmniForConditionalGeneration(config)
    model.thinker.load_state_dict(thinker.state_dict())
    folder = tmp_path_factory.mktemp("full")
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="150KB")
    load_processor(tiny).save_pretrained(folder)
    torch.save({"Chelsie": {"bos_token": 1}}, folder / "spk_dict.pt")
    return folder


@pytest.fixture(scope="module")
def trained(full, tmp_path_factory) -> dict[str, Path]:
    """What runs leave: a thinker whose language model has moved, and an adapter."""
    folder, thinker = tmp_path_factory.mktemp("runs"), load_model(str(full))
    with torch.no_grad():
        for name, parameter in thinker.named_parameters():
            if ("mlp" in name and "language_model" in name) or "lm_head" in name:
                parameter.add_(0.5)
    thinker.save_pretrained(folder / "rl")
    lora = LoraConfig(r=2, target_modules=language_model_targets(None), init_lora_weights=False)
    get_peft_model(load_model(str(full)), lora).save_pretrained(folder / "lora")
    return {name: folder / name for name in ("rl", "lora")}


def ids() -> torch.Tensor:
    return torch.tensor([[5, 6, 7, 8, 9, 10]])


def scores(thinker) -> torch.Tensor:
    with torch.no_grad():
        return thinker.eval()(input_ids=ids()).logits


@pytest.mark.parametrize("how", ["rl", "lora"])
def test_the_thinker_goes_back_and_nothing_else_moves(full, trained, tmp_path, how):
    """Mutants: the prefix forgotten, the run's type of number kept, other files left behind."""
    main(["--model", str(trained[how]), "--into", str(full), "--output", str(tmp_path / "out")])
    before, after = weights(full), weights(tmp_path / "out")
    assert before.keys() == after.keys() and len(list(full.glob("*.safetensors"))) > 1
    assert all(before[n].dtype == after[n].dtype for n in before)
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert changed and all(n.startswith("thinker.") and "audio_tower" not in n and "visual" not in n for n in changed)
    files = {f.relative_to(full) for f in full.rglob("*") if f.is_file()}
    assert files == {f.relative_to(tmp_path / "out") for f in (tmp_path / "out").rglob("*") if f.is_file()}
    for file in files:
        if file.suffix != ".safetensors":
            assert (full / file).read_bytes() == (tmp_path / "out" / file).read_bytes()
    whole = Qwen2_5OmniThinkerOf(tmp_path / "out")
    assert torch.equal(scores(whole), scores(load_model(str(trained[how])).to(torch.bfloat16)))


def Qwen2_5OmniThinkerOf(folder: Path):
    model = Qwen2_5OmniForConditionalGeneration.from_pretrained(
        folder, dtype=torch.bfloat16, enable_audio_output=False
    )
    return model.thinker.to(torch.bfloat16)  # a part keeps the type of its own configuration


def test_an_adapter_is_one_of_the_full_model(full, trained, tmp_path):
    """Mutant: its targets as the expression that the thinker was adapted by."""
    main(["--model", str(trained["lora"]), "--into", str(full), "--output", str(tmp_path / "out"), "--keep_adapter"])
    model = Qwen2_5OmniForConditionalGeneration.from_pretrained(full, enable_audio_output=False).to(torch.bfloat16)
    adapted = PeftModel.from_pretrained(model, tmp_path / "out")
    own = load_model(str(trained["lora"]), keep_adapter=True).to(torch.bfloat16)
    theirs = adapted.to(torch.bfloat16).get_base_model().thinker
    named = {n for n, _ in adapted.named_modules() if n.endswith("lora_A")}
    assert named and all((".thinker." in n and "language_model" in n) or ".thinker.model." in n for n in named)
    assert torch.allclose(scores(theirs), scores(own), atol=1e-2)
    assert not torch.allclose(scores(theirs), scores(load_model(str(full)).to(torch.bfloat16)), atol=1e-2)


def test_what_does_not_fit_is_refused(tiny, full, trained, tmp_path):
    with pytest.raises(ValueError, match="is not a full Omni model"):
        main(["--model", str(trained["rl"]), "--into", tiny, "--output", str(tmp_path / "a")])
    with pytest.raises(ValueError, match="holds no adapter; leave it out"):
        main(["--model", tiny, "--into", str(full), "--output", str(tmp_path / "b"), "--keep_adapter"])
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "file").touch()
    with pytest.raises(ValueError, match="not empty; name a new directory"):
        main(["--model", tiny, "--into", str(full), "--output", str(tmp_path / "c")])


def test_a_thinker_with_routed_experts_goes_back(tmp_path):
    """Qwen3-Omni, whose experts a checkpoint may name otherwise than the model does."""
    _, thinker = qwen3_omni()
    config = Qwen3OmniMoeConfig(thinker_config=thinker.config.to_dict(), enable_audio_output=False)
    whole = Qwen3OmniMoeForConditionalGeneration(config)
    whole.thinker.load_state_dict(thinker.state_dict())
    whole.save_pretrained(tmp_path / "full", max_shard_size="200KB")
    trained = load_model(str(tmp_path / "full"))
    with torch.no_grad():
        for parameter in trained.get_output_embeddings().parameters():
            parameter.add_(0.5)
        for name, parameter in trained.named_parameters():
            if "experts" in name:
                parameter.mul_(2)
    trained.save_pretrained(tmp_path / "rl")
    main(["--model", str(tmp_path / "rl"), "--into", str(tmp_path / "full"), "--output", str(tmp_path / "out")])
    before, after = weights(tmp_path / "full"), weights(tmp_path / "out")
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert before.keys() == after.keys() and changed and all("experts" in n or "lm_head" in n for n in changed)
    again = Qwen3OmniMoeForConditionalGeneration.from_pretrained(tmp_path / "out").thinker
    assert all(
        torch.equal(a, b) for a, b in zip(again.state_dict().values(), trained.state_dict().values(), strict=True)
    )
