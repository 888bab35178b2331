# SPDX-License-Identifier: Apache-2.0
"""What a family's own model makes of rows, without a hook of ours, one row at a time: what our scores have to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder
from omni_grpo.data.encoding.inputs import EncodedPrompt
from omni_grpo.families import family_of_processor, tokenizer_of
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.rollout.sampler import GenerateSampler
from omni_grpo.scoring import packing
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

    def scored(self, share: bool = True, encoded: bool = False) -> list[torch.Tensor]:
        """Ours: log-probabilities of each completion."""
        trainer, batch = self.trainer, self.batch
        if encoded:
            prompts = trainer.media_embedder.encode(trainer.model, batch.prompts, torch.device("cpu"))
            batch = batch._replace(prompts=prompts)
        packed = packing.pack_rows(trainer.model, *batch) if share and self.family.packs else None
        scored = trainer.scorer.score(trainer.model, batch, packed).logps
        return [row[:n] for row, n in zip(scored, self.lengths, strict=True)]

    def score(self, share: bool = True, encoded: bool = False) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        """And gradients of their weighted sum."""
        trainer = self.trainer
        trainer.model.zero_grad()
        logps = self.scored(share, encoded)
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


def random_batch(
    prompts: Sequence[EncodedPrompt], processor: Any, lengths: Sequence[int], generator: torch.Generator
) -> Batch:
    """Prompts with completions of words and no control token, drawn by `generator`; prompts are padded on the left."""
    control = family_of_processor(processor).control_ids(processor)
    words = torch.tensor([i for i in range(len(tokenizer_of(processor))) if i not in control])
    longest = max(len(p.input_ids) for p in prompts)
    ids = torch.zeros(len(prompts), longest + max(lengths), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, (prompt, n) in enumerate(zip(prompts, lengths, strict=True)):
        span = slice(longest - len(prompt.input_ids), longest + n)
        completion = words[torch.randint(len(words), (n,), generator=generator)]
        ids[i, span], mask[i, span] = torch.cat([torch.tensor(prompt.input_ids), completion]), 1
    return Batch(prompts, ids, mask, max(lengths))


def build_oracle(name: str, where: str, dataset: Any, folder: str) -> Oracle:
    """The oracle of a family whose checkpoint is in `where`."""
    processor, own = load_processor(where), load_model(where).eval()
    trainer = OmniGRPOTrainer(
        load_model(where),
        [length_reward],
        OmniGRPOConfig(
            **SMALL_RUN,
            output_dir=folder,
            num_generations=len(LENGTHS),
            per_device_train_batch_size=len(LENGTHS),
            max_steps=1,
        ),
        dataset,
        encoder=PromptEncoder(processor, media_settings(name)),
    )
    trainer.model.eval()
    prompts = [trainer.encoder(row["prompt"], row["id"]) for row in dataset for _ in LENGTHS]
    lengths = list(LENGTHS) * len(dataset)
    generator = torch.Generator().manual_seed(1)
    batch = random_batch(prompts, processor, lengths, generator)
    weights = [torch.randn(n, generator=generator) for n in lengths]
    completions = [row[-max(LENGTHS) :][:n] for row, n in zip(batch.input_ids, lengths, strict=True)]
    logps, tokens, control = [], {}, family_of_processor(processor).control_ids(processor)
    for prompt, completion, weight in zip(prompts, completions, weights, strict=True):
        inputs = own_inputs(own, processor, prompt, completion)
        logits = own(**inputs).logits[0, -len(completion) - 1 : -1]  # (T, V); what is never sampled has no probability
        scores = logits.index_fill(-1, torch.tensor(control), -torch.inf).log_softmax(-1)
        logps.append(scores.gather(-1, completion[:, None])[:, 0])
        (logps[-1] * weight).sum().backward()
    for prompt in prompts[:: len(LENGTHS)]:
        inputs = own_inputs(own, processor, prompt, torch.empty(0, dtype=torch.long))
        asked = {"max_new_tokens": TOKENS, "do_sample": False, "suppress_tokens": control, "eos_token_id": None}
        tokens[prompt.name] = own.generate(**inputs, **asked)[0, len(prompt.input_ids) :].tolist()
    gradients = {n: p.grad for n, p in own.named_parameters() if p.grad is not None}
    return Oracle(FAMILIES[name], trainer, batch, lengths, weights, [x.detach() for x in logps], gradients, tokens)
