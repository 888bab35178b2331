# SPDX-License-Identifier: Apache-2.0
"""Cold-start SFT and RL with verifiable rewards for omni-modal models, on TRL's trainers.

Read in this order:

- `data`: rows and their checks, files decoded, prompts as token ids and features, and the preflight that meets every file
- `families`: what is particular to an architecture; `model`: loading, freezing, media through the towers
- `rollout`: prompts to completions, and the record of a generation batch; sections enforced while sampling
- `scoring`: completions to log-probabilities, a prompt computed once for all of its completions
- `credit`: rewards to advantages: which reward moves which token
- `trainer`, `sft`, `build`, `config`: TRL's `GRPOTrainer` and `SFTTrainer`, who works for them, and the fields they add
- `run`: command line, stages, rewards by name, checkpoints, logs
- `sampling`: many completions a row, and the rows that are chosen by them
- `evaluation`, `report`: answers and figures with intervals; a run, its rollouts, or several runs as one page
- `experimental`: rewards that our own tables show no gain for

Importing the package imports none of them; the names below are loaded when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omni_grpo.config import OmniGRPOConfig, OmniSFTConfig
    from omni_grpo.credit.section_masks import section_token_masks
    from omni_grpo.data.dataset import load_sources, to_dataset
    from omni_grpo.data.encoding.encoder import PromptEncoder
    from omni_grpo.data.media.settings import MediaError, MediaSettings
    from omni_grpo.model.loading import load_model, load_processor
    from omni_grpo.rollout.constrained.decoding import SectionLogitsProcessor
    from omni_grpo.rollout.constrained.language import section_pattern
    from omni_grpo.rollout.constrained.section_constraint import SectionConstraint
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
    "MediaError": "data.media.settings",
    "MediaSettings": "data.media.settings",
    "OmniGRPOConfig": "config",
    "OmniGRPOTrainer": "trainer",
    "OmniSFTConfig": "config",
    "OmniSFTTrainer": "sft",
    "PromptEncoder": "data.encoding.encoder",
    "SectionConstraint": "rollout.constrained.section_constraint",
    "SectionLogitsProcessor": "rollout.constrained.decoding",
    "load_model": "model.loading",
    "load_processor": "model.loading",
    "load_sources": "data.dataset",
    "section_pattern": "rollout.constrained.language",
    "section_token_masks": "credit.section_masks",
    "to_dataset": "data.dataset",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'omni_grpo' has no attribute {name!r}")
    return getattr(import_module(f"omni_grpo.{_MODULES[name]}"), name)
