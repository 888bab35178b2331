# SPDX-License-Identifier: Apache-2.0
"""
Every family against its own forward: what is packed, prefilled once and encoded once gives the numbers that the model
of transformers, without a hook of ours, gives row by row.
"""

from __future__ import annotations

import pytest
import torch

from family_oracle import NATS
from omni_grpo.data.media.settings import MediaError
from omni_grpo.families import base_of, family_of
from omni_grpo.families.family import Family
from omni_grpo.model.loading import load_model
from omni_grpo.model.towers import attach_media_embedder
from omni_grpo.scoring import packed_attention
from tiny_families import FAMILIES


@pytest.mark.parametrize("way", ["plain", "packed", "encoded once"])
def test_scores_and_gradients_are_the_models_own(oracle, way):
    """Text alone, each modality, all, and all in another order; completions of unequal lengths, prompts padded."""
    logps, gradients = oracle.score(share=way != "plain", encoded=way == "encoded once")
    assert oracle.apart(logps) <= NATS
    if way == "encoded once":  # nothing reaches a tower whose features are brought
        return
    assert oracle.trainer.scorer.shares is oracle.family.packs
    own = {name: g for name, g in oracle.gradients.items() if g.abs().max() > 0}
    assert own.keys() <= gradients.keys()
    largest = max(g.abs().max() for g in own.values())
    for name, gradient in own.items():
        scale = max(gradient.abs().max(), 1e-4 * largest)  # of what is rounding alone, relative errors say nothing
        assert (gradients[name] - gradient).abs().max() <= oracle.family.relative * scale, name


def test_greedy_tokens_are_the_models_own(oracle):
    assert oracle.sampled() == oracle.tokens


@pytest.mark.parametrize("name", [name for name in FAMILIES if "-" not in name])
def test_dummies_change_nothing_and_reach_all_that_media_reach(make, checkpoint, name):
    """
    What a rank with text alone runs: the same logits, and a gradient of zero for each weight of the towers that has one
    elsewhere, so that collective operations meet. Mutants: embeddings given beside ids, which some models refuse; the
    first level of a dummy's features alone.
    """
    model, ids = load_model(checkpoint(name)).eval(), torch.arange(300, 320)[None]
    plain = model(input_ids=ids).logits
    family, base = family_of(model), base_of(model)
    attach_media_embedder(model, family.modalities)
    logits = model(input_ids=ids).logits
    assert torch.equal(logits, plain)
    logits.sum().backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} >= make(name).gradients.keys()
    towers = [p.grad for m in family.modalities for part in family.tower(base, m) for p in part.parameters()]
    assert towers and not any(grad.any() for grad in towers if grad is not None)


def without_deepstack(self, base, modality, rows, encoded=Family.encoded):
    if rows.ndim == 3:
        rows = torch.cat([rows[:, :1], torch.zeros_like(rows[:, 1:])], dim=1)
    return encoded(self, base, modality, rows)


def shifted(self, head, input_ids, media, positions=Family.positions):
    """The last quarter of a prompt one further: a shift of all would change nothing."""
    where = positions(self, head, input_ids, media)
    return where + (torch.arange(where.size(1)) > 0.75 * where.size(1))


def rolled(self, base, modality, rows, encoded=Family.encoded):
    return encoded(self, base, modality, rows.roll(1, dims=0))


def without_types(self, base, input_ids, types=Family.types):
    return {name: torch.zeros_like(values) for name, values in types(self, base, input_ids).items()}


MUTANTS = {
    "deepstack": (Family, "encoded", without_deepstack),
    "positions": (Family, "positions", shifted),
    "another item": (Family, "encoded", rolled),
    "token types": (Family, "types", without_types),
    "window": (packed_attention.PackedLayout, "under", lambda self, **rule: self),
}


@pytest.mark.parametrize(("name", "mutant"), [(n, m) for n, f in FAMILIES.items() for m in f.mutants])
def test_the_oracle_finds_what_is_broken(make, monkeypatch, name, mutant):
    """Power: each mutant is fifty times further off than what passes, or is refused."""
    oracle = make(name)
    monkeypatch.setattr(*MUTANTS[mutant])
    try:
        logps, _ = oracle.score()
    except (MediaError, StopIteration, ValueError):
        return
    assert oracle.apart(logps) > 50 * NATS
