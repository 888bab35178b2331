# SPDX-License-Identifier: Apache-2.0
"""
What a run that was cut may go on with: fields that change no step of it, and another number of processes or a smaller
micro-batch where gradient accumulation can make up for it, so that every step trains the rows that it would have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Where a run lies, what it logs, keeps and measures, and how fast it computes: these change no step of it.
HARMLESS = re.compile(
    r"(logging|log|save|eval|hub|ddp|wandb|trackio|prompt_cache|decode_cache|media_feature_cache|share)_\w+"
    r"|output_dir|run_dir|run_name|project|report_to|resume|resume_from_checkpoint|restore_callback_states\w+"
    r"|disable_tqdm|debug|decode_cache|media_feature_cache|num_completions_to_print|push_to_hub|per_device_eval_\w+"
    r"|dataloader_(num_workers|pin_memory|persistent_workers|prefetch_factor)|sampling_threads|skip_memory_metrics"
    r"|include_\w+|(gradient|activation)_checkpointing\w*|torch_empty_cache_steps|preemption_seconds|ds3_gather_for_generation|validation_max_new_tokens"
)
PER_DEVICE, ACCUMULATION, GENERATION = SIZES = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "steps_per_generation",
)
_DEFAULTS = {PER_DEVICE: 8, ACCUMULATION: 1}  # TrainingArguments' own; a test holds them together


def plain(value: Any) -> Any:
    """
    A value as YAML or the command line writes it, in one form.

    >>> plain("1e-5") == plain(0.00001), plain("true") == plain(True), plain(["a"]) == plain("a")
    (True, True, True)
    """
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return plain(value[0]) if len(value) == 1 else [plain(inner) for inner in value]
    number: Any = {"true": 1, "false": 0}.get(str(value).lower(), value)
    try:
        return float(number)
    except (TypeError, ValueError):
        return value


def changed_fields(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """What was written and what is written of each field that differs and may change the run; sizes of batches aside."""
    names = sorted(n for n in {*then, *now} - {*SIZES} if not HARMLESS.fullmatch(n))
    pairs = {n: [repr(f[n]) if n in f else "not given" for f in (then, now)] for n in names}
    return {n: " → ".join(pairs[n]) for n in names if plain(then.get(n)) != plain(now.get(n))}


def _size(fields: Mapping[str, Any], name: str) -> int:
    return int(fields.get(name) or _DEFAULTS.get(name) or _size(fields, ACCUMULATION))


def keep_rows(then: Mapping[str, Any], was: int, now: Mapping[str, Any], processes: int) -> dict[str, int]:
    """
    The gradient accumulation (and steps per generation) that give a step as many rows as it had on `was` processes;
    empty where nothing has to change, where it does not divide, and for a field that the user changed.

    >>> keep_rows({"per_device_train_batch_size": 4}, 2, {"per_device_train_batch_size": 2}, 1)
    {'gradient_accumulation_steps': 4}
    """
    before, after = was * _size(then, PER_DEVICE), processes * _size(now, PER_DEVICE)
    same = [n for n in (ACCUMULATION, *({GENERATION} & {*now})) if _size(then, n) == _size(now, n)]
    kept = {n: _size(now, n) * before // after for n in same if _size(now, n) * before % after == 0}
    return kept if before != after else {}


def changed_rows(then: Mapping[str, Any], was: int, now: Mapping[str, Any], processes: int) -> dict[str, str]:
    """What differs in the rows that a step trains, or that are generated together."""
    found = {}
    for name, size in (("rows a step", ACCUMULATION), ("rows a generation", GENERATION)):
        sizes = [p * _size(f, PER_DEVICE) * _size(f, size) for p, f in ((was, then), (processes, now))]
        if sizes[0] != sizes[1] and not (size == GENERATION and "generation_batch_size" in then):
            made = " × ".join((f"{processes} processes", *(f"{n} {_size(now, n)}" for n in (PER_DEVICE, size))))
            found[name] = f"{sizes[0]} → {sizes[1]} ({made}; write values whose product is {sizes[0]})"
    grouped = now.get("train_sampling_strategy") == "group_by_length" or plain(now.get("dataloader_drop_last")) == 1.0
    if was != processes and grouped and not found:
        found["processes"] = f"{was} → {processes} (with group_by_length or dataloader_drop_last, rows go by it)"
    return found
