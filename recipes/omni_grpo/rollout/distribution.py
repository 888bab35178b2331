# SPDX-License-Identifier: Apache-2.0
"""Settings of sampling that bend its distribution away from the one that scoring can know."""

from __future__ import annotations

from typing import Any

from omni_grpo.rollout.prefill import PLAIN

# Values that leave the distribution softmax(logits / temperature) over the tokens that are not suppressed.
NEUTRAL = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "num_beams": 1, "guidance_scale": 1}
# `generation_kwargs` that choose no token: what is suppressed is left out of scoring, too; the rest says how and how long.
HARMLESS = {*PLAIN, "suppress_tokens", "do_sample", "max_new_tokens", "max_length", "max_time", "stop_strings"}
HARMLESS |= {"eos_token_id", "pad_token_id", "bos_token_id", "cache_config", "compile_config", "disable_compile"}
HARMLESS -= {*NEUTRAL}


def bent_by(args: Any) -> str | None:
    """
    The first setting that does so, and its neutral value; `None` where none does.

    Args:
        args (`GRPOConfig`): Its own fields, and its `generation_kwargs`, which go before them.
    """
    fields = ("top_p", "top_k", "min_p", "repetition_penalty", "temperature")
    asked = {**{name: getattr(args, name) for name in fields}, **(args.generation_kwargs or {})}
    neutral = NEUTRAL | {"temperature": args.temperature}
    for name, value in asked.items():
        if name not in HARMLESS and value not in (None, neutral.get(name)):
            return f"{name}={value} (neutral: {neutral.get(name)})"
    return None
