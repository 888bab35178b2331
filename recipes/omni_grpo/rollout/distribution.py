# SPDX-License-Identifier: Apache-2.0
"""Settings of sampling that bend its distribution away from the one that scoring can know."""

from __future__ import annotations

from typing import Any

from omni_grpo.rollout.prefill import PLAIN
from omni_grpo.run.construct import as_mapping

# Values that leave the distribution softmax(logits / temperature) over the tokens that are not suppressed.
NEUTRAL = {
    "top_p": (None, 1.0),
    "top_k": (None, 0),
    "min_p": (None, 0.0),
    "repetition_penalty": (None, 1.0),
    "num_beams": (None, 1),
    "guidance_scale": (None, 1),
    "renormalize_logits": (None, True, False),
}
# `generation_kwargs` that choose no token: what is suppressed is left out of scoring, too; the rest says how and how long.
HARMLESS = {*PLAIN, "suppress_tokens", "do_sample", "max_new_tokens", "max_length", "max_time", "stop_strings"}
HARMLESS |= {"eos_token_id", "pad_token_id", "bos_token_id", "cache_config", "compile_config", "disable_compile"}
HARMLESS -= {*NEUTRAL}


def bent_by(args: Any) -> str | None:
    """
    The first setting that does so, and its neutral value; `None` where none does.

    Args:
        args (`GRPOConfig`): Its own fields and `generation_kwargs`, which go before them.
    """
    given = as_mapping(args.generation_kwargs or {}, "generation_kwargs")
    asked = {name: getattr(args, name) for name in ("top_p", "top_k", "min_p", "repetition_penalty")} | given
    neutral = NEUTRAL | {"temperature": (None, args.temperature)}
    for name, value in asked.items():
        if name not in HARMLESS and value not in neutral.get(name, (None,)):
            return f"{name}={value} (neutral: {neutral.get(name, (None,))[-1]})"
    return None
