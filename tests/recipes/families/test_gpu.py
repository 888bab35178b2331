# SPDX-License-Identifier: Apache-2.0
"""
`make test-gpu`: each family at the widths of its published model, a few layers of random weights, on a CUDA device.
Gradients in float32 under FlexAttention are those under SDPA; then one GRPO step in bfloat16 under FlexAttention. The same
code runs on a CPU on the tiny widths, where packed rows stand for FlexAttention.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from omni_7b import REAL as REAL_MEDIA
from omni_7b import build_thinker

import tiny_families
from family_oracle import Oracle, random_batch
from omni_demo.model import build_processor, build_tokenizer
from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder
from omni_grpo.families import base_of
from omni_grpo.scoring import packing
from omni_grpo.scoring.packed_attention import PackedGroup, PackedLayout
from small_runs import SMALL_RUN, length_reward
from tiny_families import FAMILIES, TEXTS, media_settings

GROUP, TOKENS = 4, 32
RELATIVE = 1e-3  # of the gradient as a whole


def heads(queries: int, keys: int, size: int, *mrope: int) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": list(mrope)} if mrope else {}
    sizes = {"num_attention_heads": queries, "num_key_value_heads": keys, "head_dim": size}
    return sizes | ({"rope_parameters": rope} if rope else {})


def widths(hidden: int, inner: int) -> dict[str, Any]:
    return {"hidden_size": hidden, "intermediate_size": inner}


A3B = {"moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8}
A4B = {"moe_intermediate_size": 704, "num_experts": 128, "top_k_experts": 8}
LINEAR = {"linear_key_head_dim": 128, "linear_value_head_dim": 128}
LINEAR |= {"linear_num_key_heads": 16, "linear_num_value_heads": 32}
GEMMA = {"global_head_dim": 512, "num_kv_shared_layers": 2}

# The language models' widths in the published configurations: Qwen2.5-VL-7B, Qwen3-Omni-30B-A3B, Qwen3-VL-8B and
# -30B-A3B, Qwen3.5-9B, Qwen2-Audio-7B, Gemma 4 E4B and 26B-A4B. Qwen2.5-Omni-7B is `benchmarks/omni_7b.py`'s.
REAL: dict[str, dict[str, Any]] = {
    "qwen2_5_omni": {},
    "qwen3_omni": widths(2048, 768) | heads(32, 4, 128, 24, 20, 20) | A3B,
    "qwen2_5_vl": widths(3584, 18944) | heads(28, 4, 128, 16, 24, 24),
    "qwen3_vl": widths(4096, 12288) | heads(32, 8, 128, 24, 20, 20),
    "qwen3_vl_moe": widths(2048, 6144) | heads(32, 4, 128, 24, 20, 20) | A3B,
    "qwen3_5": widths(4096, 12288) | heads(16, 4, 256, 11, 11, 10) | LINEAR,
    "qwen2_audio": widths(4096, 11008) | heads(32, 32, 128),
    "gemma4": widths(2560, 10240)
    | heads(8, 2, 256)
    | GEMMA
    | {"sliding_window": 512, "hidden_size_per_layer_input": 256},
    "gemma4_moe": widths(2816, 2112)
    | heads(16, 8, 256)
    | {**GEMMA, **A4B, "attention_k_eq_v": True, "num_global_key_value_heads": 2, "num_kv_shared_layers": 0}
    | {"sliding_window": 1024, "hidden_size_per_layer_input": 0},
}


def build(name: str, fields: dict[str, Any], patch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """A family's processor and model, its language model with `fields`; the towers are brought to its width."""
    if name == "qwen2_5_omni" and fields is REAL[name]:
        processor = build_processor(build_tokenizer(TEXTS, REAL_MEDIA.vocab_size), REAL_MEDIA)
        return processor, build_thinker(processor, "cpu", is_tiny=False, text_layers=3).float()
    tiny = tiny_families.text_config

    def text_config(*args: Any, **kwargs: Any) -> dict[str, Any]:
        made = tiny(*args, **kwargs)
        rope = {**made["rope_parameters"], **fields.get("rope_parameters", {})}
        return {**made, **fields, "rope_parameters": rope}

    patch.setattr(tiny_families, "WIDTH", fields.get("hidden_size", tiny_families.WIDTH))
    patch.setattr(tiny_families, "text_config", text_config)
    return FAMILIES[name].build()


def trainer_of(name: str, built: tuple[Any, Any], dataset: Any, folder: str, on_cpu: bool) -> OmniGRPOTrainer:
    processor, model = built
    fields = {**SMALL_RUN, "use_cpu": on_cpu, "output_dir": folder, "max_steps": 1, "num_generations": GROUP}
    args = OmniGRPOConfig(**fields, per_device_train_batch_size=2 * GROUP, max_completion_length=TOKENS)
    encoder = PromptEncoder(processor, media_settings(name))
    return OmniGRPOTrainer(model, [length_reward], args, dataset, encoder=encoder)


def gradients_apart(trainer: Any, name: str, ways: tuple[tuple[str, bool], tuple[str, bool]]) -> float:
    """Distance of the gradients of two ways, an attention and whether prompts are shared, of the first one's length."""
    model, device = trainer.model.eval(), trainer.accelerator.device
    prompts = [trainer.encoder(row["prompt"], row["id"]) for row in trainer.train_dataset for _ in range(GROUP)]
    generator, lengths = torch.Generator().manual_seed(0), [TOKENS] * len(prompts)
    batch = random_batch(prompts, trainer.encoder.processor, lengths, generator)
    batch = batch._replace(input_ids=batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device))
    weights = [torch.randn(TOKENS, generator=generator).to(device) for _ in prompts]
    oracle = Oracle(FAMILIES[name], trainer, batch, lengths, weights, [], {}, {})
    found = []
    for attention, share in ways:
        base_of(model).config.get_text_config()._attn_implementation = attention
        found.append({name: gradient.cpu() for name, gradient in oracle.score(share)[1].items()})
    exact, other = found
    assert exact.keys() == other.keys()
    apart, norm = (
        sum(g.square().sum() for g in part) for part in ([other[n] - exact[n] for n in exact], exact.values())
    )
    return (apart / norm).sqrt().item()


def step(trainer: Any, name: str) -> None:
    """One GRPO step in bfloat16, which moves the language model."""
    trainer.model.zero_grad()
    trainer.model.bfloat16()
    before = {n: p.detach().cpu().clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    assert trainer.scorer.shares is FAMILIES[name].packs
    after = {n: p.detach().cpu() for n, p in trainer.model.named_parameters()}
    assert all(p.isfinite().all() for p in after.values())
    assert any("language_model.layers" in n and not torch.equal(p, before[n]) for n, p in after.items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", REAL)
def test_a_family_at_its_real_widths(dataset_of, tmp_path, monkeypatch, name):
    trainer = trainer_of(name, build(name, REAL[name], monkeypatch), dataset_of(name), str(tmp_path), on_cpu=False)
    sdpa = base_of(trainer.model).config.get_text_config()._attn_implementation
    apart = gradients_apart(trainer, name, ((sdpa, True), ("flex_attention", True)))
    print(f"{name}: gradients {apart:.2g} apart, {torch.cuda.max_memory_allocated() / 2**30:.1f} GB")
    assert apart <= RELATIVE
    step(trainer, name)


@pytest.mark.parametrize("name", ["qwen3_vl_moe", "gemma4"])
def test_the_gpu_check_runs_on_a_cpu(dataset_of, tmp_path, monkeypatch, name):
    """All but FlexAttention and the widths. Mutant: segments that see each other."""
    trainer = trainer_of(name, build(name, {}, monkeypatch), dataset_of(name), str(tmp_path), on_cpu=True)
    ways = (("shared_prompt_sdpa", False), ("shared_prompt_sdpa", True))
    assert gradients_apart(trainer, name, ways) <= RELATIVE
    step(trainer, name)
    trainer.model.float()

    def merged(groups: tuple[PackedGroup, ...]) -> PackedLayout:
        return PackedLayout(tuple(PackedGroup(group.prompt, (sum(group.segments),)) for group in groups))

    monkeypatch.setattr(packing, "PackedLayout", merged)
    assert gradients_apart(trainer, name, ways) > 10 * RELATIVE


@pytest.mark.parametrize("name", [name for name in REAL if REAL[name]])
def test_the_real_widths_can_be_built(monkeypatch, name):
    """On the meta device, which holds no weights."""
    with torch.device("meta"):
        model = build(name, REAL[name], monkeypatch)[1]
    layer = base_of(model).language_model.layers[-1]
    assert (
        layer.self_attn.q_proj.weight.shape[1]
        == REAL[name]["hidden_size"]
        == model.get_output_embeddings().in_features
    )
    assert layer.self_attn.head_dim == REAL[name].get("global_head_dim", REAL[name]["head_dim"])
