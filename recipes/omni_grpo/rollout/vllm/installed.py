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
    `"module:name"` of vLLM, or a `"module"` whole; it is imported nowhere else.

    Raises:
        `ImportError`: It is not installed, or its version lacks the name.
    """
    module, _, name = path.partition(":")
    try:
        found = import_module(f"vllm.{module}" if module else "vllm")
        return getattr(found, name) if name else found
    except (ImportError, AttributeError) as error:
        raise ImportError(f"vLLM has no {path} here ({error}); {SETUP}") from error


def check_fields(args: Any) -> None:
    """
    Hold the fields of a run that samples by vLLM to what is covered.

    Raises:
        `NotImplementedError`: A field asks for what is not covered.
        `ValueError`: A field would be left out, or make the completions of a prompt equal.
    """
    if args.vllm_mode != "colocate":
        raise NotImplementedError(
            f"use_vllm: vllm_mode {args.vllm_mode}: TRL's client carries images alone; set `vllm_mode: colocate` "
            "(docs/vllm.md describes a way to a server that was measured)"
        )
    if args.vllm_structured_outputs_regex:
        raise NotImplementedError(
            "vllm_structured_outputs_regex: scoring would not know of it; use `constrained_decoding`"
        )
    if args.share_media == "off":
        raise ValueError("use_vllm: takes features that are encoded once; set `share_media: auto`")
    ours = {"seed", "n", "logit_bias", "stop_token_ids", "structured_outputs"}
    if taken := sorted(ours & set(args.generation_kwargs or ())):
        raise ValueError(f"generation_kwargs: {', '.join(taken)}: with use_vllm our sampler sets it; take it out")


def check_installed() -> None:
    """
    Raises:
        `ImportError`: vLLM is not there.
    """
    if find_spec("vllm") is None:
        raise ImportError(f"use_vllm: vLLM is not installed here; {SETUP}")


def engine_of(family: Family) -> Engine:
    """
    How a family runs in vLLM.

    Raises:
        `NotImplementedError`: It does not; the message says why.
    """
    if isinstance(family.engine, Engine):
        return family.engine
    raise NotImplementedError(f"use_vllm: {family.model_class}: {family.engine}; set `use_vllm: false`")
