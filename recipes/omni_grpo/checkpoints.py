# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that can be trusted: whole, and taken where a resumed run goes on as if nothing had happened."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl.trainer.utils import RepeatSampler

from omni_grpo.model.loading import load_model

logger = logging.getLogger(__name__)

COMPLETE = "COMPLETE"  # written last, after every rank has written its part


# A Trainer, for type checkers of a kind unknown: upstream annotates its attributes as unions over every backend.
_Trainer: Any = object


class CompleteCheckpoints(_Trainer):
    """A `Trainer` that marks a checkpoint once all ranks have written it, loads all of it, and ends where it ends."""

    def _save_checkpoint(self, model, trial):
        """Write as the parent does, wait for every rank, then leave the mark."""
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            folder = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            (folder / COMPLETE).touch()

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        """Resume with the checkpoint's weights, every one of them."""
        if self._weights_are_plain():
            self._load_weights(resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self):
        """Go back to the best checkpoint's weights, every one of them."""
        if self._weights_are_plain():
            self._load_weights(self.state.best_model_checkpoint)
        else:
            super()._load_best_model()

    def _weights_are_plain(self) -> bool:
        return not (self.is_deepspeed_enabled or self.is_fsdp_enabled or isinstance(self.model, PeftModel))

    def _load_weights(self, folder: str) -> None:
        """
        Through `from_pretrained`, which translates names: files have the published checkpoint's (`visual.…`), not the
        modules' (`model.visual.…`). The parent compares them as they are, finds none, and goes on with a warning.
        """
        self.model.load_state_dict(load_model(folder, dtype=self.model.dtype).state_dict())

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """Nothing after the last step: a run resumed from its last checkpoint would make one step too many."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return [], None
        return super().get_batch_samples(epoch_iterator, num_batches, device)


class EpochOrder(TrainerCallback):
    """
    Makes a resumed run take its epoch's rows in the order in which the run before it took them.

    TRL's `RepeatSampler` draws an order when an epoch begins, and a resumed run would begin with the first one again.
    """

    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs):
        sampler: Any = getattr(train_dataloader, "batch_sampler", None)
        while (inner := getattr(sampler, "batch_sampler", None)) is not None:  # Accelerate's shards
            sampler = inner
        sampler = getattr(sampler, "sampler", None)
        if isinstance(sampler, RepeatSampler):
            for _ in range(int(state.epoch or 0)):
                next(iter(sampler), None)  # draws one


class GenerationBorders(TrainerCallback):
    """
    Lets checkpoints be saved only where the next micro-step samples anew.

    Between two generations of one buffered batch (`num_iterations` > 1, or `steps_per_generation` above gradient
    accumulation) the buffer is not part of a checkpoint: a run resumed there would sample again and end elsewhere. A
    save that falls there waits for the next border.

    Args:
        micro_steps (`int`): Micro-steps that one generated batch serves: `steps_per_generation * num_iterations`.
    """

    def __init__(self, micro_steps: int) -> None:
        self.micro_steps = micro_steps
        self.waiting = False

    def on_step_end(self, args, state, control, **kwargs):
        border = state.global_step * args.gradient_accumulation_steps % self.micro_steps == 0
        last = state.global_step >= state.max_steps
        if control.should_save and not (border or last):
            self.waiting, control.should_save = True, False
        elif self.waiting and border:
            self.waiting, control.should_save = False, True


def last_complete_checkpoint(output_dir: str | Path) -> str | None:
    """
    Newest checkpoint of a run that was written to the end; `None` where there is none. Newer incomplete ones are
    passed over, with a warning that names them.
    """

    def step(folder: Path) -> int:
        return int(folder.name.rpartition("-")[2])

    folders = [f for f in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if f.name.rpartition("-")[2].isdigit()]
    for folder in sorted(folders, key=step, reverse=True):
        if (folder / COMPLETE).is_file():
            return str(folder)
        logger.warning("%s was not written to the end; passing it over", folder)
    return None
