# SPDX-License-Identifier: Apache-2.0
"""The fields of a sampling run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from omni_grpo.rollout.answers import BACKENDS
from omni_grpo.run.construct import word
from omni_grpo.run.reward_settings import DEFAULT_REWARDS


@dataclass
class SampleArguments:
    """
    How often each row is answered, by which model, and what scores the answers.

    Args:
        model_name_or_path (`str`): The checkpoint that answers.
        output_dir (`str`): Where `samples.jsonl` goes.
        num_completions (`int`): Completions of each row; HumanOmniV2 draws 8.
        reward_funcs (`list[str]`): Dotted paths of rewards, the RL run's own.
        reward_settings (`dict`, *optional*): Their settings by path, as in the RL run.
        allow_unused_rewards (`bool`, defaults to `False`): Go on where a reward applies to no row of the data.
        temperature (`float`, defaults to `1.0`): Of sampling; nothing is cut off by `top_k` or `top_p`.
        top_k (`int`, defaults to `0`): Draw from so many likeliest tokens; 0 is all.
        top_p (`float`, defaults to `1.0`): Draw from the likeliest tokens with this share of the probability.
        max_new_tokens (`int`, defaults to `128`): Longest completion, in tokens.
        batch_size (`int`, defaults to `8`): Rows answered together, each with all its completions.
        seed (`int`, defaults to `0`): Of sampling; what a row gets depends on it, on `batch_size` and on the rows' ids.
        dtype (`str`, defaults to `"float32"`): Type of the weights.
        prompt_cache_mb (`int`, defaults to `512`): Encoded prompts kept in memory.
        backend (`str`, defaults to `"generate"`): What answers; `vllm` needs `make setup-vllm`, see docs/vllm.md.
        log_level (`str`, defaults to `"warning"`): `info` for what libraries say as well.
    """

    model_name_or_path: str = ""
    output_dir: str = ""
    num_completions: int = 0
    reward_funcs: list[str] = field(default_factory=lambda: list(DEFAULT_REWARDS))
    reward_settings: dict[str, Any] | str | None = None
    allow_unused_rewards: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 128
    batch_size: int = 8
    seed: int = 0
    dtype: str = "float32"
    prompt_cache_mb: int = 512
    backend: Literal["generate", "vllm"] = "generate"
    log_level: str = "warning"

    def __post_init__(self) -> None:
        word(self.backend, BACKENDS, "backend")
        if missing := [name for name in ("model_name_or_path", "output_dir") if not getattr(self, name)]:
            raise ValueError(f"{missing[0]}: required")
        for name in ("num_completions", "max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if not self.temperature > 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ValueError("temperature must be above 0, top_p above 0 and at most 1, top_k at least 0")
