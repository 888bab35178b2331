# SPDX-License-Identifier: Apache-2.0
"""The hook puts into the model what the model's own forward would, and refuses what it would let through."""

from __future__ import annotations

import pytest
import torch

from omni_grpo.data.encoding.encoder import PromptEncoder
from omni_grpo.data.encoding.inputs import collate_media
from omni_grpo.data.encoding.prompt import encode_prompt
from omni_grpo.data.media.settings import MediaError
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.model.towers import attach_media_embedder


@pytest.fixture
def model(tiny):
    return load_model(tiny).eval()


@pytest.fixture(scope="module")
def rows(tiny, settings, mixed):
    encoder = PromptEncoder(load_processor(tiny), settings)
    return [encoder(row["prompt"], row["id"]) for row in mixed]


def batch(rows, pad=0):
    """Left-padded ids and mask, and the media of all rows."""
    longest = max(len(r.input_ids) for r in rows)
    ids = torch.tensor([[pad] * (longest - len(r.input_ids)) + r.input_ids for r in rows])
    mask = torch.tensor([[0] * (longest - len(r.input_ids)) + [1] * len(r.input_ids) for r in rows])
    return {"input_ids": ids, "attention_mask": mask, **collate_media(rows)}


def test_equals_the_models_own_forward(model, rows):
    """Mutant: towers in another order, or features placed row-wise instead of in reading order."""
    own = model(**batch(rows)).logits
    embedder = attach_media_embedder(model)
    with embedder.expecting(rows):
        hooked = model(**batch(rows)).logits
    assert torch.equal(own, hooked)
    assert all(embedder.rows[m] == sum(r.counts[m] for r in rows) > 0 for m in ("audio", "image", "video"))


def test_a_batch_equals_its_rows_alone(model, rows):
    embedder = attach_media_embedder(model)
    together = model(**batch(rows)).logits[:, -1]
    for i, row in enumerate(rows):
        with embedder.expecting([row]):
            alone = model(**batch([row])).logits[0, -1]
        torch.testing.assert_close(alone, together[i], rtol=0, atol=2e-5)


def test_generation_sees_the_media_once_and_equals_the_models_own(model, rows):
    own = model.generate(**batch(rows), max_new_tokens=6, do_sample=False)
    embedder = attach_media_embedder(model)
    with embedder.expecting(rows):
        hooked = model.generate(**batch(rows), max_new_tokens=6, do_sample=False)
    assert torch.equal(own, hooked)
    assert embedder.passes == {"audio": 1, "image": 1, "video": 1}, "towers ran again while decoding"


@pytest.mark.parametrize("modality, key", [("video", "pixel_values_videos"), ("audio", "input_features")])
def test_missing_features_stop_the_pass(model, rows, modality, key):
    """What stock TRL does when it scores a video prompt: the model itself takes it without a word."""
    inputs = batch(rows)
    del inputs[key]
    model(**inputs)
    embedder = attach_media_embedder(model)
    with embedder.expecting(rows), pytest.raises(MediaError, match=rf"{modality} placeholders in rows \['row0'"):
        model(**inputs)


def test_surplus_sounds_stop_the_pass(model, rows):
    """The model itself would ignore the surplus and give rows other rows' sounds."""
    heard = [r for r in rows if r.counts["audio"]]
    inputs = batch(heard) | {k: v for k, v in collate_media([heard[0], *heard]).items() if "feature" in k}
    model(**inputs)
    attach_media_embedder(model)
    with pytest.raises(MediaError, match="encoded audio rows"):
        model(**inputs)


def test_rows_that_came_apart_from_their_media_are_named(model, rows):
    embedder = attach_media_embedder(model)
    rolled = [*rows[1:], rows[0]]
    with embedder.expecting(rolled), pytest.raises(MediaError, match="row 'row1'"):
        model(**batch(rows))


@pytest.mark.parametrize("blank", ["audio", "video", "image"])
def test_blanking_a_modality_changes_the_logits(model, tiny, settings, mixed, blank):
    processor = load_processor(tiny)
    row = next(r for r in mixed if any(p["type"] == blank for p in r["prompt"][-1]["content"]))
    seen, unseen = (encode_prompt(processor, row["prompt"], settings, "r", blank=b) for b in ((), (blank,)))
    assert seen.input_ids == unseen.input_ids
    assert (model(**batch([seen])).logits - model(**batch([unseen])).logits).abs().max() > 1e-4
