# SPDX-License-Identifier: Apache-2.0
"""The policy as a whole model that can sample, whatever has sharded it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from trl.extras.profiling import profiling_context
from trl.models.utils import unwrap_model_for_generation

from omni_grpo.model.evaluation_mode import in_evaluation


@contextmanager
def whole_policy(trainer: Any) -> Iterator[Any]:
    """Within: a TRL trainer's model without wrapping, its weights gathered, in evaluation mode, without gradients."""
    args = trainer.args
    with (
        profiling_context(trainer, "transformers.generate"),
        unwrap_model_for_generation(
            trainer.model_wrapped,
            trainer.accelerator,
            gather_deepspeed3_params=args.ds3_gather_for_generation,
            generation_kwargs=getattr(trainer, "generation_kwargs", None),  # vLLM has its own
            gradient_checkpointing_kwargs=args.gradient_checkpointing_kwargs,
        ) as model,
        torch.no_grad(),
        trainer._dist.summon_full_params(trainer.model_wrapped, recurse=False),
        in_evaluation(model),
    ):
        yield model
