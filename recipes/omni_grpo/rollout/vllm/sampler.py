# SPDX-License-Identifier: Apache-2.0
"""Prompts to completions by vLLM."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from omni_grpo.data.encoding.inputs import EncodedPrompt
from omni_grpo.families import head_of
from omni_grpo.model.towers import MediaEmbedder
from omni_grpo.rollout.constrained.section_constraint import SectionConstraint
from omni_grpo.rollout.prefill import distinct_prompts
from omni_grpo.rollout.sampler import Sampled
from omni_grpo.rollout.vllm.generation import FeatureGeneration
from omni_grpo.rollout.vllm.requests import Request, engine_input


class VLLMSampler:
    """
    Samples by vLLM, from prompts that have their features with them.

    Each request has a seed of its own, of the run's seed, the step, the process, the mode, and which call of these it is:
    a run that goes on draws what it would have drawn, and completions of a prompt differ.

    Args:
        media ([`MediaEmbedder`]): The model's own; it counts what was placed.
        generation ([`FeatureGeneration`]): The engine.
        draw (`Callable`): As TRL's `_generate_single_turn`: syncs, and completes prompts.
        end_token_ids (collection of `int`): Tokens that end a completion.
        forbidden (collection of `int`): Tokens that are never sampled, media's own among them.
        constraint ([`SectionConstraint`], *optional*): What completions are held to.

    Raises:
        `MediaError`: vLLM would not see exactly the media of a prompt; the row is named.
    """

    def __init__(
        self,
        media: MediaEmbedder,
        generation: FeatureGeneration,
        draw: Callable[..., tuple[list[list[int]], list[list[float]]]],
        end_token_ids: Collection[int],
        forbidden: Collection[int] = (),
        constraint: SectionConstraint | None = None,
    ) -> None:
        self.media, self.constraint, self._draw = media, constraint, draw
        self._placeholders = media.family.placeholders(generation.processing_class)
        self._at: tuple[Sequence[int], int] = (), 0
        generation.prepare(end_token_ids, forbidden, constraint)

    @torch.no_grad()
    def __call__(self, model: Any, prompts: Sequence[EncodedPrompt], *, seed: Sequence[int]) -> Sampled:
        calls = self._at[1] + 1 if self._at[0] == seed else 0
        self._at = seed, calls
        head, (firsts, index) = head_of(model), distinct_prompts(prompts)
        made = [self._request(head, prompts[i]) for i in firsts]
        seeds = np.random.SeedSequence([*seed, calls]).generate_state(len(prompts)).tolist()
        requests = [[replace(made[place], seed=one)] for place, one in zip(index, seeds, strict=True)]
        completions, logprobs = self._draw([p.input_ids for p in prompts], requests, {}, 1)
        for modality in self.media.family.modalities:
            self.media.placed[modality] += sum(prompt.counts[modality] for prompt in prompts)
        chosen = None if self.constraint is None else [self.constraint.choices(ids) for ids in completions]
        return Sampled(completions, logprobs, chosen)

    def _request(self, head: Any, prompt: EncodedPrompt) -> Request:
        positions = self.media.family.positions(head, prompt.input_ids, prompt.media) if prompt.media else None
        return Request(engine_input(prompt, positions, self._placeholders), prompt.name)
