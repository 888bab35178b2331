# SPDX-License-Identifier: Apache-2.0
"""What was answered where what was right: one matrix for each kind of question with few different answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from omni_grpo.data.rows.kinds import kind_of
from omni_grpo.report.markup import note, number, percent, table, text
from omni_grpo.report.run_folder import Row, RunFolder

MAX_CLASSES = 12
OTHER, UNREADABLE, NO_ANSWER = "another", "unreadable", "no answer"


def confusion_tables(run: RunFolder) -> str:
    """Matrices of the last trained stage, then those of the other stages, folded."""
    stages = [stage for stage in run.predictions if stage != "control"] or list(run.predictions)
    if not stages:
        return note("No predictions: there is nothing to count.")
    last = "rl" if "rl" in stages else stages[-1]
    shown = _stage_tables(run, last)
    folded = "".join(
        f'<details><summary>{text(run.label(stage))}</summary><div class="matrices">{found}</div></details>\n'
        for stage in run.predictions
        if stage != last and (found := _stage_tables(run, stage))
    )
    if not shown:
        return note(f"No kind of question here has between 2 and {MAX_CLASSES} different gold answers.") + folded
    return f'<div class="matrices">{shown}</div>{folded}'


def _stage_tables(run: RunFolder, stage: str) -> str:
    rows = list(run.predictions[stage].values())
    kinds = list(dict.fromkeys(map(kind_of, rows)))
    return "".join(_matrix_table(run.label(stage), name, [r for r in rows if kind_of(r) == name]) for name in kinds)


def _matrix_table(stage: str, name: str, rows: list[Row]) -> str:
    matrix = confusion(rows)
    if not 2 <= len(matrix) <= MAX_CLASSES:
        return ""
    answers = list(dict.fromkeys(answer for row in matrix.values() for answer in row))
    columns = [*matrix, *(a for a in (OTHER, UNREADABLE, NO_ANSWER) if a in answers)]
    body = []
    for gold, counts in matrix.items():
        total = sum(counts.values())
        cells = [_cell(counts[answer], counts[answer] / total, answer == gold) for answer in columns]
        body.append([text(gold), *cells, str(total), percent(counts[gold] / total)])
    header = ["Gold", *map(text, columns), "n", "right, %"]
    return table(f"{stage}, {name}: gold answers down, given answers across", header, body)


def confusion(rows: Iterable[Row]) -> dict[str, Counter[str]]:
    """
    Gold answer -> how often which answer was given, gold answers in alphabetical order.

    An answer that scores 1 counts as the gold one, so the diagonal is what was right. One that is none of the gold
    answers of these rows is `another`; one that cannot be read as its type is `unreadable`; where there is no answer
    at all it is `no answer`.
    """
    pairs = [(str(row.get("gold_parsed") or row.get("solution")), row) for row in rows]
    counts = {gold: Counter[str]() for gold, _ in pairs}
    for gold, row in pairs:
        score, read = number(row.get("answer_score")), row.get("answer_parsed")
        if score is not None and score >= 1:
            given = gold
        elif row.get("answer_reason") == "no_answer":
            given = NO_ANSWER
        else:
            given = UNREADABLE if read is None else read if read in counts and read != gold else OTHER
        counts[gold][given] += 1
    return {gold: counts[gold] for gold in sorted(counts)}


def _cell(count: int, share: float, is_right: bool) -> str:
    mark = " right" if is_right else ""
    return f'<span class="heat heat-{round(10 * share)}{mark}">{count}</span>'
