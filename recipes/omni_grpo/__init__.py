# SPDX-License-Identifier: Apache-2.0
"""Cold-start SFT and RL with verifiable rewards for omni-modal models, on TRL's trainers.

Read from a row to a batch, then from a batch to a model and its figures:

- `rows`: the fields of a row, their checks, its prompt
- `media`: files as arrays, decoded once
- `encoding`: messages as token ids and features; the next batch is made while the model works
- `data`: rows as TRL data sets, and the preflight that meets every file
- `model`: loading, freezing, and media through the towers, counted
- `sft`, `trainer`, `config`: TRL's `SFTTrainer` and `GRPOTrainer` with media, and the fields that they add
- `sharing`: media encoded once, prompts prefilled once while sampling and computed once while scoring
- `credit`: which reward moves which token
- `grounding`: context gain, and pairs of rows whose media are swapped
- `constrained`: sections enforced while sampling
- `reward_columns`: whether each reward applies to the rows
- `checkpoints`, `run_record`, `logs`, `rollout_table`: saving, logging, and what people need to look into a run
- `generation`, `evaluation`, `benchmarks`, `metrics`, `statistics`: answers, and figures with intervals
- `report`: a run, its rollouts, or several runs as one page
- `launch`: what the entry scripts share; `demo`: the data that the demo draws

Importing the package imports none of them; the names below are loaded when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omni_grpo.config import OmniGRPOConfig, OmniSFTConfig
    from omni_grpo.constrained.decoding import SectionLogitsProcessor
    from omni_grpo.constrained.language import section_pattern
    from omni_grpo.constrained.section_constraint import SectionConstraint
    from omni_grpo.credit.section_masks import section_token_masks
    from omni_grpo.data import load_sources, to_dataset
    from omni_grpo.encoding.encoder import PromptEncoder
    from omni_grpo.media.settings import MediaError, MediaSettings
    from omni_grpo.model.loading import load_model, load_processor
    from omni_grpo.sft import OmniSFTTrainer
    from omni_grpo.trainer import OmniGRPOTrainer

__all__ = [
    "MediaError",
    "MediaSettings",
    "OmniGRPOConfig",
    "OmniGRPOTrainer",
    "OmniSFTConfig",
    "OmniSFTTrainer",
    "PromptEncoder",
    "SectionConstraint",
    "SectionLogitsProcessor",
    "load_model",
    "load_processor",
    "load_sources",
    "section_pattern",
    "section_token_masks",
    "to_dataset",
]

_MODULES = {
    "MediaError": "media.settings",
    "MediaSettings": "media.settings",
    "OmniGRPOConfig": "config",
    "OmniGRPOTrainer": "trainer",
    "OmniSFTConfig": "config",
    "OmniSFTTrainer": "sft",
    "PromptEncoder": "encoding.encoder",
    "SectionConstraint": "constrained.section_constraint",
    "SectionLogitsProcessor": "constrained.decoding",
    "load_model": "model.loading",
    "load_processor": "model.loading",
    "load_sources": "data",
    "section_pattern": "constrained.language",
    "section_token_masks": "credit.section_masks",
    "to_dataset": "data",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'omni_grpo' has no attribute {name!r}")
    return getattr(import_module(f"omni_grpo.{_MODULES[name]}"), name)
