# SPDX-License-Identifier: Apache-2.0
"""
Every family against its own forward: what is packed, prefilled once and encoded once gives the numbers that the model
of transformers, without a hook of ours, gives row by row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder
from omni_grpo.data.encoding.inputs import EncodedPrompt
from omni_grpo.data.media.settings import MediaError
from omni_grpo.families import base_of, family_of, family_of_processor
from omni_grpo.families.family import Family
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.model.towers import attach_media_embedder
from omni_grpo.rollout.sampler import GenerateSampler
from omni_grpo.scoring import packed_attention, packing
from omni_grpo.scoring.scorer import Batch
from small_runs import SMALL_RUN, length_reward
from tiny_families import FAMILIES, TinyFamily, media_settings

NATS, TOKENS = 2e-6, 8
LENGTHS = (8, 3)  # of a prompt's completions


@dataclass
class Oracle:
    """What a family's own model makes of rows, one at a time; and the trainer whose scores must be those."""

    family: TinyFamily
    trainer: Any
    batch: Batch
    lengths: list[int]
    weights: list[torch.Tensor]
    logps: list[torch.Tensor]
    gradients: dict[str, torch.Tensor]
    tokens: dict[str, list[int]]

    def score(self, share: bool = True, encoded: bool = False) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        """Ours: log-probabilities of each completion, and gradients of their weighted sum."""
        trainer, batch = self.trainer, self.batch
        trainer.model.zero_grad()
        if encoded:
            prompts = trainer.media_embedder.encode(trainer.model, batch.prompts, torch.device("cpu"))
            batch = batch._replace(prompts=prompts)
        packed = packing.pack_rows(trainer.model, *batch) if share and self.family.packs else None
        scored = trainer.scorer.score(trainer.model, batch, packed).logps
        logps = [row[:n] for row, n in zip(scored, self.lengths, strict=True)]
        sum((row * weight).sum() for row, weight in zip(logps, self.weights, strict=True)).backward()
        found = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
        return [row.detach() for row in logps], found

    def apart(self, logps: list[torch.Tensor]) -> float:
        """Nats, at the worst token."""
        return max((ours - own).abs().max().item() for ours, own in zip(logps, self.logps, strict=True))

    def sampled(self) -> dict[str, list[int]]:
        """Greedy tokens by row, each prompt prefilled once for its completions."""
        trainer = self.trainer
        with torch.no_grad():
            prompts = trainer.media_embedder.encode(trainer.model, self.batch.prompts, torch.device("cpu"))
        forbidden = family_of_processor(trainer.encoder.processor).control_ids(trainer.encoder.processor)
        sampler = GenerateSampler(trainer.media_embedder, 0, (), forbidden)
        asked = {"max_new_tokens": TOKENS, "do_sample": False}
        completions = sampler(trainer.model, prompts, **asked).completion_ids
        tokens: dict[str, list[int]] = {}
        for prompt, ids in zip(prompts, completions, strict=True):
            assert tokens.setdefault(prompt.name, ids) == ids, "one prompt, one greedy answer"
        return tokens


def own_inputs(model: Any, processor: Any, prompt: EncodedPrompt, more: torch.Tensor) -> dict[str, Any]:
    """What transformers' documentation gives a model of a prompt and what follows."""
    ids = torch.cat([torch.tensor(prompt.input_ids), more])[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **prompt.media}
    if "mm_token_type_ids" in processor.model_input_names:
        types = torch.tensor(processor.create_mm_token_type_ids(ids.tolist()))
        inputs["mm_token_type_ids"] = types
    return inputs


@pytest.fixture(scope="module")
def make(checkpoint, dataset_of, tmp_path_factory):
    """Builds the oracle of a family, once."""
    made: dict[str, Oracle] = {}

    def build(name: str) -> Oracle:
        if name in made:
            return made[name]
        where, dataset = checkpoint(name), dataset_of(name)
        processor, own = load_processor(where), load_model(where).eval()
        trainer = OmniGRPOTrainer(
            load_model(where),
            [length_reward],
            OmniGRPOConfig(
                **SMALL_RUN,
                output_dir=str(tmp_path_factory.mktemp("oracle")),
                num_generations=len(LENGTHS),
                per_device_train_batch_size=len(LENGTHS),
                max_steps=1,
            ),
            dataset,
            encoder=PromptEncoder(processor, media_settings(name)),
        )
        trainer.model.eval()
        prompts = [trainer.encoder(row["prompt"], row["id"]) for row in dataset for _ in LENGTHS]
        generator = torch.Generator().manual_seed(1)
        control = family_of_processor(processor).control_ids(processor)
        words = torch.tensor([i for i in range(len(processor.tokenizer)) if i not in control])
        lengths = list(LENGTHS) * len(dataset)
        completions = [words[torch.randint(len(words), (n,), generator=generator)] for n in lengths]
        weights = [torch.randn(n, generator=generator) for n in lengths]
        longest = max(len(p.input_ids) for p in prompts)
        ids = torch.zeros(len(prompts), longest + max(LENGTHS), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            span = slice(longest - len(prompt.input_ids), longest + len(completion))
            ids[i, span], mask[i, span] = torch.cat([torch.tensor(prompt.input_ids), completion]), 1
        logps = []
        for prompt, completion, weight in zip(prompts, completions, weights, strict=True):
            inputs = own_inputs(own, processor, prompt, completion)
            scores = own(**inputs).logits[0, :-1].log_softmax(-1).gather(-1, inputs["input_ids"][0, 1:, None])[:, 0]
            logps.append(scores[-len(completion) :])
            (logps[-1] * weight).sum().backward()
        tokens = {}
        for prompt in prompts[:: len(LENGTHS)]:
            inputs = own_inputs(own, processor, prompt, torch.empty(0, dtype=torch.long))
            asked = {"max_new_tokens": TOKENS, "do_sample": False, "suppress_tokens": control, "eos_token_id": None}
            tokens[prompt.name] = own.generate(**inputs, **asked)[0, len(prompt.input_ids) :].tolist()
        gradients = {n: p.grad for n, p in own.named_parameters() if p.grad is not None}
        batch = Batch(prompts, ids, mask, max(LENGTHS))
        made[name] = Oracle(
            FAMILIES[name], trainer, batch, lengths, weights, [x.detach() for x in logps], gradients, tokens
        )
        return made[name]

    return build


@pytest.fixture(scope="module", params=FAMILIES)
def oracle(request, make) -> Oracle:
    return make(request.param)


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
