# SPDX-License-Identifier: Apache-2.0
"""What the entry scripts share: claim a stage, speak from the main process, load by name, log, save."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from omni_grpo.launch.preemption import Preemption
from omni_grpo.launch.run_lock import hold
from omni_grpo.launch.stages import Stage

SETTINGS = "omni_settings.json"


def is_main_process() -> bool:
    """Whether this is the launch's first process; right before torch is imported, too."""
    return int(os.environ.get("RANK", "0")) == 0


def announce(text: str) -> None:
    """A line for the person at the terminal, from the main process alone."""
    if is_main_process():
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def claim(argv: list[str]) -> Stage | None:
    """
    The stage that `argv` describes; `None` when it is done and its inputs have not changed. Nothing is touched yet, but
    `argv` gains what keeps a cut run's rows on another number of processes, see [`Stage.kept_rows`].

    Raises:
        `FileNotFoundError`: The config file is not there.
        `ValueError`: No `output_dir` is given.
    """
    stage = Stage.of(argv)
    argv += [part for name, value in stage.kept_rows().items() for part in (f"--{name}", str(value))]
    if stage.is_done():
        announce(f"{stage.folder}: done already, inputs unchanged")
        return None
    return stage


def begin(stage: Stage) -> None:
    """
    Make the stage's folder ready. Called after the fields were parsed: a mistyped one must not set a finished run
    aside.

    Raises:
        `ValueError`: A run was cut there whose fields were others, see [`Stage.check`].
    """
    kept = stage.kept_rows()  # of the run as it lies there
    if is_main_process():
        hold(stage.folder)
        moved = stage.begin()
        if moved is not None:
            announce(f"{stage.folder} held a run of other inputs; it is now {moved}")
    else:
        stage.check()
    for name, value in kept.items():
        announce(f"{name} is {value}: as many rows as before the run was cut, on {stage.processes} processes now")


def watch(stage: Stage) -> Preemption:
    """From here on the process ends when it is asked to, or when its launcher has ended; see [`Preemption`]."""
    return Preemption(float(stage.fields.get("preemption_seconds", 45)))


def load_object(path: str) -> Any:
    """
    `"package.module.name"` to the object.

    Raises:
        `ValueError`: There is no such module or name; the message has the path as it was written.

    >>> load_object("os.path.basename")("a/b")
    'b'
    """
    module, _, name = path.rpartition(".")
    if os.getcwd() not in sys.path:  # a module of the user's own, beside the command
        sys.path.append(os.getcwd())
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"reward_funcs: cannot import {path!r} ({error})") from error


def model_kwargs(model_args: Any) -> dict[str, Any]:
    """`from_pretrained` arguments of a [`~trl.ModelConfig`]."""
    kwargs = {"dtype": model_args.dtype, "attn_implementation": model_args.attn_implementation}
    if model_args.model_revision != "main":
        kwargs["revision"] = model_args.model_revision
    return {k: v for k, v in kwargs.items() if v is not None}


def peft_config(model_args: Any) -> Any:
    """LoRA as [`~trl.ModelConfig`] describes it, kept out of the towers; `None` without `use_peft`."""
    if not model_args.use_peft:
        return None
    from trl import get_peft_config

    from omni_grpo.model.loading import language_model_targets

    model_args.lora_target_modules = language_model_targets(model_args.lora_target_modules)
    return get_peft_config(model_args)


def save_final(trainer: Any, processor: Any, media: Any, prompt_style: str) -> None:
    """
    The trained weights, the processor and how prompts were made ([`SETTINGS`], read by `ask_omni.py`), in
    `output_dir` itself: an ordinary checkpoint directory.
    """
    from omni_grpo.checkpoints import named_write_error

    with named_write_error(Path(trainer.args.output_dir)):
        trainer.save_model(trainer.args.output_dir)
    if is_main_process():
        processor.save_pretrained(trainer.args.output_dir)
        settings = {"media": asdict(media), "prompt_style": prompt_style}
        (Path(trainer.args.output_dir) / SETTINGS).write_text(json.dumps(settings, indent=1))
    trainer.accelerator.wait_for_everyone()
