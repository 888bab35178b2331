# SPDX-License-Identifier: Apache-2.0
"""The completions that a trainer logged, `<stage>/completions/*.parquet`, as groups of one prompt each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from omni_grpo.report.figures import number
from omni_grpo.report.run_folder import in_order, read_log
from omni_grpo.report.segments import TAG_OR_OUTSIDE, schema_of_columns
from omni_rewards import SectionSchema

_OWN = {"step", "prompt", "completion", "id", "media", "group", "solution", "problem_type", "reward", "advantage"}
_MEDIA_MARKS = re.compile(r"^(\[(video|audio|image) [^\]]*\]\s*)+")


@dataclass
class Rollout:
    """One completion. `rewards`, `total` and the advantages are `None` where the table has no finite number."""

    text: str
    rewards: dict[str, float | None]
    total: float | None
    advantage: float | None
    by_place: dict[str, float | None]
    notes: dict[str, str]
    flags: set[str] = field(default_factory=set)


@dataclass
class Group:
    """The completions of one prompt at one step. `gold` is `None` where it was not logged."""

    stage: str
    step: int
    held_out: bool
    id: str
    question: str
    gold: str | None
    problem_type: str | None
    media: tuple[str, ...]
    schema: SectionSchema
    rollouts: list[Rollout]


def read_rollouts(run: Path) -> list[Group]:
    """
    Every group of every stage's completions table, stages in their order, steps rising.

    A generation batch that served several steps is logged after each of them; it is taken once, at the first. Tables
    written before the column `group` existed are cut where the prompt changes.

    Raises:
        ImportError: if pyarrow is missing; it comes with `omni-grpo[train]`.
    """
    folders = {folder.parent.name: folder for folder in run.glob("*/completions") if "." not in folder.parent.name}
    return [group for stage in in_order(folders) for group in _read_stage(stage, folders[stage])]


def _read_stage(stage: str, folder: Path) -> Iterator[Group]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("rollouts are read with pyarrow: pip install 'omni-grpo[train]'") from error
    log = folder.parent / "log.jsonl"
    keys = {key for row in (read_log(log) if log.is_file() else []) for key in row}
    logged = {match[1] for key in keys if (match := re.fullmatch(r"(?:eval_)?rewards/(.+)/mean", key))}
    seen: set[str] = set()
    before: set[str] = set()
    for file in sorted(folder.glob("*.parquet"), key=lambda file: int(re.sub(r"\D", "", file.stem) or 0)):
        table = pyarrow.parquet.read_table(file)
        columns = table.column_names
        floats = {field.name for field in table.schema if pyarrow.types.is_floating(field.type)}
        rewards = [c for c in columns if (c in logged if logged else c in floats and _is_reward(c))]
        schema = schema_of_columns(columns)
        now: set[str] = set()
        for key, rows in groupby(table.to_pylist(), key=_group_key):
            group = _group(stage, list(rows), rewards, schema)
            # Without a name, what was in the table of the step before is taken for the same.
            name = str(key) if "group" in columns else repr((group.id, [r.text for r in group.rollouts]))
            now.add(name)
            if name not in (seen if "group" in columns else before):
                yield group
        seen |= now
        before = now


def _group_key(row: Mapping[str, Any]) -> str:
    return str(row["group"]) if "group" in row else repr((row.get("id"), _last_text(row.get("prompt"))))


def _group(stage: str, rows: list[dict[str, Any]], rewards: list[str], schema: SectionSchema) -> Group:
    first = rows[0]
    media = str(_given(first.get("media")) or "")
    paths = media.split("\n") if "group" in first else media.split(" ")
    return Group(
        stage=stage,
        step=int(first["step"]),
        held_out=str(first.get("group", "")).startswith("eval"),
        id=str(_given(first.get("id")) or ""),
        question=_MEDIA_MARKS.sub("", _last_text(first.get("prompt"))),
        gold=_given(first.get("solution")),
        problem_type=_given(first.get("problem_type")),
        media=tuple(dict.fromkeys(path for path in paths if path)),
        schema=schema,
        rollouts=[_rollout(row, rewards, schema) for row in rows],
    )


def _rollout(row: dict[str, Any], rewards: list[str], schema: SectionSchema) -> Rollout:
    scores = {name: number(row.get(name)) for name in rewards}
    given = [score for score in scores.values() if score is not None]
    total = number(row["reward"]) if "reward" in row else sum(given) if given else None
    by_place = {p: number(row.get(f"advantage_{p}")) for p in (*schema.names, *TAG_OR_OUTSIDE)}
    known = {*_OWN, *rewards, *schema.names, *(f"advantage_{p}" for p in by_place)}
    notes = {
        name: str(value) for name, v in row.items() if name not in known and (value := _given(v)) not in (None, "")
    }
    text = _last_text(row.get("completion"))
    return Rollout(text, scores, total, number(row.get("advantage")), by_place, notes)


def _is_reward(column: str) -> bool:
    """Whether a column of numbers is a reward, where no log says so: any that is none of ours."""
    return column not in _OWN and not column.startswith("advantage_")


def _given(value: Any) -> Any:
    """`None` for what a table holds where there is nothing."""
    return None if value is None or value != value else value


def _last_text(messages: Any) -> str:
    """The content of the last message; plain text as it is."""
    if messages is None or isinstance(messages, str):
        return messages or ""
    return str(messages[-1].get("content") or "") if len(messages) else ""
