# SPDX-License-Identifier: Apache-2.0
"""What the entry scripts share: claim a stage, speak from the main process, load by name, log, save."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omni_grpo.run.preemption import Preemption
from omni_grpo.run.run_lock import hold
from omni_grpo.run.stages import Stage, read_fields

SETTINGS = "omni_settings.json"
ENCODING = ("prompt_style", "escape_control_tokens")  # beside `MediaSettings`, what decides how a row becomes a prompt


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


def load_object(path: str, field: str = "reward_funcs") -> Any:
    """
    `"package.module.name"`, as a run's `field` names it, to the object.

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
        raise ValueError(f"{field}: cannot import {path!r} ({error})") from error


def check_evaluation(validation_file: str | None, args: Any) -> None:
    """
    Hold the rows of validation and the fields that evaluate on them together.

    Raises:
        `ValueError`: The run is to evaluate, and has nothing to do so on.
    """
    evaluates = args.eval_strategy != "no" or args.eval_on_start
    if evaluates and not validation_file:
        raise ValueError("eval_strategy: there are no rows to evaluate on; name them in `validation_file`")
    if validation_file and not evaluates:
        announce("validation_file: nothing is evaluated on it; set `eval_strategy: steps` for that")


def model_kwargs(model_args: Any) -> dict[str, Any]:
    """
    [`~omni_grpo.model.loading.load_model`]'s arguments of a [`~trl.ModelConfig`]. Of a quantised model the language
    model is, in 4 or 8 bits; the towers and the head keep theirs.

    Raises:
        `ValueError`: No model is named, or a quantised one is to be trained without LoRA.
        `ImportError`: It needs bitsandbytes.
    """
    if not model_args.model_name_or_path:
        raise ValueError("model_name_or_path: not given; name a checkpoint's folder, or a model on the hub")
    kwargs = {"dtype": model_args.dtype, "attn_implementation": model_args.attn_implementation}
    if model_args.model_revision != "main":
        kwargs["revision"] = model_args.model_revision
    for field in (name for name in ("load_in_4bit", "load_in_8bit") if getattr(model_args, name)):
        if not model_args.use_peft:
            raise ValueError(f"{field}: a quantised model is trained through LoRA alone; set `use_peft: true`")
        if find_spec("bitsandbytes") is None:
            raise ImportError(f"{field} needs bitsandbytes: pip install 'omni-grpo[quantization]'")
        from trl import get_quantization_config

        from omni_grpo.model.loading import family_of_checkpoint

        quantization: Any = get_quantization_config(model_args)
        towers = {
            name for names in family_of_checkpoint(model_args.model_name_or_path).towers.values() for name in names
        }
        quantization.llm_int8_skip_modules = [f".*{name}" for name in sorted(towers)] + ["lm_head"]  # of 4 bits, too
        kwargs["quantization_config"] = quantization
    return {k: v for k, v in kwargs.items() if v is not None} | {"keep_adapter": model_args.use_peft}


def peft_config(model_args: Any) -> Any:
    """
    LoRA as [`~trl.ModelConfig`] describes it, kept out of the towers; `None` without `use_peft`, and where the model is
    an adapter, which is trained on as it is.

    Raises:
        `ValueError`: The model is an adapter, and fields ask for another.
    """
    if not model_args.use_peft:
        return None
    from peft import PeftConfig
    from trl import ModelConfig, get_peft_config

    from omni_grpo.model.loading import family_of_checkpoint, language_model_targets

    folder = model_args.model_name_or_path
    layers = family_of_checkpoint(folder).language_layers
    model_args.lora_target_modules = language_model_targets(model_args.lora_target_modules, layers)
    asked: Any = get_peft_config(model_args)
    if not (Path(folder) / "adapter_config.json").is_file():
        return asked
    usual = get_peft_config(ModelConfig(use_peft=True, lora_target_modules=language_model_targets(None, layers)))  # type: ignore[arg-type]
    own, default = vars(PeftConfig.from_pretrained(folder)), vars(usual)
    written = own["target_modules"]  # by a trainer, layer by layer, where experts are routed
    if not isinstance(written, str) and isinstance(asked.target_modules, str):
        named = set(re.findall(r"\w+", asked.target_modules))
        own["target_modules"] = asked.target_modules if {n.split(".")[-1] for n in written} <= named else written
    if other := [k for k, v in vars(asked).items() if v not in (default[k], own.get(k))]:
        names = ", ".join(k if k.startswith(("lora", "use")) else f"lora_{k}" for k in other)
        raise ValueError(f"{names}: {folder} is an adapter that says otherwise and trains on as it is; leave them out")
    announce(f"training goes on with the adapter in {folder}")
    return None


def note_settings(folder: str, data: Any, media: Any) -> None:
    """Write down how prompts are made ([`SETTINGS`]) where the trained weights will be."""
    if is_main_process():
        settings = {"media": asdict(media), **{name: getattr(data, name) for name in ENCODING}}
        (Path(folder) / SETTINGS).write_text(json.dumps(settings, indent=1))


def trained_settings(model: str | None) -> dict[str, Any]:
    """
    How the prompts were made that a checkpoint was trained with: the fields of `MediaSettings`, and [`ENCODING`].

    Args:
        model (`str`, *optional*):
            Directory, one of its `checkpoint-N`, or hub name. The answer is empty where nothing was noted.
    """
    if not model:
        return {}
    folder = Path(model)
    places = [folder, folder.resolve().parent] if folder.name.startswith("checkpoint-") else [folder]
    file: Any = next((place / SETTINGS for place in places if (place / SETTINGS).is_file()), None)
    if not folder.is_dir() and re.fullmatch(r"\w[\w.-]*/[\w.-]+", model):
        from transformers.utils.hub import cached_file

        faults = ("missing_entries", "connection_errors", "gated_repo")  # which are met when the model is loaded
        file = cached_file(model, SETTINGS, **{f"_raise_exceptions_for_{fault}": False for fault in faults})
    noted = json.loads(Path(file).read_text()) if file else {}
    return noted.pop("media", {}) | noted


def as_trained(model: str, argv: Sequence[str], data: Any, media: Any) -> tuple[Any, Any]:
    """`data` and `media` with what `model` was trained with where `argv` says nothing; what `argv` changes is said."""
    written, ours = read_fields(argv), {**{name: getattr(data, name) for name in ENCODING}, **asdict(media)}
    trained = {name: value for name, value in trained_settings(model).items() if name in ours}
    said = [name for name in trained if name in written or f"no_{name}" in written]
    if other := [f"{n} {trained[n]} (here {ours[n]})" for n in said if ours[n] != trained[n]]:
        announce(f"{model} was trained with other settings, which this run overrides: {', '.join(other)}")
    kept = {name: value for name, value in trained.items() if name not in said}
    data = replace(data, **{name: kept.pop(name) for name in ENCODING if name in kept})
    return data, replace(media, **kept)


def save_final(trainer: Any, processor: Any) -> None:
    """
    The trained weights and the processor in `output_dir` itself, an ordinary checkpoint directory.

    Raises:
        `RuntimeError`: No step was made, and the weights are those from before.
    """
    if trainer.state.global_step == 0:
        raise RuntimeError("no step was made, so there is nothing to save; look at max_steps, epochs and the data")
    from omni_grpo.run.checkpoints import named_write_error

    with named_write_error(Path(trainer.args.output_dir)):
        trainer.save_model(trainer.args.output_dir)
    if is_main_process():
        processor.save_pretrained(trainer.args.output_dir)
    trainer.accelerator.wait_for_everyone()
