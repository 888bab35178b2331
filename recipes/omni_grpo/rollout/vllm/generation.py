# SPDX-License-Identifier: Apache-2.0
"""TRL's `VLLMGeneration`, for requests that bring features: TRL starts the engine, syncs, sleeps and gathers."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import is_peft_model
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer import grpo_trainer

from omni_grpo.data.media.settings import MediaError
from omni_grpo.families import family_of, head_of
from omni_grpo.rollout.constrained.section_constraint import SectionConstraint
from omni_grpo.rollout.vllm.grammar import ASKED, hold_to
from omni_grpo.rollout.vllm.installed import engine_of, from_vllm
from omni_grpo.rollout.vllm.model import register, write_checkpoint
from omni_grpo.rollout.vllm.weights import check_weights, merged, renamed


class FeatureGeneration(VLLMGeneration):
    """
    [`~trl.generation.vllm_generation.VLLMGeneration`] whose prompts are [`Request`]s, in the place of images.

    Args:
        model (`PreTrainedModel` or `PeftModel`): The policy.
        accelerator (`Accelerator`): The run's.
        processing_class (`ProcessorMixin`): The policy's processor.
        **kwargs: As of the parent class.

    Raises:
        `NotImplementedError`: A family, weights or a way of sharding that is not covered.
    """

    def __init__(self, model: Any, accelerator: Any, processing_class: Any, **kwargs: Any) -> None:
        self.family = family_of(model)
        self.engine = engine_of(self.family)
        check_weights(model)
        if is_peft_model(model) and accelerator.state.__dict__.get("fsdp_plugin") is not None:
            raise NotImplementedError("use_vllm: LoRA under FSDP is not covered; use ZeRO-2, ZeRO-3 or DDP")
        self._folder = tempfile.TemporaryDirectory(prefix="omni-grpo-vllm-")
        write_checkpoint(model, processing_class, Path(self._folder.name))
        super().__init__(model, accelerator, processing_class, **kwargs)

    def prepare(
        self, end_token_ids: Collection[int], forbidden: Collection[int], constraint: SectionConstraint | None
    ) -> None:
        """What ends a completion, what is never sampled, and what completions are held to."""
        self.generation_kwargs.pop("suppress_tokens", None)  # among the forbidden; vLLM knows no such field
        bias = dict.fromkeys(forbidden, float("-inf"))
        self.generation_kwargs |= {"stop_token_ids": sorted(end_token_ids), "logit_bias": bias or None}
        if constraint is not None:
            self.generation_kwargs |= ASKED
            hold_to(self.llm, constraint)

    def _init_vllm(self) -> None:
        modalities, dtype = self.family.modalities, head_of(self.model).dtype
        precision = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.accelerator.mixed_precision, dtype)
        ours: dict[str, Any] = {
            "model": self._folder.name,
            "dtype": str(precision).removeprefix("torch."),  # as the policy computes
            "load_format": "dummy",  # TRL syncs before it samples first
            "structured_outputs_config": {"backend": "xgrammar"},
        }
        if self.engine.model:
            register(self.engine.model)
            # No towers, and media all the same.
            ours |= {"limit_mm_per_prompt": dict.fromkeys(modalities, 0), "enable_mm_embeds": True}
            ours |= {"mm_processor_cache_gb": 0}
        if from_vllm("platforms:current_platform").is_cpu():
            if precision is not torch.float32:  # other types are packed by further means
                raise NotImplementedError(
                    "use_vllm: on a CPU in float32 alone; set `dtype: float32` and `bf16: false`"
                )
            # It would pack the weights that are there at the start, and compute with those for good.
            from_vllm("_custom_ops")._supports_onednn = False
            ours |= {"enforce_eager": True, "block_size": 32, "kv_cache_memory_bytes": 1 << 28}
        engine = from_vllm(":LLM")
        with _in_place_of(vllm_generation, "LLM", lambda **theirs: engine(**{**theirs, **ours})), _seeds_kept():
            super()._init_vllm()
        self.llm.generate = self._answer

    def _answer(self, prompts: Sequence[Any], sampling_params: Any, use_tqdm: bool = False) -> list[Any]:
        """[`~vllm.LLM.generate`] for what TRL makes of [`Request`]s."""
        given, engine = [prompt["multi_modal_data"]["image"] for prompt in prompts], self.llm.llm_engine
        room = engine.model_config.max_model_len - sampling_params.max_tokens
        for request in given:
            if (tokens := len(request.prompt["prompt_token_ids"])) > room:  # vLLM would cut the completion
                raise ValueError(
                    f"row {request.name!r}: {tokens} tokens and a completion do not fit; set `vllm_max_model_length: "
                    f"{tokens + sampling_params.max_tokens}` or more"
                )
            params = sampling_params.clone()
            params.seed, params.output_kind = request.seed, from_vllm("sampling_params:RequestOutputKind").FINAL_ONLY
            engine.add_request(str(next(self.llm.request_counter)), request.prompt, params)
        outputs = []
        while engine.has_unfinished_requests():
            outputs += [output for output in engine.step() if output.finished]
        outputs.sort(key=lambda output: int(output.request_id))
        for request, output in zip(given, outputs, strict=True):
            if list(output.prompt_token_ids) != request.prompt["prompt_token_ids"]:
                raise MediaError(f"row {request.name!r}: vLLM sampled behind another prompt than its own")
            if (reason := output.outputs[0].finish_reason) not in ("stop", "length"):
                raise RuntimeError(f"row {request.name!r}: vLLM ended with {reason!r}")
        return outputs

    def _iter_named_params(self) -> Generator[tuple[str, torch.Tensor], None, None]:
        adapted = is_peft_model(self.model)
        weights = merged(self.model, self._dist.gather_params) if adapted else super()._iter_named_params()
        yield from renamed(weights, self.engine.names)


@contextmanager
def generation_with_features() -> Iterator[None]:
    """Within: TRL's trainer makes a [`FeatureGeneration`]; it has no other seam for the class."""
    with _in_place_of(grpo_trainer, "VLLMGeneration", FeatureGeneration):
        yield


@contextmanager
def _in_place_of(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextmanager
def _seeds_kept() -> Iterator[None]:
    """Within: vLLM's start may seed as it likes, by the process's number: all runs would go on alike."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])
