# SPDX-License-Identifier: Apache-2.0
"""Where vLLM is not installed, and for what it does not cover, a run that asks for it stops at its start."""

from __future__ import annotations

import importlib.util
from contextlib import nullcontext

import pytest
import torch
from peft import LoraConfig, get_peft_model

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer
from omni_grpo.families import FAMILIES, family_of, family_of_processor
from omni_grpo.families.family import Engine
from omni_grpo.model.loading import language_model_targets, load_model, load_processor
from omni_grpo.rollout.vllm.installed import engine_of, from_vllm
from omni_grpo.rollout.vllm.requests import runs
from omni_grpo.rollout.vllm.weights import merged, renamed
from small_runs import SMALL_RUN, length_reward


def test_what_is_sent_holds_the_adapters_and_the_base_stays_as_it_is_to_the_bit(tiny):
    """In bfloat16. Mutant: TRL's own way, to merge and to take out again."""
    config = LoraConfig(r=4, lora_alpha=64, target_modules=language_model_targets(["q_proj", "gate_proj"]))
    model = get_peft_model(load_model(tiny, dtype="bfloat16"), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    base = {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" not in n}

    def changed():
        return [n for n, p in model.named_parameters() if n in base and not torch.equal(p, base[n])]

    sent = [{n: w.clone() for n, w in merged(model, lambda _: nullcontext())} for _ in range(3)]
    assert changed() == [] and all(torch.equal(sent[0][n], sent[2][n]) for n in sent[0])
    plain = dict(load_model(tiny, dtype="bfloat16").named_parameters())
    moved = {n for n, w in sent[0].items() if not torch.equal(w, plain[n])}
    assert moved and all(n.rsplit(".", 2)[1] in ("q_proj", "gate_proj") for n in moved)
    model.merge_adapter()
    whole = {n.replace(".base_layer", ""): p.clone() for n, p in model.get_base_model().named_parameters()}
    assert sent[0].keys() == {n for n in whole if "lora_" not in n} == plain.keys()
    assert all(torch.allclose(w, whole[n], rtol=1e-2, atol=1e-3) for n, w in sent[0].items())
    model.unmerge_adapter()
    assert changed() != []


@pytest.fixture
def absent(monkeypatch):
    """As if vLLM were not here, also where it is."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "omni_grpo.rollout.vllm.installed.find_spec", lambda name: None if name == "vllm" else find(name)
    )


def test_the_command_that_installs_it_is_named(tiny, mixed, tmp_path, absent):
    args = OmniGRPOConfig(**{**SMALL_RUN, "output_dir": str(tmp_path), "use_vllm": True, "num_generations": 2})
    with pytest.raises(ImportError, match=r"use_vllm: vLLM is not installed here; `make setup-vllm`"):
        OmniGRPOTrainer(tiny, [length_reward], args, mixed)


def test_a_part_that_its_version_lacks_is_named():
    with pytest.raises(ImportError, match=r"vLLM has no nowhere:Thing here .*`make setup-vllm`"):
        from_vllm("nowhere:Thing")


@pytest.mark.parametrize(
    "family", [f for f in FAMILIES if not isinstance(f.engine, Engine)], ids=lambda f: f.model_class
)
def test_a_family_that_is_not_covered_is_refused_with_the_reason(family):
    with pytest.raises(NotImplementedError, match=rf"use_vllm: {family.model_class}: .+; set `use_vllm: false`"):
        engine_of(family)


def test_three_families_are_covered():
    assert sum(isinstance(family.engine, Engine) for family in FAMILIES) == 3


def test_runs_of_placeholders_cover_each_once(tiny, monkeypatch):
    placeholders = family_of_processor(processor := load_processor(tiny)).placeholders(processor)
    video, audio = placeholders["video"], placeholders["audio"]
    ids = [50, video, video, audio, video, video, video, 51, audio]
    assert list(runs(ids, placeholders)) == [("video", 1, 3), ("audio", 3, 4), ("video", 4, 7), ("audio", 8, 9)]
    monkeypatch.setattr("omni_grpo.rollout.vllm.requests.LONGEST", 2)
    assert [run for run in runs(ids, placeholders) if run[0] == "video"] == [
        ("video", 1, 3),
        ("video", 4, 6),
        ("video", 6, 7),
    ]


def test_the_language_model_goes_under_other_names_and_the_towers_stay(tiny):
    model = load_model(tiny)
    weights = dict(renamed(model.named_parameters(), engine_of(family_of(model)).names))
    assert len(weights) == len(
        [n for n, _ in model.named_parameters() if "visual" not in n and "audio_tower" not in n]
    )
    assert torch.equal(weights["thinker.lm_head.weight"], model.lm_head.weight)
    assert all(name.startswith("thinker.") for name in weights)
