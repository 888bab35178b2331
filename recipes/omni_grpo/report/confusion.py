# SPDX-License-Identifier: Apache-2.0
"""What was answered where what was right: one matrix for each kind of question with few different answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from omni_grpo.data.rows.kinds import kind_of
from omni_grpo.evaluation.records import Prediction
from omni_grpo.report.figures import Cell, Table, percent
from omni_grpo.report.run_folder import RunFolder, stage_label

MAX_CLASSES = 12
OTHER, UNREADABLE, NO_ANSWER = "another", "unreadable", "no answer"


def confusion_tables(run: RunFolder) -> dict[str, list[Table]]:
    """Matrices by stage, the last trained one first; a stage without any is left out."""
    trained = [stage for stage in run.predictions if stage != "control"] or list(run.predictions)
    last = "rl" if "rl" in trained else trained[-1] if trained else ""
    tables = {s: _stage_tables(s, run.predictions[s].values()) for s in sorted(run.predictions, key=last.__ne__)}
    return {stage: found for stage, found in tables.items() if found}


def _stage_tables(stage: str, rows: Iterable[Prediction]) -> list[Table]:
    by_kind: dict[str, list[Prediction]] = {}
    for row in rows:
        by_kind.setdefault(kind_of(row), []).append(row)
    matrices = {name: confusion(own) for name, own in by_kind.items()}
    return [
        _matrix_table(f"{stage_label(stage)}, {name}: gold answers down, given answers across", matrix)
        for name, matrix in matrices.items()
        if 2 <= len(matrix) <= MAX_CLASSES
    ]


def _matrix_table(caption: str, matrix: dict[str, Counter[str]]) -> Table:
    answers = {answer for row in matrix.values() for answer in row}
    columns = [*matrix, *(a for a in (OTHER, UNREADABLE, NO_ANSWER) if a in answers)]
    body: list[Sequence[str | Cell]] = []
    for gold, counts in matrix.items():
        total = sum(counts.values())
        heat = {a: f"heat heat-{round(10 * counts[a] / total)}{' right' if a == gold else ''}" for a in columns}
        cells = [Cell(str(counts[answer]), css=css) for answer, css in heat.items()]
        body.append([gold, *cells, str(total), percent(counts[gold] / total)])
    return Table(caption, ["Gold", *columns, "n", "right, %"], body)


def confusion(rows: Iterable[Prediction]) -> dict[str, Counter[str]]:
    """
    Gold answer -> how often which answer was given, gold answers in alphabetical order.

    An answer that scores 1 counts as the gold one, so the diagonal is what was right. One that is none of the gold
    answers of these rows is `another`; one that cannot be read as its type is `unreadable`; where there is no answer
    at all it is `no answer`.
    """
    pairs = [(str(row["gold_parsed"] or row["solution"]), row) for row in rows]
    counts = {gold: Counter[str]() for gold in sorted({gold for gold, _ in pairs})}
    for gold, row in pairs:
        read = row["answer_parsed"]
        if row["answer_score"] >= 1:
            given = gold
        elif row["answer_reason"] == "no_answer":
            given = NO_ANSWER
        else:
            given = UNREADABLE if read is None else read if read in counts and read != gold else OTHER
        counts[gold][given] += 1
    return counts
