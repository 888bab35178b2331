# SPDX-License-Identifier: Apache-2.0
"""Each distinct media item goes through its encoder once: per pass where it trains, per generation batch where it is frozen."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from unittest import mock

import pytest
import torch
from peft import LoraConfig, get_peft_model

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder
from omni_grpo.data.dataset import to_dataset
from omni_grpo.data.encoding.inputs import MODALITIES, collate_media
from omni_grpo.data.encoding.prompt import encode_prompt
from omni_grpo.data.media.settings import MediaError
from omni_grpo.data.rows.loading import load_examples
from omni_grpo.data.rows.schema import Example, MediaItem
from omni_grpo.families import base_of, family_of_processor
from omni_grpo.model.feature_cache import FeatureCache, encoder_fingerprint
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.model.towers import attach_media_embedder, is_frozen

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def processor(tiny):
    return load_processor(tiny)


@pytest.fixture(scope="module")
def rows(processor, settings, mixed):
    encoder = PromptEncoder(processor, settings)
    return [encoder(row["prompt"], row["id"]) for row in mixed]


@pytest.fixture(scope="module")
def asked_twice(clips):
    """Two questions about one clip with its sound, and two about one image and another sound."""
    clip = MediaItem("video", str(clips / "clip0.mp4"), True)
    still = (MediaItem("image", str(clips / "image1.png")), MediaItem("audio", str(clips / "sound1.wav")))
    asked = [((clip,), "Is the face sad?"), ((clip,), "Does the voice agree?"), (still, "Who?"), (still, "Where?")]
    return to_dataset([Example(f"q{i}", text, "yes_no", "yes", media=m) for i, (m, text) in enumerate(asked)], "short")


DISTINCT = {"video": 1, "audio": 2, "image": 1}  # of `asked_twice`


def batch(rows, pad=0):
    longest = max(len(r.input_ids) for r in rows)
    ids = torch.tensor([[pad] * (longest - len(r.input_ids)) + r.input_ids for r in rows])
    mask = torch.tensor([[0] * (longest - len(r.input_ids)) + [1] * len(r.input_ids) for r in rows])
    return {"input_ids": ids, "attention_mask": mask}


def by_length(completions, **kwargs):
    return [float(len(c[-1]["content"]) % 7) for c in completions]


@pytest.fixture
def make(tiny, settings, asked_twice, processor, tmp_path):
    """A trainer whose generation batch is all of its rows, four completions each; two steps a batch, two iterations."""

    def build(dataset=asked_twice, model=None, eval_dataset=None, peft_config=None, **overrides):
        fields = {
            "output_dir": str(tmp_path),
            "per_device_train_batch_size": 8,
            "per_device_eval_batch_size": 4,
            "steps_per_generation": 2,
            "num_generations": 4,
            "num_iterations": 2,
            "beta": 0.1,
            "max_completion_length": 5,
            "max_steps": 4,
            "learning_rate": 1e-3,
            "freeze_vision": True,
            "freeze_audio": True,
            "shuffle_dataset": False,
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "save_strategy": "no",
        }
        return OmniGRPOTrainer(
            model or load_model(tiny),
            [by_length],
            OmniGRPOConfig(**{**fields, **overrides}),
            dataset,
            eval_dataset=eval_dataset,
            encoder=PromptEncoder(processor, settings),
            peft_config=peft_config,
        )

    return build


# What an item is


@pytest.mark.parametrize("interleaved", [False, True])
def test_every_item_has_its_key_and_comes_back(processor, settings, mixed_file, interleaved):
    """Mutant: keys in another order than the features, or none for the sound of a video."""
    settings = dataclasses.replace(settings, load_audio_from_video=interleaved)
    dataset = to_dataset(load_examples(mixed_file), "short", load_audio_from_video=interleaved)
    family = family_of_processor(processor)
    encoded = [encode_prompt(processor, row["prompt"], settings, row["id"]) for row in dataset]
    for row in encoded:
        for modality in MODALITIES:
            items = family.split(row.media, modality)
            keys = row.items.get(modality, ())
            assert [key.modality for key in keys] == [modality] * len(items)
    together = [row for row in encoded if "pixel_values_videos" not in row.media or not interleaved]
    media = collate_media(together)
    for modality in MODALITIES:
        if items := family.split(media, modality):
            joined = family.join(items, CPU)
            assert all(torch.equal(media[name], values) for name, values in joined.items())
    items = {m: [key for row in together for key in row.items.get(m, ())] for m in MODALITIES}
    assert all(len(items[m]) == len(family.split(collate_media(together), m)) for m in MODALITIES)


def test_what_makes_other_features_makes_another_item(processor, settings, mixed):
    prompt = next(row["prompt"] for row in mixed if len(row["prompt"][-1]["content"]) == 3)
    seen = encode_prompt(processor, prompt, settings).items
    silent = encode_prompt(processor, prompt, settings, blank=("audio",)).items
    larger = encode_prompt(processor, prompt, dataclasses.replace(settings, num_frames=4)).items
    assert silent["video"] == seen["video"]
    assert not set(silent["audio"]) & set(seen["audio"])
    assert not set(larger["video"]) & set(seen["video"])
    assert len({key for keys in seen.values() for key in keys}) == 2, "a clip's frames and its sound are two items"


# Once per pass


def test_rows_of_one_prompt_share_a_trainable_towers_pass_and_its_gradients(tiny, rows):
    """Mutants: features detached, or indexed by another row's items."""
    repeated = [rows[i] for i in (0, 2, 0, 3, 2, 1, 0, 6)]
    gradients, outputs = [], []
    for shares in (True, False):
        model = load_model(tiny).eval()
        embedder = attach_media_embedder(model)
        embedder.encodes_once = shares
        with embedder.expecting(repeated):
            logits = model(**batch(repeated), **collate_media(repeated)).logits
        torch.nn.functional.cross_entropy(logits[:, -4:].flatten(0, 1), torch.arange(32) % 7).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        outputs.append(logits)
        assert embedder.items == (
            {"audio": 3, "image": 1, "video": 3} if shares else {"audio": 6, "image": 2, "video": 5}
        )
        assert embedder.passes == {"audio": 1, "image": 1, "video": 1}
        assert embedder.placed == Counter({m: sum(r.counts[m] for r in repeated) for m in MODALITIES})
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    assert gradients[0].keys() == gradients[1].keys()
    assert any("audio_tower" in name for name in gradients[0]) and any("visual" in name for name in gradients[0])
    for name, wanted in gradients[1].items():
        assert (gradients[0][name] - wanted).norm() <= 1e-5 * wanted.norm() + 1e-9, name


# Once per generation batch


@pytest.mark.parametrize("share_prompt", ["auto", "off"])
def test_encoder_calls_are_the_distinct_items_of_a_generation_batch(make, share_prompt):
    """Sampling, reference, and two iterations over two micro-batches: one call of each tower in all."""
    trainer = make(max_steps=8, share_prompt=share_prompt)
    trainer.train()
    assert trainer.media_embedder.items == {m: 2 * n for m, n in DISTINCT.items()}, "two generation batches"
    assert trainer.media_embedder.passes == dict.fromkeys(DISTINCT, 2)
    assert trainer.scorer.reference_takes == set(MODALITIES)
    assert not +trainer.scorer.reference_media.items
    assert all(trainer.scorer.reference_media.placed[m] > 0 for m in MODALITIES), "the reference saw them all the same"


def test_media_are_shared_unless_that_is_off(make):
    """What `share_media: off` leaves is stock TRL's: every row's items in every pass. Mutant: once per pass."""
    trainer = make(share_media="off", share_prompt="off", causal_probe_steps=0)
    trainer.train()
    shown = {"video": 2, "audio": 4, "image": 2}  # by the four questions, each answered four times
    passes = 1 + 1 + 2  # sampling, old log-probabilities, two iterations
    assert trainer.media_embedder.items == {m: 4 * n * passes for m, n in shown.items()}
    assert trainer.scorer.reference_media.items == {m: 4 * n for m, n in shown.items()}
    with pytest.raises(ValueError, match="media_feature_cache: keeps what is shared"):
        make(share_media="off", media_feature_cache="features")
    with pytest.raises(ValueError, match="share_media: 'of' is unknown"):
        make(share_media="of")


def test_adapters_need_no_freezing(make):
    """LoRA leaves the base model fixed, its towers too; the reference is the policy with its adapters off."""
    lora = LoraConfig(r=4, target_modules=r".*language_model.*q_proj", init_lora_weights=False)
    trainer = make(peft_config=lora, freeze_vision=False, freeze_audio=False)
    trainer.train()
    assert trainer.media_embedder.items == DISTINCT


def test_weights_end_where_they_end_without_sharing(make):
    ends = []
    for shares in (True, False):
        trainer = make(share_prompt="off", share_media="auto" if shares else "off")
        trainer.train()
        ends.append(trainer.model.state_dict())
        assert (trainer.media_embedder.items == DISTINCT) == shares
    for name, wanted in ends[1].items():
        torch.testing.assert_close(ends[0][name], wanted, rtol=0, atol=2e-5, msg=name)


def test_one_frozen_tower_is_kept_and_the_other_runs(make):
    trainer = make(freeze_audio=False)
    trainer.train()
    assert trainer.media_embedder.items["video"] == DISTINCT["video"]
    assert trainer.media_embedder.passes["audio"] > 4, "sampling and four steps"
    assert trainer.scorer.reference_takes == {"image", "video"}
    assert trainer.scorer.reference_media.items.keys() == {"audio"}


def test_an_evaluation_between_two_iterations_drops_nothing(make, mixed):
    """And in evaluation a tower that otherwise trains is fixed, for a batch. Mutant: one store for both."""
    heard = mixed.select([4])  # one sound, of another file
    trainer = make(eval_dataset=heard, eval_strategy="steps", eval_steps=1, num_generations_eval=4)
    trainer.train()
    assert trainer.media_embedder.items == {**DISTINCT, "audio": DISTINCT["audio"] + 4}, "four evaluations"
    trains = make(eval_dataset=heard, freeze_audio=False, num_generations_eval=4)
    trains.evaluate()
    assert trains.media_embedder.items == {"audio": 1}, "sampling and loss"


def test_a_reference_with_other_towers_encodes_for_itself(make, tiny):
    from omni_grpo.model.loading import copy_weights

    def moved(policy):
        twin = copy_weights(policy)
        with torch.no_grad():
            base_of(twin).audio_tower.proj.bias.add_(0.1)
        return twin

    with mock.patch("omni_grpo.model.loading.copy_weights", moved):
        trainer = make()
    trainer.train()
    assert trainer.scorer.reference_takes == {"image", "video"}
    assert trainer.scorer.reference_media.items["audio"] > 0


def test_adapters_in_a_tower_keep_it_from_being_frozen(tiny):
    """Turned off for the reference, they give other features, whether or not they train."""
    model = get_peft_model(load_model(tiny), LoraConfig(r=2, target_modules=r".*audio_tower.*q_proj"))
    model.requires_grad_(False)
    thinker = base_of(model)
    assert is_frozen([thinker.visual])
    assert not is_frozen([thinker.audio_tower])


# Several processes


def test_towers_are_called_before_sampling_on_all_ranks_and_in_no_later_pass(tiny, rows):
    """A rank of text alone calls each on a dummy, and only then. Mutant: dummies in each pass, or in none."""
    text = [row for row in rows if not any(row.counts.values())]
    calls = []
    for mine in (rows, text):
        model = load_model(tiny).eval().requires_grad_(False)
        embedder, base = attach_media_embedder(model, MODALITIES), base_of(model)
        counted = Counter()
        for name in ("audio_tower", "visual"):
            getattr(base, name).register_forward_hook(lambda *_, name=name, counted=counted: counted.update([name]))
        encoded = embedder.encode(model, mine, CPU)
        calls.append(dict(counted))
        for _ in range(2):
            with embedder.expecting(encoded):
                model(**batch(encoded), **embedder.inputs(encoded, CPU))
            calls.append(dict(counted))
    assert calls == [{"audio_tower": 1, "visual": 2}] * 6


@pytest.mark.parametrize("mine", ["all", "text"])
def test_what_was_not_encoded_before_is_encoded_in_its_pass_on_all_ranks(tiny, rows, mine):
    """A tower that trains: its calls are the same on a rank without media. Mutant: no dummy where features came along."""
    mine = [row for row in rows if mine == "all" or not any(row.counts.values())]
    model = load_model(tiny).eval()
    embedder, counted = attach_media_embedder(model, MODALITIES), Counter()
    base_of(model).audio_tower.register_forward_hook(lambda *_: counted.update(["audio"]))
    base_of(model).visual.register_forward_hook(lambda *_: counted.update(["vision"]))
    encoded = [row.keeping(["image", "video"]) for row in embedder.encode(model, mine, CPU)]
    counted.clear()
    with embedder.expecting(encoded):
        model(**batch(encoded), **embedder.inputs(encoded, CPU))
    assert counted == {"audio": 1}


def test_features_are_the_passes_own(tiny, rows):
    """The same logits to the last bit whether features were made before the pass or in it. Mutant: rows swapped."""
    model = load_model(tiny).eval()
    embedder = attach_media_embedder(model)
    encoded = embedder.encode(model, rows, CPU)
    with torch.no_grad(), embedder.expecting(rows):
        within = model(**batch(rows), **embedder.inputs(rows, CPU)).logits
    with torch.no_grad(), embedder.expecting(encoded):
        before = model(**batch(rows), **embedder.inputs(encoded, CPU)).logits
    assert torch.equal(within, before)


# On disk


@pytest.fixture
def stored(tiny, rows, tmp_path):
    """Logits of the rows, and the embedder, of a fresh model that keeps features in one folder."""

    def run(model=None, max_gb=1.0):
        model = (model or load_model(tiny)).eval().requires_grad_(False)
        embedder = attach_media_embedder(model)
        prints = {m: encoder_fingerprint(embedder.family.tower(base_of(model), m), m) for m in MODALITIES}
        embedder.cache = FeatureCache(tmp_path / "features", prints, max_gb)
        encoded = embedder.encode(model, rows, CPU)
        with torch.no_grad(), embedder.expecting(encoded):
            return model(**batch(rows), **embedder.inputs(encoded, CPU)).logits, embedder

    return run


def test_a_second_run_encodes_nothing(stored, rows):
    first, embedder = stored()
    distinct = sum(len(keys) for row in rows for keys in row.items.values())
    assert sum(embedder.items.values()) == embedder.cache.saved == distinct
    second, embedder = stored()
    assert torch.equal(first, second)
    assert not +embedder.items
    assert embedder.cache.loaded == distinct


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "text"])
def test_a_damaged_entry_is_made_anew(stored, tmp_path, damage):
    """Mutant: no digest, which lets one flipped bit through."""
    first, embedder = stored()
    for entry in (tmp_path / "features").glob("*/*"):
        content = bytearray(entry.read_bytes())
        content[-2] ^= 64
        broken = {"cut": content[:-9], "bit": content, "empty": b"", "text": b"not a tensor"}[damage]
        entry.write_bytes(bytes(broken))
    second, embedder = stored()
    assert torch.equal(first, second)
    assert embedder.cache.saved == sum(embedder.items.values()) > 0
    third, embedder = stored()
    assert torch.equal(first, third)
    assert not +embedder.items


def test_other_weights_are_another_entry(stored, tiny):
    stored()
    model = load_model(tiny)
    with torch.no_grad():
        base_of(model).audio_tower.proj.bias.add_(0.1)
    moved, embedder = stored(model)
    assert embedder.items.keys() == {"audio"}, "the vision tower's features are found"
    model = load_model(tiny)
    with torch.no_grad():
        base_of(model).audio_tower.proj.bias.add_(0.1)
    model.requires_grad_(False).eval()
    assert torch.equal(stored(model)[0], moved)


def test_a_changed_file_is_another_entry(processor, settings, tiny, clips, tmp_path):
    sound = tmp_path / "sound.wav"
    prompt = [
        {"role": "user", "content": [{"type": "audio", "path": str(sound), "text": None, "audio_in_video": False}]}
    ]
    entries = []
    for k in (0, 1):
        sound.write_bytes((clips / f"sound{k}.wav").read_bytes())
        key = encode_prompt(processor, prompt, settings).items["audio"][0]
        entries.append(FeatureCache(tmp_path / "features", {"audio": "same"}).name_of(key))
    assert entries[0] != entries[1]


def test_a_writer_that_is_killed_leaves_no_entry(stored, tmp_path):
    with (
        mock.patch("omni_grpo.data.media.entry_store.os.replace", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        stored()
    assert {file.suffix for file in (tmp_path / "features").glob("*/*")} == {".tmp"}
    assert stored()[1].cache.loaded == 0


def test_the_folder_keeps_to_its_limit_and_loses_the_least_used(tmp_path, rows):
    keys = sorted({key for row in rows for keys in row.items.values() for key in keys}, key=str)
    limit = 70 * 2**10  # an entry takes 20 KB: room for three
    cache = FeatureCache(tmp_path, dict.fromkeys(MODALITIES, "weights"), max_gb=limit / 2**30)
    for i, key in enumerate(keys[:3]):
        cache.save(key, torch.zeros(64, 64))
        os.utime(next(tmp_path.glob(f"*/{cache.name_of(key)}*")), (i, i))
    assert cache.load(keys[0]) is not None, "used again: no longer the oldest"
    cache.save(keys[3], torch.zeros(64, 64))
    assert [cache.load(key) is not None for key in keys[:4]] == [True, False, True, True]
    assert sum(f.stat().st_size for f in tmp_path.glob("*/*")) <= limit


def test_features_of_another_length_are_refused_by_row(stored, tmp_path, rows):
    _, embedder = stored()
    cache = embedder.cache
    key = rows[4].items["audio"][0]
    cache.save(key, torch.zeros(3, 32))
    with pytest.raises(MediaError, match="row 'row4'"):
        stored()


def test_training_with_the_folder_ends_where_it_ends_without(make, tmp_path):
    ends, items = [], []
    for folder in (None, "features", "features"):
        trainer = make(media_feature_cache=folder and str(tmp_path / folder))
        trainer.train()
        ends.append(trainer.model.state_dict())
        items.append(sum(trainer.media_embedder.items.values()))
    assert items == [sum(DISTINCT.values())] * 2 + [0]
    assert all(torch.equal(ends[0][n], ends[1][n]) and torch.equal(ends[0][n], ends[2][n]) for n in ends[0])


def test_a_folder_for_a_tower_that_trains_is_refused(make, tmp_path):
    with pytest.raises(ValueError, match=r"audio trains.*freeze_audio: true"):
        make(freeze_audio=False, media_feature_cache=str(tmp_path / "features"))
    with pytest.raises(ValueError, match="media_feature_cache_gb"):
        make(media_feature_cache_gb=0)
