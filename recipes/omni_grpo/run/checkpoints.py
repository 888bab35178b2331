# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that can be trusted: whole, and taken where a resumed run goes on as if nothing had happened."""

from __future__ import annotations

import logging
import shutil
import sys
import zipfile
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import fsdp_utils
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints
from trl.trainer.utils import RepeatSampler

from omni_grpo.model.loading import load_model
from omni_grpo.model.run_record import COMPLETE as COMPLETE

logger = logging.getLogger(__name__)

# What the writers of weights and of states say of a disk, in errors that are no `OSError`.
_WRITE_ERRORS = ("os error", "inline_container", "PytorchStreamWriter")


# A Trainer, for type checkers of a kind unknown: upstream annotates its attributes as unions over every backend.
_Trainer: Any = object


class CompleteCheckpoints(_Trainer):
    """A `Trainer` that marks a checkpoint once all ranks have written it, loads all of it, and ends where it ends."""

    def create_accelerator_and_postprocess(self):
        """
        As the parent, before any weight is sharded.

        Raises:
            `ValueError`: FSDP is set up so that weights are not whole where they must be.
        """
        super().create_accelerator_and_postprocess()
        if (fsdp := getattr(self.accelerator.state, "fsdp_plugin", None)) is not None:
            refuse_parts(fsdp)

    def _save_checkpoint(self, model, trial):
        """Write as the parent does, wait for every rank, then leave the mark; only then may older ones go."""
        folder = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            with named_write_error(folder):
                super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            (folder / COMPLETE).touch()
            rotate_checkpoints(self.args.output_dir, limit, self.state.best_model_checkpoint, use_mtime=True)

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

    def _load_optimizer_and_scheduler(self, checkpoint):
        """
        Load them, or say that they are not there.

        Raises:
            `ValueError`: The checkpoint holds weights alone, with which upstream goes on as if nothing were missing.
        """
        if checkpoint is not None and not self.is_deepspeed_enabled and not any(Path(checkpoint).glob("optimizer*")):
            raise ValueError(
                f"{checkpoint} was saved with `save_only_model: true`, without optimiser and random state, so that no run "
                f"goes on from it. Begin one from it: `--model_name_or_path {checkpoint} --output_dir ANOTHER`"
            )
        with states_as_saved() if self.is_fsdp_enabled else nullcontext():
            super()._load_optimizer_and_scheduler(checkpoint)

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


def refuse_parts(fsdp: Any) -> None:
    """Raises `ValueError` for settings of FSDP under which a run would save nothing, or start from parts of its weights."""
    saved = fsdp.state_dict_type.name
    faults = {
        "fsdp_version: 2": fsdp.fsdp_version != 2 and "FSDP 1 is not supported",
        "fsdp_state_dict_type: FULL_STATE_DICT": saved != "FULL_STATE_DICT" and f"{saved} leaves no weights that load",
        "fsdp_cpu_ram_efficient_loading: false": fsdp.cpu_ram_efficient_loading
        and "one process alone would have the weights, and a reference or a tower's features be made of others",
    }
    for remedy, fault in faults.items():
        if fault:
            raise ValueError(f"{fault}; write `{remedy}` into the `fsdp_config` of the accelerate file")


@contextmanager
def states_as_saved():
    """
    Within: of an optimiser sharded by FSDP2 the states are loaded that there are, as for any other; a weight that no pass
    reaches has none. Accelerate asks for all of them by a function of its module, which is replaced in this place alone.
    """
    original: Any = fsdp_utils._prepare_sd_options
    fsdp_utils._prepare_sd_options = lambda plugin: replace(original(plugin), strict=False)
    try:
        yield
    finally:
        fsdp_utils._prepare_sd_options = original


@contextmanager
def named_write_error(folder: Path):
    """
    A full disk, or another reason why `folder` cannot be written, told with what is left and how to go on; the half of
    a checkpoint that was written is deleted.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        full = any(sign in str(error) for sign in _WRITE_ERRORS)
        if not (full or isinstance(error, OSError)):
            raise
        if folder.name.startswith(PREFIX_CHECKPOINT_DIR):
            shutil.rmtree(folder, ignore_errors=True)
            folder = folder.parent
        last = last_complete_checkpoint(folder)
        raise OSError(
            f"{folder}: cannot be written ({error}); make room there and start the same command again. It goes on from "
            f"{last or 'the beginning: there is no whole checkpoint yet'}"
        ) from error


def on_any_process(flag: bool, device: Any) -> bool:
    """Whether `flag` holds on one of the run's processes, all of which must ask."""
    if not torch.distributed.is_initialized():
        return flag
    found = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return bool(found)


class SaveWhenAsked(TrainerCallback):
    """
    Ends a run that was asked to end after a save: at the end of the step, or of the steps of its generated batch.

    Args:
        preemption ([`~omni_grpo.run.preemption.Preemption`]): Whether this process was asked.
    """

    def __init__(self, preemption: Any) -> None:
        self.preemption = preemption

    def on_train_begin(self, args, state, control, **kwargs):
        self.preemption.is_training = True

    def on_step_end(self, args, state, control, **kwargs):
        self.preemption.asked = on_any_process(self.preemption.asked, args.device)
        control.should_save |= self.preemption.asked  # `GenerationBorders`, which comes later, may put it off

    def on_save(self, args, state, control, **kwargs):
        control.should_training_stop |= self.preemption.asked

    def on_train_end(self, args, state, control, **kwargs):
        self.preemption.is_training = False
        if self.preemption.asked:
            sys.exit(self.preemption.exit_code)


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
        chooses_best (`bool`, defaults to `False`): Evaluations say which checkpoint is the best, and wait as saves do.
    """

    def __init__(self, micro_steps: int, chooses_best: bool = False) -> None:
        self.micro_steps = micro_steps
        self.wishes = ("should_save", "should_evaluate")[: 1 + chooses_best]
        self.waiting: set[str] = set()

    def on_step_end(self, args, state, control, **kwargs):
        border = state.global_step * args.gradient_accumulation_steps % self.micro_steps == 0
        last = state.global_step >= state.max_steps
        for wish in self.wishes:
            if getattr(control, wish) and not (border or last):
                self.waiting.add(wish)
                setattr(control, wish, False)
            elif wish in self.waiting and (border or last):
                self.waiting.remove(wish)
                setattr(control, wish, True)


def damaged_files(folder: Path) -> list[str]:
    """Weights and states of a checkpoint that are cut short, by what their formats say of their own length."""

    def is_whole(file: Path) -> bool:
        if file.suffix != ".safetensors":
            return zipfile.is_zipfile(file)  # what `torch.save` writes ends with its table of contents
        try:
            safe_open(file, "pt")
        except SafetensorError:
            return False
        return True

    suffixes = (".safetensors", ".pt", ".pth", ".bin")
    return [f.name for f in sorted(folder.rglob("*")) if f.suffix in suffixes and not is_whole(f)]


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _complete_checkpoints(output_dir: str | Path) -> list[Path]:
    """Newest first; a warning names incomplete ones that are newer than the first."""
    folders = [f for f in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if f.name.rpartition("-")[2].isdigit()]
    complete: list[Path] = []
    for folder in sorted(folders, key=_step, reverse=True):
        if (folder / COMPLETE).is_file():
            complete.append(folder)
        elif not complete:
            logger.warning("%s was not written to the end; passing it over", folder)
    return complete


def last_complete_checkpoint(output_dir: str | Path) -> str | None:
    """
    Newest checkpoint of a run that was written to the end; `None` where there is none. Newer incomplete ones are
    passed over, with a warning that names them.
    """
    return next(map(str, _complete_checkpoints(output_dir)), None)


def resume_checkpoint(output_dir: str | Path, named: str | bool | None = None) -> str | None:
    """
    Where a run goes on from.

    Args:
        output_dir (`str` or `Path`): The run's folder.
        named (`str` or `bool`, *optional*):
            `resume_from_checkpoint`: a checkpoint's folder, or true, which asks for one in `output_dir`. Checkpoints
            there that are newer than the named one are renamed, so that they are not taken for those of this run.

    Returns:
        `str` or `None`: The named checkpoint or the newest complete one; `None` where there is none.

    Raises:
        `ValueError`: It was not written to the end, or a file of it is cut short; the message names the one before.
    """
    complete = _complete_checkpoints(output_dir)
    word = str(named).lower()
    chosen = Path(str(named)) if word not in ("none", "true", "false") else next(iter(complete), None)
    if (chosen is None and word == "true") or (chosen is not None and not (chosen / COMPLETE).is_file()):
        raise ValueError(
            f"resume_from_checkpoint: {named} names no checkpoint that was written to the end (with a file {COMPLETE} in "
            f"it); in {output_dir} there are: {', '.join(map(str, complete)) or 'none'}. Name one, or leave the field out"
        )
    if chosen is not None and (damaged := damaged_files(chosen)):
        before = next((c for c in complete if _step(c) < _step(chosen)), None)
        way = (
            f"go on from the one before it with `--resume_from_checkpoint {before}`"
            if before
            else "there is none before"
        )
        raise ValueError(
            f"{chosen}: cut short or damaged: {', '.join(damaged)}; {way}, or begin anew: `--resume fresh`"
        )
    return str(chosen) if chosen else None
