# SPDX-License-Identifier: Apache-2.0
"""From a finished sampling to a data file of the rows that are selected."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

from omni_grpo.config import DataArguments
from omni_grpo.data.dataset import load_sources
from omni_grpo.data.rows.writing import as_row, preference_rows
from omni_grpo.run.scripts import trained_settings
from omni_grpo.run.stages import RECORD, contents
from omni_grpo.sampling.sampling import SAMPLES
from omni_grpo.sampling.selection import Rule, select


def write_selection(name: str, folder: Path, destination: Path, rule: Rule) -> str:
    """
    Write a selection's rows to `destination` and say how many they are, and why the others are not.

    A row of a `contrast_pairs` pair whose partner is not selected loses its `pair`. Media paths are relative to the
    folder of `destination` where all media lie below it, and absolute otherwise.

    Args:
        name (`str`): Key of [`~omni_grpo.sampling.selection.SELECTIONS`].
        folder (`Path`): `output_dir` of the sampling.
        destination (`Path`): The JSONL file.
        rule ([`~omni_grpo.sampling.selection.Rule`]): What is right and what is asked.

    Raises:
        `FileNotFoundError`: There is no sampling in `folder`.
        `ValueError`: It is not finished, its rows have changed since, `destination` is one of its data files, or
            as [`~omni_grpo.sampling.selection.select`].
    """
    if not (folder / RECORD).is_file() or not (folder / SAMPLES).is_file():
        raise FileNotFoundError(f"{folder}: no sampling is there; run recipes/sample_omni.py, and name its output_dir")
    record = json.loads((folder / RECORD).read_text())
    if not record["done"]:
        raise ValueError(f"{folder}: the sampling was cut; run recipes/sample_omni.py again, and it goes on")
    names = {f.name for f in fields(DataArguments)} & record["fields"].keys()
    data = DataArguments(**{field: record["fields"][field] for field in names})
    if contents({"train_file": data.train_file}).get("train_file") != record["contents"].get("train_file"):
        raise ValueError(f"{data.train_file}: its rows are not those that were sampled; sample them anew")
    if destination.resolve() in [Path(source.strip()).resolve() for source in (data.train_file or "").split(",")]:
        raise ValueError(f"{destination}: is what was sampled, and stays; name another file")
    samples = [json.loads(line) for line in (folder / SAMPLES).read_text(encoding="utf-8").splitlines()]
    selected, left_out = select(name, samples, rule)
    examples = load_sources(data.train_file, data.media_root, data.train_split, data.media_roots)
    chosen = [(e, selected[e.id]) for e in examples if e.id in selected]
    told = [f"{len(chosen)} of {len(samples)} rows written to {destination}"]
    told += [f"{count} left out: {reason}" for reason, count in left_out.most_common()]
    if name == "pairs":
        made = trained_settings(str(folder))
        rows = preference_rows(chosen, made["prompt_style"], made["load_audio_from_video"])
    else:
        paths, below = [Path(m.path).parent for e, _ in chosen for m in e.media], destination.parent.resolve()
        if not (are_below := all(path.is_relative_to(below) for path in paths)):
            told.append(f"their media lie elsewhere: train with `media_root: {os.path.commonpath(paths)}`")
        partners = Counter(e.pair for e, _ in chosen)
        kept = [(e if partners[e.pair] == 2 else replace(e, pair=None), added) for e, added in chosen]
        rows = [as_row(e, below if are_below else None) | added for e, added in kept]
    destination.parent.mkdir(parents=True, exist_ok=True)
    draft = destination.with_name(f"{destination.name}.tmp")  # the file is whole or not there
    draft.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    os.replace(draft, destination)
    return "\n".join(told)
