# SPDX-License-Identifier: Apache-2.0
"""What a run left on disk: `<stage>/log.jsonl`, `eval/<stage>/{predictions.jsonl,metrics.json}` and `metrics.json`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omni_grpo.evaluation.records import FULL, GroupFigures, Metrics, Prediction, RunMetrics

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


def stage_label(stage: str) -> str:
    """A stage's name on the page."""
    return STAGES.get(stage, stage.replace("_", " ").capitalize())


def tone(stage: str) -> str:
    """Colour class of a stage."""
    return stage if stage in STAGES else "other-1"


@dataclass(frozen=True)
class RunFolder:
    """One run, read. `predictions` holds the rows with all media, by id; `notes` says what is absent or unreadable."""

    path: Path
    metrics: RunMetrics
    logs: dict[str, list[Row]]
    predictions: dict[str, dict[str, Prediction]]
    notes: tuple[str, ...]

    @property
    def evaluated(self) -> dict[str, Metrics]:
        """Metrics of each evaluated stage, in the order in which they are shown."""
        return self.metrics["stages"]

    @property
    def groups(self) -> list[str]:
        """All groups of all stages: the compared one or `all` leads, the others come in order of appearance."""
        names = list(dict.fromkeys(group for measured in self.evaluated.values() for group in measured["groups"]))
        leads = [*(c["group"] for c in self.metrics["comparisons"][:1]), "all"]
        lead = next((name for name in leads if name in names), None)
        return sorted(names, key=lambda name: name != lead)

    def figures(self, stage: str, group: str) -> GroupFigures | None:
        """What a stage scored on a group, if it was tested on it."""
        return self.evaluated[stage]["groups"].get(group) if stage in self.evaluated else None


def read_run(path: Path) -> RunFolder:
    """Reads a run folder of which any part may be missing.

    Raises:
        FileNotFoundError: if there is neither a log nor an evaluation in it.
        ValueError: if a metrics.json is not a JSON object.
    """
    notes: list[str] = []
    logs = {log.parent.name: read_log(log, notes) for log in _of_stages(path, "*/log.jsonl")}
    metrics = {"stages": {}, "comparisons": [], "machine": {}, "seconds": {}} | _read_object(path / "metrics.json")
    stages = {file.parent.name: _read_object(file) for file in _of_stages(path, "eval/*/metrics.json")}
    stages |= metrics["stages"]
    predictions = {
        file.parent.name: {row["id"]: row for row in _read_predictions(file, notes) if row["variant"] == FULL}
        for file in _of_stages(path, "eval/*/predictions.jsonl")
    }
    if not (logs or stages or predictions):
        raise FileNotFoundError(f"no log.jsonl, metrics.json or predictions.jsonl under {path}")
    metrics["stages"] = {stage: _as_written_today(stages[stage]) for stage in in_order(stages)}
    notes += [f"The stage “{stage}” was trained, but not evaluated." for stage in in_order(logs) if stage not in stages]
    return RunFolder(
        path=path,
        metrics=cast(RunMetrics, metrics),
        logs={stage: logs[stage] for stage in in_order(logs)},
        predictions={stage: predictions[stage] for stage in in_order(predictions)},
        notes=tuple(notes),
    )


def _as_written_today(measured: Row) -> Row:
    """Metrics of a model; an earlier version had no diagnostics, and a variant's groups without a name around them."""
    variants = {n: v if "groups" in v else {"groups": v} for n, v in measured.get("variants", {}).items()}
    return {"groups": {}, "shortcuts": {}, **measured, "variants": variants}


def _read_predictions(path: Path, notes: list[str]) -> Iterator[Prediction]:
    """The rows of a file; one that lacks a field, as of another version, is left out and noted."""
    for row in read_rows(path, notes, Prediction.__required_keys__):
        yield cast(Prediction, row)


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


def read_rows(path: Path, notes: list[str] | None = None, required: frozenset[str] = frozenset()) -> Iterator[Row]:
    """The JSON objects of a file, one a line; a broken line, or one without a `required` key, is left out and noted."""
    skipped = 0
    # Not splitlines(): U+2028 and its like may stand inside a text.
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError:  # a process that was stopped leaves half a line
            row, skipped = None, skipped + 1
        if isinstance(row, dict) and required <= row.keys():
            yield row
        elif isinstance(row, dict):
            skipped += 1
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
