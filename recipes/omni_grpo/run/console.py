# SPDX-License-Identifier: Apache-2.0
"""
What a person reads on the terminal: a mistake as its message and no more, and no line of a library that nobody can do
anything about. `--debug` shows tracebacks, `--log_level info` what the libraries say.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import time
import traceback
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

import omni_rewards
from omni_grpo.run.preemption import ends_by_itself
from omni_grpo.run.scripts import announce, is_main_process
from omni_grpo.run.stages import read_fields

_ERRORS = (ValueError, OSError, ImportError, ArithmeticError, RuntimeError, ArgumentError, yaml.YAMLError)
_OURS = tuple(f"{folder}{os.sep}" for folder in (Path(__file__).parents[1], Path(omni_rewards.__file__).parent))
_ASKED = ("parse", "read_fields", "load_processor")  # what fails in these was written by the user
_LAUNCHERS = re.compile(r"accelerate(-launch)?|torchrun|(torch\.distributed|accelerate\.commands)\.\w+")
# What libraries say on every run: transformers has new names for what TRL sets and asks for, DeepSpeed and
# bitsandbytes look for what a CPU lacks, and a published checkpoint's configuration and tokenizer name other tokens (which ones follows).
_WARNED = r"`(is_)?gradient_checkpointing` is deprecated and will be removed in v6\. Use `\1activation_checkpointing` instead\.\Z"
_LOGGED = {
    "DeepSpeed": "Setting accelerator to CPU. If you have GPU or other accelerator, we were unable to detect it.",
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward from kernels-community",
    "matplotlib.font_manager": "generated new fontManager",
    "transformers.trainer_utils": "The tokenizer has new PAD/BOS/EOS tokens that differ from the model config and "
    "generation config. The model config and generation config were aligned accordingly",
}


def run(main: Callable[[list[str]], None]) -> None:
    """
    An entry script's `main` on the words of the command line. A mistake of the user's ends with its message and exit code
    1, without a traceback of ours or of the launcher's.
    """
    words = sys.argv[1:]  # `--debug` with a value is transformers' own field
    debug = [i for i, word in enumerate(words) if word == "--debug" and (*words, "--")[i + 1].startswith("--")]
    argv = [word for i, word in enumerate(words) if i not in debug]
    try:
        fields = read_fields(argv)
        downloads = tell_downloads(fields)
        if fields.get("log_level") not in ("info", "debug", "detail"):
            hide_third_parties(downloads)
        main(argv)
    except _ERRORS as error:
        if debug or not is_message(error):
            raise
        if not is_main_process():
            time.sleep(10)  # the main process says it for all that have met it
        sys.stderr.write(f"{error}\n")
        end_launcher()
        sys.exit(1)


def is_message(error: BaseException) -> bool:
    """
    Whether `error` tells the user of a mistake: by a `raise` of ours, by whatever refuses the run's fields, or by the
    system, of a file. What a line merely ran into is a bug.
    """
    if isinstance(error, OSError) and error.filename:
        return True
    *way, last = traceback.extract_tb(error.__traceback__)
    asked = any(place.name in _ASKED for place in way if place.filename.startswith(_OURS))
    return asked or (
        last.filename.startswith((*_OURS, str(Path(sys.argv[0]).resolve().parent)))
        and (last.line or "").startswith("raise ")
    )


def end_launcher() -> None:
    """
    End what started this process, `accelerate launch` or torchrun, and the processes beside this one: it would add a
    traceback of its own, forty lines about an exit code. Its own becomes that of SIGUSR1, the signal that no launcher
    handles.
    """
    import psutil

    launcher = psutil.Process().parent()
    if launcher is None or not any(_LAUNCHERS.fullmatch(Path(word).name) for word in launcher.cmdline()[:4]):
        return
    others = [process for process in launcher.children() if process.pid != os.getpid()]
    ends_by_itself()  # also once its launcher is gone
    launcher.send_signal(signal.SIGUSR1)
    for process in others:
        process.kill()


def hide_third_parties(downloads: bool) -> None:
    """
    Leave out what libraries say on every run and nobody who runs it can change: those very messages, no others; and the
    bars of loading and saving, which show `downloads` as well.
    """
    from huggingface_hub.utils import disable_progress_bars

    if not downloads:
        disable_progress_bars()
    warnings.filterwarnings("ignore", message=_WARNED)
    for name, text in _LOGGED.items():
        logging.getLogger(name).addFilter(lambda record, text=text: not record.getMessage().startswith(text))


def tell_downloads(fields: Mapping[str, Any]) -> bool:
    """Say in one line which models come from the Hugging Face hub now; whether any does."""
    from huggingface_hub import try_to_load_from_cache

    named = fields.get("models")
    pairs = [str(pair).partition("=")[2] for pair in (named if isinstance(named, list) else [named])]
    models = [fields.get("model_name_or_path"), *pairs]
    hub = [m for m in models if m and re.fullmatch(r"\w[\w.-]*/[\w.-]+", m) and not Path(m).exists()]
    if new := [m for m in hub if not try_to_load_from_cache(m, "config.json")]:
        announce(
            f"first run: {', '.join(new)} is not on this machine and is downloaded from the Hugging Face hub, once"
        )
    return bool(new)
