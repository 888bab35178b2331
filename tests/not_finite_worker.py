# SPDX-License-Identifier: Apache-2.0
"""
What `test_finite.py` starts with `accelerate launch`: SFT whose third step has a loss or a gradient that is not finite.

    python tests/not_finite_worker.py MODEL DATA OUT loss|gradient

Each process writes to OUT/RANK.json what stopped it, and whether its weights are those that the second step left.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from distributed_worker import common, encoder, shard_everything
from omni_grpo.config import OmniSFTConfig
from omni_grpo.data.dataset import load_sources, to_dataset
from omni_grpo.model.loading import load_model
from omni_grpo.run.finite import NonFiniteError
from omni_grpo.sft import OmniSFTTrainer


class Copies(TrainerCallback):
    """This process's part of the weights as each step left it."""

    def __init__(self) -> None:
        self.steps: list[list[torch.Tensor]] = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.steps.append(parts(model))


def parts(model: Any) -> list[torch.Tensor]:
    """Under ZeRO-3 a parameter is a shard."""
    return [getattr(p, "ds_tensor", p).detach().clone() for p in model.parameters()]


def main(model: str, data: str, out: str, where: str) -> None:
    args = OmniSFTConfig(**{**common(Path(out)), "learning_rate": 1e-2}, train_sampling_strategy="sequential")
    shard_everything(args)
    trainer = OmniSFTTrainer(
        load_model(model, dtype=torch.float32), args, to_dataset(load_sources(data), "short"), encoder=encoder(model)
    )
    spoils = int(os.environ.get("RANK", "0")) == args.world_size - 1  # one process is enough

    def times(tensor: torch.Tensor) -> torch.Tensor:
        spoilt = trainer.state.global_step >= 2 and spoils and torch.is_grad_enabled()
        return tensor * float("nan") if spoilt else tensor

    def backwards(*call: Any) -> torch.Tensor:
        if trainer.state.global_step >= 2 and spoils and call[-1].requires_grad:
            call[-1].register_hook(lambda gradient: gradient * float("inf"))
        return call[-1]

    words = trainer.model.get_input_embeddings()
    words.register_forward_hook((lambda *call: times(call[-1])) if where == "loss" else backwards)
    trainer.add_callback(copies := Copies())
    try:
        trainer.train()
        said = "nothing"
    except NonFiniteError as error:
        said = str(error)
    same = all(map(torch.equal, parts(trainer.model_wrapped), copies.steps[1])) and len(copies.steps) == 2
    (Path(out) / f"{args.process_index}.json").write_text(json.dumps({"said": said, "same": same}))


if __name__ == "__main__":
    main(*sys.argv[1:])
