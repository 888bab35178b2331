# SPDX-License-Identifier: Apache-2.0
"""Every family through the entry scripts: cold start, reinforcement, evaluation, a question; and its refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig
from safetensors.torch import load_file
from torch import nn
from trl import ModelConfig

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, OmniSFTConfig, OmniSFTTrainer, PromptEncoder
from omni_grpo.data.media.settings import MediaError, MediaSettings
from omni_grpo.data.rows.schema import DataError
from omni_grpo.families import base_of, family_of
from omni_grpo.model.loading import language_model_targets, load_model, load_processor
from omni_grpo.run.scripts import peft_config
from omni_grpo.scoring.packing import pack_rows
from omni_grpo.scoring.scorer import Batch
from small_runs import SCRIPT_RUN, SMALL_RUN, length_reward
from tiny_families import FAMILIES, media_settings

WHOLE = [name for name in FAMILIES if "-" not in name]  # the others are read, or see, in another way alone
WITH_EXPERTS = [name for name in WHOLE if FAMILIES[name].experts]
BALANCED = [name for name in WITH_EXPERTS if name != "gemma4_moe"]  # whose models have a loss for their router
TRAINED = {"learning_rate": 1e-3, "per_device_train_batch_size": 4, "logging_steps": 1, "save_strategy": "no"}


@pytest.fixture
def file_of(rows_of, clips) -> Callable[[str], Path]:
    """The rows of a family as a JSONL file beside their media."""

    def write(name: str) -> Path:
        kept = ("id", "problem", "problem_type", "solution", "target")
        rows = [
            {k: getattr(e, k) for k in kept} | {"media": [{"type": m.type, "path": m.path} for m in e.media]}
            for e in rows_of(name)
        ]
        path = clips / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.mark.parametrize("name", WHOLE)
def test_two_steps_of_sft_three_of_rl_then_evaluated_and_asked(checkpoint, file_of, clips, tmp_path, capsys, name):
    """Mixed media; each stage starts from what the one before it has saved, and both have moved every tower."""
    file, side = str(file_of(name)), FAMILIES[name].side
    media = {
        "num_frames": FAMILIES[name].frames,
        "min_pixels": side**2,
        "max_pixels": side**2,
        "max_audio_seconds": 3.0,
    }

    def run(script: str, **fields) -> Path:
        folder = tmp_path / script
        config = folder.with_suffix(".yaml")
        config.write_text(yaml.safe_dump({**media, "output_dir": str(folder), **fields}))
        import_module(script).main(["--config", str(config)])
        return folder

    common = {**SCRIPT_RUN, **TRAINED, "train_file": file}
    sft = run("sft_omni", model_name_or_path=checkpoint(name), max_steps=2, **common)
    rl_fields = {"reward_funcs": ["killed_run.letters_reward"], "num_generations": 2, "max_completion_length": 6}
    rl = run("grpo_omni", model_name_or_path=str(sft), max_steps=3, share_prompt="auto", **rl_fields, **common)
    start, middle, end = (load_model(str(path)).state_dict() for path in (checkpoint(name), sft, rl))
    assert start.keys() == middle.keys() == end.keys(), "nothing was lost on the way"
    for before, after in ((start, middle), (middle, end)):
        moved = [key for key in before if not torch.equal(before[key], after[key])]
        assert any("language_model" in key for key in moved)
        for modality in family_of(load_model(str(rl))).modalities:
            towers = family_of(load_model(str(rl))).towers[modality]
            assert any(tower in key for key in moved for tower in towers), modality
    fields = {**media, "prompt_style": "short", "max_new_tokens": 6, "batch_size": 4, "decode_cache_mb": 0}
    evaluated = run("eval_omni", models=[f"rl={rl}"], test_file=file, **fields)
    assert json.loads((evaluated / "rl" / "metrics.json").read_text())
    capsys.readouterr()
    kind = FAMILIES[name].modalities[0]
    shown = {"image": ["--image", str(clips / "image0.png")], "audio": ["--audio", str(clips / "sound0.wav")]}[kind]
    words = ["--model", str(rl), *shown, "--question", "What?", "--max_new_tokens", "6", "--raw"]
    import_module("ask_omni").main(words)
    assert capsys.readouterr().out.strip()


def trainer_of(name: str, checkpoint, dataset, tmp_path, model=None, settings=None, **overrides) -> OmniGRPOTrainer:
    peft_config = overrides.pop("peft_config", None)
    fields = {"output_dir": str(tmp_path), "num_generations": 2, "per_device_train_batch_size": 4, "max_steps": 1}
    return OmniGRPOTrainer(
        model or load_model(checkpoint(name)),
        [length_reward],
        OmniGRPOConfig(**{**SMALL_RUN, **fields, "max_completion_length": 5, **overrides}),
        dataset,
        encoder=PromptEncoder(load_processor(checkpoint(name)), settings or media_settings(name)),
        peft_config=peft_config,
    )


@pytest.mark.parametrize("stage", ["sft", "rl"])
@pytest.mark.parametrize("name", WHOLE)
def test_lora_stays_in_the_language_model(checkpoint, dataset_of, tmp_path, name, stage):
    """
    What is adapted, by name: linear layers of the language model, routed experts not among them; and a saved adapter is
    merged into the same. Mutant: the expression as it is, of which PEFT makes plain names where experts are routed.
    """
    lora = LoraConfig(r=2, target_modules=language_model_targets(None), init_lora_weights=False)
    if stage == "rl":
        trainer = trainer_of(name, checkpoint, dataset_of(name), tmp_path, peft_config=lora)
    else:
        encoder = PromptEncoder(load_processor(checkpoint(name)), media_settings(name))
        args = OmniSFTConfig(**SMALL_RUN, output_dir=str(tmp_path), max_steps=1)
        model = load_model(checkpoint(name))
        trainer = OmniSFTTrainer(model, args, dataset_of(name), encoder=encoder, peft_config=lora)
    adapted = {n.split(".lora_A")[0] for n, _ in trainer.model.named_parameters() if ".lora_A." in n}
    assert len(adapted) == FAMILIES[name].linears
    layer = r".*\.language_model\.layers\.\d+\.(self_attn|mlp)\.[a-z]+_proj"
    assert all(re.fullmatch(layer, n) for n in adapted), sorted(adapted)
    assert not any("lora_" in n and "experts" in n for n, _ in trainer.model.named_parameters())
    trainer.save_model(str(tmp_path / "adapter"))
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(saved) == 2 * len(adapted)
    merged = load_model(str(tmp_path / "adapter")).state_dict()
    base = load_model(checkpoint(name)).state_dict()
    moved = {n.removesuffix(".weight") for n in base if not torch.equal(base[n], merged[n])}
    assert moved == {n.removeprefix("base_model.model.") for n in adapted}


@pytest.mark.parametrize("name", WITH_EXPERTS[:1])
def test_an_adapter_that_was_written_out_trains_on(checkpoint, dataset_of, tmp_path, name):
    """The next stage's fields are the same, and mean the same; other targets are refused."""
    asked = {"use_peft": True, "lora_r": 2, "lora_dropout": 0.0}

    def config(model: str, *targets: str):
        return peft_config(ModelConfig(model_name_or_path=model, lora_target_modules=[*targets], **asked))

    lora = config(checkpoint(name), "q_proj", "v_proj")
    trainer_of(name, checkpoint, dataset_of(name), tmp_path, peft_config=lora).save_model(str(tmp_path / "adapter"))
    assert config(str(tmp_path / "adapter"), "q_proj", "v_proj") is None
    with pytest.raises(ValueError, match=r"lora_target_modules: .* is an adapter that says otherwise"):
        config(str(tmp_path / "adapter"), "k_proj")


@pytest.mark.parametrize("name", ["qwen2_5_vl"])
def test_rows_with_what_a_family_lacks_are_refused_by_name(checkpoint, dataset_of, file_of, tmp_path, name):
    """By both trainers, by the preflight of the scripts, and by whatever encodes. Mutant: the sound is left out."""
    omni = dataset_of("qwen2_5_omni")
    lacking = [row["id"] for row in omni if any(p["type"] == "audio" for p in row["prompt"][-1]["content"])]
    said = "shows audio; this model takes image, video: drop the row, or choose a model that takes it"
    with pytest.raises(DataError, match=said) as error:
        trainer_of(name, checkpoint, omni, tmp_path)
    assert re.findall(r"row '(\w+)'", str(error.value)) == lacking
    encoder = PromptEncoder(load_processor(checkpoint(name)), media_settings(name))
    with pytest.raises(DataError, match=said):
        args = OmniSFTConfig(**SMALL_RUN, output_dir=str(tmp_path))
        OmniSFTTrainer(load_model(checkpoint(name)), args, omni, encoder=encoder)
    row = next(row for row in omni if row["id"] == lacking[0])
    with pytest.raises(MediaError, match=f"row '{lacking[0]}': {said}"):
        encoder(row["prompt"], row["id"])
    config = tmp_path / "run.yaml"
    fields = {**SCRIPT_RUN, "train_file": str(file_of("qwen2_5_omni")), "output_dir": str(tmp_path / "run")}
    config.write_text(yaml.safe_dump({**fields, "model_name_or_path": checkpoint(name), "max_steps": 1}))
    with pytest.raises(ValueError, match=said):
        import_module("sft_omni").main(["--config", str(config)])
    kept = omni.filter(lambda row: row["id"] not in lacking)  # the remedy
    trainer_of(name, checkpoint, kept, tmp_path).train()


def test_a_checkpoint_without_a_tower_refuses_what_it_would_hear(checkpoint, dataset_of, tmp_path):
    """Large Gemma 4 models have no audio tower, but the family's processor."""
    model = load_model(checkpoint("gemma4"))
    base_of(model).audio_tower = base_of(model).embed_audio = None
    with pytest.raises(DataError, match="row 'row3': shows audio; this model takes image, video: drop the row"):
        trainer_of("gemma4", checkpoint, dataset_of("gemma4"), tmp_path, model)


def test_a_processor_of_another_family_is_refused(checkpoint, dataset_of, tmp_path):
    with pytest.raises(ValueError, match="is a Qwen2_5_VLProcessor, the model's is a Qwen3VLProcessor; load both"):
        trainer_of("qwen2_5_vl", checkpoint, dataset_of("qwen2_5_vl"), tmp_path, load_model(checkpoint("qwen3_vl")))


@pytest.mark.parametrize(("name", "multiple"), [("qwen2_5_omni", 28), ("qwen2_5_vl", 28), ("qwen3_vl", 32)])
def test_pictures_are_sized_for_the_models_patches(checkpoint, name, multiple):
    """Mutant: 28 for all, which patches of 16 pixels do not fill."""
    processor = load_processor(checkpoint(name))
    assert PromptEncoder(processor, MediaSettings()).settings.pixel_multiple == multiple
    wrong = MediaSettings(pixel_multiple=multiple + 4)
    with pytest.raises(ValueError, match=f"pixel_multiple: {multiple + 4} is no multiple of {multiple}") as error:
        PromptEncoder(processor, wrong)
    remedy = int(re.search(r"set it to (\d+)", str(error.value))[1])
    settings = MediaSettings(**{**asdict(wrong), "pixel_multiple": remedy})
    assert PromptEncoder(processor, settings).settings == settings
    with pytest.raises(ValueError, match="frame_multiple: 3 is no multiple of 2"):
        PromptEncoder(processor, MediaSettings(frame_multiple=3, num_frames=3))


@pytest.mark.parametrize("name", BALANCED)
def test_the_routers_loss_is_the_same_packed(checkpoint, dataset_of, tmp_path, name):
    """
    Its value and the gates' gradients, a masked completion among the rows. Mutants: a prompt counts once for all its
    completions; the last token of a completion, or the prompt of a masked one, is left out.
    """
    trainer = trainer_of(name, checkpoint, dataset_of(name), tmp_path)
    assert trainer.aux_loss_enabled
    prompts = [trainer.encoder(row["prompt"], row["id"]) for row in dataset_of(name) for _ in range(3)]
    width = max(len(p.input_ids) for p in prompts)
    ids, mask = torch.zeros(len(prompts), width + 6, dtype=torch.long), torch.zeros(len(prompts), width + 6).long()
    for i, prompt in enumerate(prompts):
        end = width + (6, 2, 0)[i % 3] * (i > 2)  # all of the first prompt's are masked
        ids[i, width - len(prompt.input_ids) : width] = torch.tensor(prompt.input_ids)
        ids[i, width:end] = torch.arange(300, 300 + end - width)
        mask[i, width - len(prompt.input_ids) : end] = 1
    batch, found = Batch(prompts, ids, mask, 6), {}
    for way in ("plain", "packed"):
        trainer.model.zero_grad()
        packed = pack_rows(trainer.model, *batch, True) if way == "packed" else None
        scores = trainer.scorer.score(trainer.model, batch, packed, aux_loss=True)
        scores.aux_loss.backward()
        gates = [p.grad for n, p in trainer.model.named_parameters() if "gate.weight" in n]
        assert len(gates) == 3
        found[way] = [scores.aux_loss.detach(), *gates, scores.logps.detach() * mask[:, -6:]]
    for plain, packed in zip(found["plain"], found["packed"], strict=True):
        torch.testing.assert_close(packed, plain, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["gemma4_moe"])
def test_a_routers_loss_that_a_model_does_not_have_is_refused(checkpoint, dataset_of, tmp_path, name):
    """transformers' Gemma 4 returns no loss of its router. Without the field there is none, and it trains."""
    assert not trainer_of(name, checkpoint, dataset_of(name), tmp_path).aux_loss_enabled
    with pytest.raises(ValueError, match=r"`router_aux_loss_coef` is set to 0\.1 but Gemma4"):
        trainer_of(name, checkpoint, dataset_of(name), tmp_path, router_aux_loss_coef=0.1)


@pytest.mark.parametrize("name", BALANCED[:1])
def test_constrained_decoding_without_the_routers_loss(checkpoint, dataset_of, tmp_path, name):
    """Refused with it, and the remedy goes through."""
    fields = {"constrained_decoding": "strict", "max_completion_length": 80}
    with pytest.raises(ValueError, match="set `router_aux_loss_coef: 0`"):
        trainer_of(name, checkpoint, dataset_of(name), tmp_path, **fields)
    trainer_of(name, checkpoint, dataset_of(name), tmp_path, router_aux_loss_coef=0.0, **fields).train()


@pytest.mark.parametrize("name", WITH_EXPERTS)
def test_routed_experts_are_no_linear_layers(checkpoint, name):
    """Why LoRA leaves them as they are."""
    named = base_of(load_model(checkpoint(name))).language_model.named_modules()
    experts = [m for n, m in named if n.endswith(".experts")]
    assert len(experts) >= 3
    assert not any(isinstance(m, nn.Linear) for layer in experts for m in layer.modules())
