# SPDX-License-Identifier: Apache-2.0
"""vLLM, which lives in an environment of its own, and what of it this project covers."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from omni_grpo.families import Family
from omni_grpo.families.family import Engine

SETUP = "`make setup-vllm` makes an environment (.venv-vllm) that has it; docs/vllm.md says more"


def from_vllm(path: str) -> Any:
    """
    `"module:name"` of vLLM, which is imported nowhere else.

    Raises:
        `ImportError`: It is not installed, or its version lacks the name.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(f"vllm.{module}" if module else "vllm"), name)
    except (ImportError, AttributeError) as error:
        raise ImportError(f"vLLM has no {path} here ({error}); {SETUP}") from error


def check_vllm(args: Any) -> None:
    """
    Hold a run's fields to what is covered, before a model is loaded.

    Raises:
        `ImportError`: vLLM is not installed.
        `NotImplementedError`: A field asks for what is not covered.
        `ValueError`: A field would be left out, or make completions of a prompt equal.
    """
    if not args.use_vllm:
        return
    if args.vllm_mode != "colocate":
        raise NotImplementedError(
            f"vllm_mode: {args.vllm_mode}: TRL's client carries images alone; set `vllm_mode: colocate` (docs/vllm.md "
            "describes the way to a server that was measured)"
        )
    if args.share_media == "off":
        raise ValueError("share_media: off: vLLM is given features that are encoded once; set `share_media: auto`")
    if given := sorted({"seed", "n", "logit_bias", "structured_outputs"} & set(args.generation_kwargs or {})):
        raise ValueError(f"generation_kwargs: {', '.join(given)}: set by the sampler for each request; take it out")
    if args.vllm_structured_outputs_regex:
        raise NotImplementedError(
            "vllm_structured_outputs_regex: use `constrained_decoding`, which scoring knows, too"
        )
    if find_spec("vllm") is None:
        raise ImportError(f"use_vllm: vLLM is not installed; {SETUP}")


def engine_of(family: Family) -> Engine:
    """
    How a family runs in vLLM.

    Raises:
        `NotImplementedError`: It does not; the message says why.
    """
    if isinstance(family.engine, Engine):
        return family.engine
    raise NotImplementedError(f"use_vllm: {family.model_class}: {family.engine}; set `use_vllm: false`")
