# SPDX-License-Identifier: Apache-2.0
"""A model of vLLM's that places features and positions which it is given."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from omni_grpo.families import family_of, head_of
from omni_grpo.model.loading import token_ids_alone
from omni_grpo.rollout.vllm.installed import engine_of, from_vllm

ARCHITECTURE = "GivenFeatures"  # the name under which vLLM finds it


def register(model: str) -> None:
    """
    Register, as [`ARCHITECTURE`], a subclass of a multimodal model of vLLM's.

    vLLM's model runners (V1 and V2) call two methods to place media, which are replaced.
    """

    class GivenFeatures(from_vllm(model)):
        def embed_multimodal(self, **kwargs: Any) -> tuple[torch.Tensor, ...]:
            """Features `(placeholders, width)` of each item, as they came."""
            return tuple(kwargs["features"])

        def get_mrope_input_positions(self, input_tokens: list[int], mm_features: Any) -> tuple[torch.Tensor, int]:
            """Positions `(3, tokens)` as the first item brings them, and what is added to a later token's place."""
            brought = [f.data["positions"].data for f in mm_features if f.data and "positions" in f.data]
            if not brought:  # text alone
                return super().get_mrope_input_positions(input_tokens, mm_features)
            delta = int(brought[0].max()) + 1 - brought[0].size(1)
            sampled = torch.arange(brought[0].size(1), len(input_tokens)) + delta  # of a request that was interrupted
            return torch.cat([brought[0], sampled.expand(3, -1)], dim=1), delta

    from_vllm(":ModelRegistry").register_model(ARCHITECTURE, GivenFeatures)


def write_checkpoint(model: Any, processor: Any, folder: Path) -> None:
    """
    Configuration and processor as vLLM reads them, without weights, whatever the policy was loaded from.

    Args:
        model (`PreTrainedModel` or `PeftModel`): The policy.
        processor (`ProcessorMixin`): Its own.
        folder (`Path`): Where to.
    """
    family, head = family_of(model), head_of(model)
    config = family.engine_config(copy.deepcopy(head.config))
    config.architectures = [ARCHITECTURE if engine_of(family).model else type(head).__name__]
    for part in (config, processor, token_ids_alone(head.generation_config)):
        part.save_pretrained(folder)
