# SPDX-License-Identifier: Apache-2.0
"""Answers by vLLM where nothing is trained: evaluation, `ask_omni.py`, `sample_omni.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator

from omni_grpo.data.encoding.inputs import EncodedPrompt
from omni_grpo.families import family_of_processor
from omni_grpo.model.towers import MediaEmbedder
from omni_grpo.rollout.answers import GREEDY, PLAIN_SAMPLING, end_tokens
from omni_grpo.rollout.sampler import Sampled
from omni_grpo.rollout.vllm.generation import FeatureGeneration
from omni_grpo.rollout.vllm.installed import check_installed
from omni_grpo.rollout.vllm.sampler import VLLMSampler

NEUTRAL = {**GREEDY, **PLAIN_SAMPLING, "disable_compile": True}


class AnsweringEngine:
    """
    A [`VLLMSampler`] of a model whose weights stay as they are, asked as `generate` is.

    Args:
        model (`PreTrainedModel`): In evaluation mode.
        processor (`ProcessorMixin`): Its processor.
        media ([`MediaEmbedder`]): The one attached to `model`.

    Raises:
        `ImportError`: vLLM is not installed.
        `NotImplementedError`: It does not cover the model, or, when it is called, the decoding.
    """

    def __init__(self, model: Any, processor: Any, media: MediaEmbedder) -> None:
        check_installed()
        accelerator = Accelerator(cpu=model.device.type == "cpu")
        self.generation = FeatureGeneration(model, accelerator, processor, gpu_memory_utilization=0.5)
        forbidden = family_of_processor(processor).control_ids(processor)
        self._sampler = VLLMSampler(media, self.generation, self._draw, end_tokens(model, processor), forbidden)
        self.generation.sync_weights()

    def _draw(self, ids: list[list[int]], requests: list[Any], _: Any, number: int) -> tuple[Any, Any]:
        _, completions, logprobs, _ = self.generation.generate(ids, requests, number)
        return completions, [[token[0] for token in row] for row in logprobs]

    def __call__(self, model: Any, prompts: Sequence[EncodedPrompt], **asked: Any) -> Sampled:
        known = {name: asked.pop(name, NEUTRAL.get(name)) for name in ("do_sample", "temperature", "top_k", "top_p")}
        self.generation.max_completion_length = asked.pop("max_new_tokens")
        if other := {name: value for name, value in asked.items() if value != NEUTRAL.get(name)}:
            raise NotImplementedError(f"backend: vllm decodes plainly; leave out {other}, or set `backend: generate`")
        drawn = known.pop("do_sample")
        vars(self.generation).update(known if drawn else {"temperature": 0.0, "top_k": 0, "top_p": 1.0})
        return self._sampler(model, prompts, seed=[torch.initial_seed()])
