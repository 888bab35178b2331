# SPDX-License-Identifier: Apache-2.0
"""Checked rows to TRL data sets, and the preflight that meets every file before any training does."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, IterableDataset, Value
from datasets import List as ListOf
from tqdm.auto import tqdm

from omni_grpo.encoding.encoder import PromptEncoder, processing_key
from omni_grpo.encoding.inputs import MODALITIES
from omni_grpo.media.segment import segment_of
from omni_grpo.media.settings import MediaError
from omni_grpo.rows.loading import load_examples
from omni_grpo.rows.pairs import check_pairs
from omni_grpo.rows.prompts import build_messages, target_in_sections
from omni_grpo.rows.schema import MAX_REPORTED, DataError, Example
from omni_rewards import CONTEXT_THINK_ANSWER, SectionSchema

logger = logging.getLogger(__name__)

SFT_TARGETS = ("target", "solution", "target_or_solution", "sections")
_PART = {
    **{name: Value("string") for name in ("type", "path", "text")},
    **{name: Value("float64") for name in ("start", "end")},
    "audio_in_video": Value("bool"),
}
_FEATURES = {
    "id": Value("string"),
    "prompt": ListOf({"role": Value("string"), "content": ListOf(_PART)}),
    "problem": Value("string"),
    "problem_type": Value("string"),
    "options": ListOf(Value("string")),
    "solution": Value("string"),
    "context": Value("string"),
    "reference_reasoning": Value("string"),
    "target": Value("string"),
    "pair": Value("string"),
}


def load_sources(
    sources: str | None, media_root: str | None = None, media_roots: Sequence[str] | None = None
) -> list[Example]:
    """
    Rows of one data file or data set, or of several separated by commas; ids are unique over all of them.

    Raises:
        `DataError`: No source is named, or as in [`~omni_grpo.rows.loading.load_examples`] and
            [`~omni_grpo.rows.pairs.check_pairs`].
    """
    names = [name.strip() for name in (sources or "").split(",") if name.strip()]
    if not names:
        raise DataError("train_file: not given; name a JSONL file or a data set, several with commas between")
    first_seen: dict[str, str] = {}
    loaded = [load_examples(n, media_root, first_seen=first_seen, media_roots=media_roots) for n in names]
    examples = [example for part in loaded for example in part]
    check_pairs(examples)  # the rows of a pair may lie in two files
    return examples


def to_dataset(examples: Sequence[Example], prompt_style: str, load_audio_from_video: bool = False) -> Dataset:
    """
    A data set with TRL's `prompt` and the columns that rewards read (`solution`, `problem_type`, `options`,
    `context`, …). Prompts hold media paths, never arrays.

    Raises:
        `DataError`: Naming every row whose video has no sound to use, or cannot be opened to look.
    """
    rows: dict[str, list[Any]] = {name: [] for name in _FEATURES}
    errors: list[str] = []
    for example in examples:
        try:
            rows["prompt"].append(build_messages(example, prompt_style, load_audio_from_video))
        except MediaError as error:
            errors.append(str(error))
        for name in _FEATURES:
            if name != "prompt":
                rows[name].append(getattr(example, name))
    _refuse(errors)
    return Dataset.from_dict(rows, features=Features(_FEATURES))


def _refuse(errors: Sequence[str]) -> None:
    if errors:
        more = f"\n… and {len(errors) - MAX_REPORTED} more" if len(errors) > MAX_REPORTED else ""
        raise DataError(f"{len(errors)} row(s) cannot be used:\n" + "\n".join(errors[:MAX_REPORTED]) + more)


def with_sft_targets(dataset: Dataset, sft_target: str, schema: SectionSchema = CONTEXT_THINK_ANSWER) -> Dataset:
    """
    Fill the `target` column with what SFT is to imitate.

    Args:
        dataset (`Dataset`): From [`to_dataset`].
        sft_target (`str`): One of [`SFT_TARGETS`]: the row's target, its solution, the target where it has one, or the
            `sections` of it that `schema` names, see [`~omni_grpo.rows.prompts.target_in_sections`].
        schema ([`~omni_rewards.SectionSchema`], *optional*): The prompt style's.

    Raises:
        `DataError`: `sft_target` is `"target"` or `"sections"` and rows lack what is to be imitated.
        `ValueError`: `sft_target` is unknown.
    """
    if sft_target not in SFT_TARGETS:
        raise ValueError(f"sft_target: {sft_target!r} is unknown; one of {', '.join(SFT_TARGETS)}")
    pairs = list(zip(dataset["target"], dataset["solution"], strict=True))
    if sft_target == "sections":
        targets = [target_in_sections(target, solution, schema) for target, solution in pairs]
    else:
        keep, else_solution = sft_target != "solution", sft_target != "target"
        targets = [(keep and target) or (else_solution and solution) or None for target, solution in pairs]
    if missing := [i for i, target in zip(dataset["id"], targets, strict=True) if not target]:
        sections = "" if sft_target == "target" else f" with the sections {', '.join(schema.names)}"
        raise DataError(
            f"{len(missing)} row(s) have no `target`{sections} to imitate: {missing[:MAX_REPORTED]}; "
            "write targets, or set `sft_target: solution` for answers alone"
        )
    return dataset.remove_columns("target").add_column("target", targets)


def modalities_of(*datasets: Dataset | IterableDataset | None) -> frozenset[str]:
    """Modalities that occur in the prompts; all of them where a stream cannot tell."""
    found: set[str] = set()
    for dataset in datasets:
        if isinstance(dataset, IterableDataset):
            return frozenset(MODALITIES)
        for prompt in dataset["prompt"] if dataset is not None else ():
            for message in prompt:
                if isinstance(message["content"], str):
                    continue
                for part in message["content"]:
                    found.add(part["type"])
                    if part.get("audio_in_video"):
                        found.add("audio")
    return frozenset(found & set(MODALITIES))


def _fingerprint(dataset: Dataset, encoder: PromptEncoder, collator: Any) -> str:
    """Changes with the prompts, the files' sizes and times, and everything that decides how they are encoded."""
    digest = hashlib.sha256(processing_key(encoder.processor).encode())
    digest.update(json.dumps([asdict(encoder.settings), encoder.max_prompt_length]).encode())
    if collator is not None:
        digest.update(json.dumps([collator.max_length, *dataset["target"]]).encode())
    for prompt in dataset["prompt"]:
        digest.update(json.dumps(prompt, sort_keys=True).encode())
        for message in prompt:
            for part in message["content"]:
                if part["path"] and (file := Path(part["path"])).exists():  # one that went is named by the check
                    stat = file.stat()
                    digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()


def preflight(
    dataset: Dataset,
    encoder: PromptEncoder,
    done_file: Path | None = None,
    workers: int | None = None,
    collator: Any = None,
) -> None:
    """
    Decode and encode every prompt once, so that no bad row is met after training has begun.

    Args:
        dataset (`Dataset`): With `id` and `prompt`.
        encoder ([`PromptEncoder`]): The run's own; what it encodes here and has room for is not encoded again.
        done_file (`Path`, *optional*): Remembers what was checked; an unchanged data set is not decoded again.
        workers (`int`, *optional*): Threads; one a core by default, at most 16.
        collator ([`~omni_grpo.sft.OmniCollator`], *optional*): SFT's own, which knows how long a target may be.

    Raises:
        `DataError`: Naming every bad row (the first 20 in full).
    """
    fingerprint = _fingerprint(dataset, encoder, collator)
    if done_file and done_file.is_file() and done_file.read_text() == fingerprint:
        return

    def check(row: dict[str, Any]) -> str | None:
        try:
            if collator is None:
                encoder(row["prompt"], row["id"])
            else:
                collator([row])
        except (ValueError, MemoryError, RuntimeError) as error:  # also what torch says of too much memory
            text = str(error)  # upstream's own do not name the row
            return text if text.startswith("row ") else f"row {row['id']!r}: {text}"
        return None

    with ThreadPoolExecutor(workers or min(os.cpu_count() or 1, 16)) as pool:
        results = tqdm(pool.map(check, dataset), total=len(dataset), desc="checking data", unit="row")
        errors = [error for error in results if error]
    _refuse(errors)
    if done_file:
        done_file.parent.mkdir(parents=True, exist_ok=True)
        done_file.write_text(fingerprint)


def media_paths(prompts: Iterable[Any]) -> list[list[str]]:
    """Paths of each prompt's media, for logs, with the fragment of a segment; none of a prompt that is plain text."""
    messages = [[m for m in prompt if not isinstance(m, str)] for prompt in prompts]
    contents = [[m["content"] for m in prompt if not isinstance(m["content"], str)] for prompt in messages]
    parts = [[part for content in prompt for part in content if part.get("path")] for prompt in contents]
    return [[part["path"] + segment_of(part).fragment for part in prompt] for prompt in parts]
