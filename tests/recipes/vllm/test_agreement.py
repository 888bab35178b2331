# SPDX-License-Identifier: Apache-2.0
"""Three GRPO steps by vLLM: each sampled token's log-probability is the policy's own; and what breaks that is seen."""

from __future__ import annotations

from unittest import mock

import pytest
from peft import LoraConfig

import text_models
import tiny_families
from omni_grpo.data.media.settings import MediaError, MediaSettings
from omni_grpo.families.family import Family
from omni_grpo.model.loading import language_model_targets, load_model
from omni_grpo.rollout.vllm import requests
from omni_grpo.rollout.vllm.generation import FeatureGeneration
from vllm_runs import BASE, watched

pytestmark = pytest.mark.vllm
CLOSE = 1e-5  # nats, float32
SEEN = 1e-2  # what a fault makes of it, at least
FROZEN = {"freeze_vision": True, "freeze_audio": True}
SMALL = {"num_frames": 2, "min_pixels": 56 * 56, "max_pixels": 56 * 56, "max_audio_seconds": 3.0}


def lora():
    return LoraConfig(r=4, lora_alpha=16, target_modules=language_model_targets(["q_proj", "v_proj", "gate_proj"]))


def differences(trainer):
    """The largest of each batch that was sampled, in nats."""
    trainer.train()
    return trainer.sampler.differences


def test_rows_of_all_kinds(rows, tmp_path):
    found = differences(watched(tmp_path, rows, **FROZEN))
    assert len(found) == 3 and max(found) < CLOSE


def test_interleaved_sound(interleaved, tmp_path):
    settings = MediaSettings(**SMALL, load_audio_from_video=True)
    assert max(differences(watched(tmp_path, interleaved, settings=settings, **FROZEN))) < CLOSE


def test_towers_that_train(rows, tmp_path):
    trainer = watched(tmp_path, rows)
    before = trainer.media_embedder.items.copy()
    assert max(differences(trainer)) < CLOSE
    assert trainer.media_embedder.items - before


def test_a_reference_and_evaluations_in_between(rows, tmp_path):
    evaluated = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 6, "num_generations_eval": 2}
    trainer = watched(tmp_path, rows, eval_dataset=rows, beta=0.04, **evaluated, **FROZEN)
    found = differences(trainer)
    assert len(found) > 6 and max(found) < CLOSE


def test_adapters(rows, tmp_path):
    assert max(differences(watched(tmp_path, rows, peft_config=lora(), **FROZEN))) < CLOSE


def test_another_type_than_float32_is_refused_on_a_cpu(rows, tmp_path):
    with pytest.raises(NotImplementedError, match=r"use_vllm: on a CPU in float32 alone; set `dtype: float32`"):
        watched(tmp_path, rows, load_model(str(BASE), dtype="bfloat16"), **FROZEN)


def test_items_longer_than_vllm_has_room_for(rows, tmp_path):
    with mock.patch.object(requests, "LONGEST", 5):
        assert max(differences(watched(tmp_path, rows, **FROZEN))) < CLOSE


def test_a_model_without_sound(pictures, tmp_path):
    sizes, rope = (
        tiny_families.text_config,
        tiny_families.rope(32),
    )  # vLLM's attention on CPUs takes heads of 32 and up
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "rope_parameters": rope}
    with mock.patch.multiple(
        tiny_families, WIDTH=64, text_config=lambda *given, **more: sizes(*given, **more, **heads)
    ):
        tiny_families.save_tiny("qwen2_5_vl", tmp_path / "vl")
    assert max(differences(watched(tmp_path / "run", pictures, checkpoint=tmp_path / "vl", **FROZEN))) < CLOSE


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_a_model_of_text_alone(words, tmp_path, kind):
    """Its own architecture in vLLM, not a subclass that places media. vLLM's attention on CPUs takes heads of 32 and up."""
    name, more = text_models.KINDS[kind]
    sizes = mock.patch.dict(text_models.SIZE, hidden_size=64, num_attention_heads=2)
    with sizes, mock.patch.dict(text_models.KINDS, {kind: (name, more | {"head_dim": 32})}):
        path = text_models.tiny_text(tmp_path / "text", ["Is the sea red?", "no", "yes"], kind, spread=0.3)
    found = differences(watched(tmp_path / "run", words, checkpoint=path))
    assert len(found) == 3 and max(found) < CLOSE


# Faults, each of which is seen.


def test_weights_that_are_not_sent(rows, tmp_path):
    sync, times = FeatureGeneration.sync_weights, []

    def once(self):
        if not times:
            sync(self)
        times.append(self)

    with mock.patch.object(FeatureGeneration, "sync_weights", once):
        first, *others = differences(watched(tmp_path, rows, **FROZEN))
    assert len(times) == 3 and first < CLOSE and max(others) > SEEN


def test_features_from_before_the_towers_step(rows, tmp_path):
    trainer, kept = watched(tmp_path, rows), {}
    encode = trainer.media_embedder.encode

    def stale(model, prompts, device):
        return [kept.setdefault(p.name, p) for p in encode(model, prompts, device)]

    with mock.patch.object(trainer.media_embedder, "encode", stale):
        first, *others = differences(trainer)
    assert first < CLOSE and max(others) > SEEN


def test_an_item_known_by_its_size_and_not_by_its_features(rows, tmp_path):
    """vLLM keeps what it has encoded: under the same hash it takes another item's features, or those of older weights."""

    class BySize:
        def __init__(self, digest_size):
            self.size = 0

        def update(self, data):
            self.size += len(data)

        def hexdigest(self):
            return str(self.size)

    with mock.patch.object(requests.hashlib, "blake2b", BySize):
        assert max(differences(watched(tmp_path, rows, **FROZEN))) > SEEN


def test_positions_shifted_by_one_behind_the_media(rows, tmp_path):
    positions = Family.positions

    def shifted(self, head, input_ids, media):
        found = positions(self, head, input_ids, media).clone()
        found[:, len(input_ids) - 3 :] += 1
        return found

    trainer = watched(tmp_path, rows, **FROZEN)
    with mock.patch.object(Family, "positions", shifted):
        assert max(differences(trainer)) > 1e-3


def test_a_run_of_placeholders_too_short(rows, tmp_path):
    runs = requests.runs

    def shorter(ids, placeholders):
        *others, (modality, start, end) = runs(ids, placeholders)
        yield from (*others, (modality, start, end - 1))

    with mock.patch.object(requests, "runs", shorter), pytest.raises(MediaError, match="several"):
        watched(tmp_path, rows.select([0] * 6), **FROZEN).train()
