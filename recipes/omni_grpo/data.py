# SPDX-License-Identifier: Apache-2.0
"""Checked rows to TRL data sets, and the preflight that meets every file before any training does."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, IterableDataset, Value
from datasets import List as ListOf
from tqdm.auto import tqdm

from omni_grpo.encoding import MODALITIES, PromptEncoder
from omni_grpo.prompts import build_messages
from omni_grpo.schema import MAX_REPORTED, DataError, Example, load_examples

logger = logging.getLogger(__name__)

_PART = {"type": Value("string"), "path": Value("string"), "text": Value("string"), "audio_in_video": Value("bool")}
_FEATURES = {
    "id": Value("string"),
    "prompt": ListOf({"role": Value("string"), "content": ListOf(_PART)}),
    "problem": Value("string"),
    "problem_type": Value("string"),
    "options": ListOf(Value("string")),
    "solution": Value("string"),
    "context": Value("string"),
    "target": Value("string"),
}


def load_sources(sources: str, media_root: str | None = None) -> list[Example]:
    """Rows of one data file or data set, or of several separated by commas; ids are unique over all of them."""
    examples: list[Example] = []
    seen: dict[str, str] = {}
    for source in (s.strip() for s in sources.split(",")):
        for example in load_examples(source, media_root):
            if example.id in seen:
                raise DataError(f"id {example.id!r} is in {seen[example.id]} and in {source}; ids are unique")
            seen[example.id] = source
            examples.append(example)
    return examples


def to_dataset(examples: Sequence[Example], prompt_style: str, load_audio_from_video: bool = False) -> Dataset:
    """
    A data set with TRL's `prompt` and the columns that rewards read (`solution`, `problem_type`, `options`,
    `context`, …). Prompts hold media paths, never arrays.
    """
    rows: dict[str, list[Any]] = {name: [] for name in _FEATURES}
    for example in examples:
        rows["prompt"].append(build_messages(example, prompt_style, load_audio_from_video))
        for name in _FEATURES:
            if name != "prompt":
                rows[name].append(getattr(example, name))
    return Dataset.from_dict(rows, features=Features(_FEATURES))


def with_sft_targets(dataset: Dataset, sft_target: str) -> Dataset:
    """
    Fill the `target` column with what SFT is to imitate.

    Raises:
        `DataError`: `sft_target` is `"target"` and rows have none.
    """
    if sft_target == "target":
        if missing := [i for i, target in zip(dataset["id"], dataset["target"], strict=True) if not target]:
            raise DataError(
                f"{len(missing)} row(s) have no `target` to imitate: {missing[:MAX_REPORTED]}; "
                "write targets, or set `sft_target: solution` for answers alone"
            )
        return dataset
    keep = sft_target == "target_or_solution"
    pairs = zip(dataset["target"], dataset["solution"], strict=True)
    targets = [(target if keep and target else solution) for target, solution in pairs]
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


def _fingerprint(dataset: Dataset, encoder: PromptEncoder) -> str:
    """Changes with the prompts, the files' sizes and times, and everything that decides how they are encoded."""
    digest = hashlib.sha256()
    digest.update(json.dumps([asdict(encoder.settings), encoder.max_prompt_length]).encode())
    digest.update(json.dumps(encoder.processor.to_dict(), sort_keys=True, default=str).encode())
    for prompt in dataset["prompt"]:
        digest.update(json.dumps(prompt, sort_keys=True).encode())
        for message in prompt:
            for part in message["content"]:
                if part["path"]:
                    stat = Path(part["path"]).stat()
                    digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()


def preflight(dataset: Dataset, encoder: PromptEncoder, done_file: Path | None = None, workers: int = 2) -> None:
    """
    Decode and encode every prompt once, so that no bad row is met after training has begun.

    Args:
        dataset (`Dataset`): With `id` and `prompt`.
        encoder ([`PromptEncoder`]): The run's own; what it encodes here and has room for is not encoded again.
        done_file (`Path`, *optional*): Remembers what was checked; an unchanged data set is not decoded again.
        workers (`int`, defaults to `2`): Threads.

    Raises:
        `DataError`: Naming every bad row (the first 20 in full).
    """
    fingerprint = _fingerprint(dataset, encoder)
    if done_file and done_file.is_file() and done_file.read_text() == fingerprint:
        return

    def check(row: dict[str, Any]) -> str | None:
        try:
            encoder(row["prompt"], row["id"])
        except ValueError as error:
            return f"row {row['id']!r}: {error}"
        return None

    with ThreadPoolExecutor(workers) as pool:
        results = tqdm(pool.map(check, dataset), total=len(dataset), desc="checking data", unit="row")
        errors = [error for error in results if error]
    if errors:
        more = f"\n… and {len(errors) - MAX_REPORTED} more" if len(errors) > MAX_REPORTED else ""
        raise DataError(f"{len(errors)} row(s) cannot be used:\n" + "\n".join(errors[:MAX_REPORTED]) + more)
    if done_file:
        done_file.parent.mkdir(parents=True, exist_ok=True)
        done_file.write_text(fingerprint)


def media_paths(prompts: Iterable[Any]) -> list[list[str]]:
    """Paths of each prompt's media, for logs."""
    return [[part["path"] for message in prompt for part in message["content"] if part["path"]] for prompt in prompts]
