# SPDX-License-Identifier: Apache-2.0
"""Checked rows to TRL data sets, and the preflight that meets every file before any training does."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, IterableDataset, Value
from datasets import List as ListOf
from tqdm.auto import tqdm

from omni_grpo.data.encoding.checks import TEXTS, media_problems, text_problems
from omni_grpo.data.encoding.encoder import PromptEncoder, processing_key
from omni_grpo.data.encoding.inputs import MODALITIES
from omni_grpo.data.media.segment import segment_of
from omni_grpo.data.media.settings import MediaError
from omni_grpo.data.rows.loading import check_rows, load_examples
from omni_grpo.data.rows.pairs import check_pairs
from omni_grpo.data.rows.prompts import build_messages, target_in_sections
from omni_grpo.data.rows.schema import FIELDS, MAX_REPORTED, DataError, Example, refuse
from omni_grpo.data.rows.sources import table_rows
from omni_grpo.data.rows.trl_rows import PICTURES, TRL_COLUMNS
from omni_grpo.families import base_of, family_of, tokenizer_of
from omni_rewards import CONTEXT_THINK_ANSWER, SectionSchema

logger = logging.getLogger(__name__)

SFT_TARGETS = ("target", "solution", "target_or_solution", "sections")
_PART = {
    **{name: Value("string") for name in ("type", "path", "text")},
    **{name: Value("float64") for name in ("start", "end")},
    "audio_in_video": Value("bool"),
}
_FEATURES = {
    **{name: Value("string") for name in FIELDS if name not in ("media", "meta")},
    "options": ListOf(Value("string")),
    "prompt": ListOf({"role": Value("string"), "content": ListOf(_PART)}),
}


def load_sources(
    sources: str | None,
    media_root: str | None = None,
    split: str = "train",
    media_roots: Sequence[str] | None = None,
) -> list[Example]:
    """
    Rows of one data file or data set, or of several separated by commas; ids are unique over all of them. `split` is
    read of a data set that is named without one.

    Raises:
        `DataError`: No source is named, or as in [`~omni_grpo.data.rows.loading.load_examples`] and
            [`~omni_grpo.data.rows.pairs.check_pairs`].
    """
    names = [name.strip() for name in (sources or "").split(",") if name.strip()]
    if not names:
        raise DataError("train_file: not given; name a JSONL file or a data set, several with commas between")
    first_seen: dict[str, str] = {}
    loaded = [load_examples(n, media_root, split, first_seen, media_roots) for n in names]
    examples = [example for part in loaded for example in part]
    check_pairs(examples)  # the rows of a pair may lie in two files
    return examples


def to_dataset(examples: Sequence[Example], prompt_style: str, load_audio_from_video: bool = False) -> Dataset:
    """
    A data set with TRL's `prompt` and the columns that rewards read (`solution`, `problem_type`, `options`,
    `context`, …, and those that rows of TRL's form bring). Prompts hold media paths, never arrays.

    Raises:
        `DataError`: Naming every row whose video has no sound to use, or cannot be opened to look.
    """
    prompts, errors = [], []
    for example in examples:
        try:
            prompts.append(build_messages(example, prompt_style, load_audio_from_video))
        except MediaError as error:
            errors.append(str(error))
    refuse(errors, "row(s) cannot be used")
    columns = {name: [getattr(e, name) or None for e in examples] for name in _FEATURES} | {"prompt": prompts}
    dataset = Dataset.from_dict(columns, features=Features(_FEATURES))
    for name in dict.fromkeys(name for example in examples for name in example.columns):
        dataset = dataset.add_column(name, [e.columns.get(name) for e in examples])
        if name in PICTURES:
            dataset = dataset.cast_column(name, Image() if name == "image" else ListOf(Image()))
    return dataset


def with_files(dataset: Any, targets: bool = False) -> Any:
    """
    A stock TRL data set, its pictures in columns or in turns, with prompts as [`to_dataset`] makes them, and `id` and
    `target` where it has none. One whose media are named by `path` already stays as it is. Of a dictionary, each.

    Args:
        dataset (`Dataset`, `IterableDataset`, `dict` or `None`): For a trainer.
        targets (`bool`, defaults to `False`): Whether each row needs a `target`, made of TRL's `completion` or `messages`.

    Raises:
        `DataError`: Naming every row that does not fit TRL's form; of a stream, when the row comes up.
    """
    if isinstance(dataset, dict):
        return {name: with_files(part, targets) for name, part in dataset.items()}
    if dataset is None or (dataset.features or {}).get("prompt") == _FEATURES["prompt"]:
        return dataset
    names = list(dataset.column_names or next(iter(dataset)))
    if not (set(names) & set(PICTURES) or _lacks_files(dataset, names) or (targets and "target" not in names)):
        return dataset
    new = ["prompt", *(name for name in ("id", "target") if name not in names)]

    def made(rows: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
        asked = ((at, {k: v for k, v in row.items() if k in (*TRL_COLUMNS, "target")}) for at, row in rows)
        examples = check_rows(asked, Path("/"), base=Path.cwd())
        return [{"prompt": build_messages(e, "short"), "id": e.id, "target": e.target} for e in examples]

    if isinstance(dataset, IterableDataset):
        return dataset.map(
            lambda row, i: {k: v for k, v in made([(f"row:{i}", row)])[0].items() if k in new}, with_indices=True
        )
    rows, dataset = made(table_rows(dataset, "row")), dataset.remove_columns([n for n in new if n in names])
    for name in new:
        dataset = dataset.add_column(name, [row[name] for row in rows], feature=_FEATURES[name])
    return dataset


def _lacks_files(dataset: Any, names: Sequence[str]) -> bool:
    """Whether a prompt has a medium without the `path` of its file; of a stream the first row tells."""
    if "prompt" not in names:
        return False
    rows = dataset["prompt"] if isinstance(dataset, Dataset) else [next(iter(dataset))["prompt"]]
    return any(p["type"] in MODALITIES and not p.get("path") for prompt in rows for p in _parts(prompt))


def _parts(prompt: Any) -> list[Any]:
    """Parts of a prompt's turns; none of a prompt or a turn that is plain text."""
    turns = [] if isinstance(prompt, str) else prompt
    return [part for turn in turns if not isinstance(turn.get("content"), str) for part in turn.get("content") or ()]


def with_sft_targets(dataset: Dataset, sft_target: str, schema: SectionSchema = CONTEXT_THINK_ANSWER) -> Dataset:
    """
    Fill the `target` column with what SFT is to imitate.

    Args:
        dataset (`Dataset`): From [`to_dataset`].
        sft_target (`str`): One of [`SFT_TARGETS`]: the row's target, its solution, the target where it has one, or the
            `sections` of it that `schema` names, see [`~omni_grpo.data.rows.prompts.target_in_sections`].
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
        prompts = dataset["prompt"] if dataset is not None and "prompt" in dataset.column_names else ()
        for part in (part for prompt in prompts for part in _parts(prompt)):
            found.update((part["type"], "audio") if part.get("audio_in_video") else (part["type"],))
    return frozenset(found & set(MODALITIES))


def refuse_lacking(model: Any, *datasets: Dataset | IterableDataset | None) -> None:
    """
    Hold data sets to the modalities that a model takes; a stream is held to them row by row, as it is encoded.

    Raises:
        `DataError`: Naming every row that shows another.
    """
    family, base, problems = family_of(model), base_of(model), []
    for dataset in (d for d in datasets if isinstance(d, Dataset) and family.cannot_take(modalities_of(d), base)):
        names = dataset["id"] if "id" in dataset.column_names else [f"#{i}" for i in range(len(dataset))]
        for name, prompt in zip(names, dataset["prompt"], strict=True):
            shown = [
                kind for part in _parts(prompt) for kind in (part["type"], part.get("audio_in_video") and "audio")
            ]
            if problem := family.cannot_take({*shown} & {*MODALITIES}, base):
                problems.append(f"row {name!r}: {problem}")
    refuse(problems, "row(s) cannot be used")


def _fingerprint(dataset: Dataset, encoder: PromptEncoder, collator: Any) -> str:
    """Changes with the prompts, the files' sizes and times, and everything that decides how they are encoded."""
    ways = [processing_key(encoder.processor), asdict(encoder.settings), encoder.max_prompt_length, encoder.escape]
    digest = hashlib.sha256(json.dumps([*ways, collator and collator.max_length]).encode())
    rows: Any = dataset.select_columns([name for name in ("prompt", *TEXTS) if name in dataset.column_names])
    for row in rows:
        files = [Path(part["path"]) for part in _parts(row["prompt"]) if part["path"]]
        stats = [file.stat() for file in files if file.exists()]  # one that went is named by the check
        digest.update(json.dumps([row, [(stat.st_size, stat.st_mtime_ns) for stat in stats]]).encode())
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
        tokenizer, limit = tokenizer_of(encoder.processor), encoder.max_prompt_length
        found = list(text_problems(tokenizer, row, encoder.escape))
        try:
            encoder(row["prompt"], row["id"]) if collator is None else collator([row])
        except (ValueError, MemoryError, RuntimeError) as error:  # also what torch says of too much memory
            found += media_problems(encoder.processor, row["prompt"], encoder.settings, encoder.read)
            longer = collator and replace(collator, encoder=encoder.lenient(None))
            for again in (lambda: encoder.lenient(limit)(row["prompt"], row["id"]), lambda: longer and longer([row])):
                try:
                    again()
                except ValueError as other:
                    found.append(str(other).removeprefix(f"row {row['id']!r}: "))
            found = found or [str(error).removeprefix(f"row {row['id']!r}: ")]
        return f"row {row['id']!r}: " + "; also: ".join(dict.fromkeys(found)) if found else None

    with ThreadPoolExecutor(workers or min(os.cpu_count() or 1, 16)) as pool:
        rows = dataset.select_columns([name for name in dataset.column_names if name not in PICTURES])
        results = tqdm(
            pool.map(check, rows),
            "checking data",
            len(dataset),
            leave=False,
            unit="row",
            delay=5,
            mininterval=0.1 if sys.stderr.isatty() else 30,
        )
        errors = [error for error in results if error]
    refuse(errors, "row(s) cannot be used")
    if done_file:
        done_file.parent.mkdir(parents=True, exist_ok=True)
        done_file.write_text(fingerprint)


def media_paths(prompts: Iterable[Any]) -> list[list[str]]:
    """Paths of each prompt's media, for logs, with the fragment of a segment; none of a prompt that is plain text."""
    return [[p["path"] + segment_of(p).fragment for p in _parts(prompt) if p.get("path")] for prompt in prompts]
