# SPDX-License-Identifier: Apache-2.0
"""What a run left on disk: `<stage>/log.jsonl`, `eval/<stage>/{predictions.jsonl,metrics.json}` and `metrics.json`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

Row = dict[str, Any]

# Stages in the order in which they are run and shown; any other follows in alphabetical order.
STAGES = {
    "pretrain": "Perception pre-training",
    "base": "Base",
    "sft": "Cold start",
    "control": "Control",
    "rl": "GRPO",
}
FULL = "full"  # the variant with all media


@dataclass(frozen=True)
class RunFolder:
    """One run, read. `predictions` holds the rows with all media, by id; `notes` says what is absent or unreadable."""

    path: Path
    metrics: Row
    logs: dict[str, list[Row]]
    predictions: dict[str, dict[str, Row]]
    notes: tuple[str, ...]

    @property
    def evaluated(self) -> dict[str, Row]:
        """Metrics of each evaluated stage, in the order in which they are shown."""
        return self.metrics["stages"]

    def label(self, stage: str) -> str:
        """The stage's name on the page; `labels` in metrics.json may override it."""
        labels = self.metrics.get("labels")
        own = labels.get(stage) if isinstance(labels, dict) else None
        return str(own or STAGES.get(stage) or stage.replace("_", " ").capitalize())


def read_run(path: Path) -> RunFolder:
    """Reads a run folder of which any part may be missing.

    Raises:
        FileNotFoundError: if there is neither a log nor an evaluation in it.
        ValueError: if a metrics.json is not a JSON object.
    """
    notes: list[str] = []
    logs = {log.parent.name: read_log(log, notes) for log in _of_stages(path, "*/log.jsonl")}
    metrics = _read_object(path / "metrics.json")
    stages = {file.parent.name: _read_object(file) for file in _of_stages(path, "eval/*/metrics.json")}
    stages |= metrics.get("stages") or {}
    predictions = {
        file.parent.name: {
            str(row.get("id")): row for row in read_rows(file, notes) if row.get("variant", FULL) == FULL
        }
        for file in _of_stages(path, "eval/*/predictions.jsonl")
    }
    if not (logs or stages or predictions):
        raise FileNotFoundError(f"no log.jsonl, metrics.json or predictions.jsonl under {path}")
    metrics["stages"] = {stage: stages[stage] for stage in in_order(stages)}
    for stage in ("base", "sft", "rl", "control"):
        if stage not in stages:
            notes.append(f"There is no evaluation of the stage “{stage}” in this run.")
    return RunFolder(
        path=path,
        metrics=metrics,
        logs={stage: logs[stage] for stage in in_order(logs)},
        predictions={stage: predictions[stage] for stage in in_order(predictions)},
        notes=tuple(notes),
    )


def in_order(stages: Iterable[str]) -> list[str]:
    """Stage names in the order in which they are run; unknown ones last, alphabetically.

    >>> in_order(["rl_seed_1", "rl", "base"])
    ['base', 'rl', 'rl_seed_1']
    """
    known = list(STAGES)
    return sorted(stages, key=lambda stage: (known.index(stage) if stage in known else len(known), stage))


def read_log(path: Path, notes: list[str] | None = None) -> list[Row]:
    """One row a step, in step order. A step logged twice (a resumed run) keeps the last value of each key.

    Keys are merged rather than rows replaced, because a trainer logs training and evaluation of one step in two rows.
    Rows without an integer `step` are left out.
    """
    steps: dict[int, Row] = {}
    for row in read_rows(path, notes):
        step = row.get("step")
        if isinstance(step, int):
            steps.setdefault(step, {}).update(row)
    return [steps[step] for step in sorted(steps)]


def _of_stages(path: Path, pattern: str) -> list[Path]:
    """Files of the stages, by name; not those of `sft.20260102-030405`, a stage that was set aside for a new one."""
    return sorted(file for file in path.glob(pattern) if "." not in file.parent.name)


def read_rows(path: Path, notes: list[str] | None = None) -> Iterator[Row]:
    """The JSON objects of a file, one a line; a broken line is left out and noted."""
    skipped = 0
    # Not splitlines(): U+2028 and its like may stand inside a text.
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError:  # a process that was stopped leaves half a line
            row, skipped = None, skipped + 1
        if isinstance(row, dict):
            yield row
    if skipped:
        logger.warning("%s: %d unreadable lines skipped", path, skipped)
        if notes is not None:
            notes.append(f"{path.parent.name}/{path.name}: {skipped} unreadable lines were skipped.")


def _read_object(path: Path) -> Row:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value
