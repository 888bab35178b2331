# SPDX-License-Identifier: Apache-2.0
"""Cold-start SFT and RL with verifiable rewards for omni-modal models, on TRL's trainers.

From a row to a batch:

- `schema`: the fields of a row, their checks, the loader
- `prompts`: a row as messages; one place for SFT, RL and evaluation
- `media`: files as arrays (`image`, `video`, `audio`, `container`, `media_settings`)
- `decode_cache` (`entry_store`): decoded frames and waveforms on disk
- `encoding`: messages as token ids and features, and their collation; `encoder` remembers them, and encodes those that
  `lookahead` sees coming
- `data`: rows as TRL data sets, and the preflight

Training and after:

- `towers` (`tower_calls`): media into the model, counted
- `shared_media` (`media_keys`, `encoded_media`, `feature_cache`, `shared_prefill`): media encoded once, prompts
  computed once while sampling
- `section_masks`, `credit`, `section_credit`: which reward moves which token; `schedules`: what changes over a run
- `constrained` (`section_constraint`, `token_paths`, `section_automaton`, `section_language`, `token_bytes`,
  `constrained_head`): sections enforced while sampling, and scored as they were sampled
- `sft`, `trainer`: TRL's `SFTTrainer` and `GRPOTrainer` with media
- `model`, `checkpoints`, `logs`: loading, saving, logging; `rollout_table`: what people need to look into a run
- `generation`, `evaluation` (`protocol`, `prediction_rows`, `prediction_files`), `benchmarks`: answers, resumable
- `scoring` (`baselines`, `metrics`, `perception`, `perception_judge`, `results_table`), `comparison`, `statistics`:
  figures, intervals
- `report`: a run, its rollouts, or several runs as one page; `playable`: files that a page can play

Runs: `command_line`, `config`, `eval_arguments`, `reward_settings` (`settings`), `launch`, `stages`, `machine`. Other
data: `adapters`, `selection`, `demo`.

Importing the package imports none of them; the names below are loaded when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omni_grpo.config import OmniGRPOConfig, OmniSFTConfig
    from omni_grpo.constrained import SectionLogitsProcessor
    from omni_grpo.encoder import PromptEncoder
    from omni_grpo.media import MediaError, MediaSettings
    from omni_grpo.section_constraint import SectionConstraint
    from omni_grpo.section_language import section_pattern
    from omni_grpo.section_masks import section_token_masks
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
    "section_pattern",
    "section_token_masks",
]

_MODULES = {
    "MediaError": "media",
    "MediaSettings": "media",
    "OmniGRPOConfig": "config",
    "OmniGRPOTrainer": "trainer",
    "OmniSFTConfig": "config",
    "OmniSFTTrainer": "sft",
    "PromptEncoder": "encoder",
    "SectionConstraint": "section_constraint",
    "SectionLogitsProcessor": "constrained",
    "section_pattern": "section_language",
    "section_token_masks": "section_masks",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'omni_grpo' has no attribute {name!r}")
    return getattr(import_module(f"omni_grpo.{_MODULES[name]}"), name)
