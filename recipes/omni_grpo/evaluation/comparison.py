# SPDX-License-Identifier: Apache-2.0
"""Two evaluated models, of one training seed or of several, compared on the questions that both answered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from omni_grpo.evaluation.records import FULL, Interval, PooledComparison, Prediction
from omni_grpo.evaluation.scoring import compare, groups_of, members
from omni_grpo.evaluation.statistics import pooled_bootstrap, pooled_paired_bootstrap

Rows = list[Prediction]


def read_predictions(folder: Path, variant: str = FULL) -> Rows:
    """
    The rows of an evaluated model's folder, sorted by id.

    Raises:
        `FileNotFoundError`: There is no such file of predictions in the folder.
        `ValueError`: A line is broken or an id there twice: the evaluation was cut and has to go on first.
    """
    file = folder / ("predictions.jsonl" if variant == FULL else f"predictions.{variant}.jsonl")
    if not file.is_file():
        raise FileNotFoundError(f"no {file}; name the folder of one evaluated model, such as runs/demo/eval/rl")
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    except ValueError as error:
        raise ValueError(f"{file}: a line is no JSON ({error}); let the evaluation go on to its end") from error
    if len({row["id"] for row in rows}) < len(rows):
        raise ValueError(f"{file}: an id is there twice")
    return sorted(rows, key=lambda row: row["id"])


def compare_runs(
    a: Sequence[Rows], b: Sequence[Rows], names: tuple[str, str] = ("A", "B"), group_by: Sequence[str] = ()
) -> list[PooledComparison]:
    """
    `a` minus `b` for each group and for all: difference, paired 95 % interval and, for one seed a side, McNemar's p.

    With several seeds a side, seed k of `a` is paired with seed k of `b`, items and seeds are resampled, and there is
    no McNemar's test, which knows one pair of answers an item.

    Args:
        a (sequence of `list[dict]`): Prediction rows of each seed, in one order of ids.
        b (sequence of `list[dict]`): The same for the other model; as many.
        names (`tuple[str, str]`, *optional*): What the two are called.
        group_by (sequence of `str`, *optional*): As in [`~omni_grpo.evaluation.protocol.Protocol`].

    Returns:
        `list[dict]`: A row a group: `a`, `b`, `group`, `n`, `seeds`, `accuracy_a`, `accuracy_b`, each with `ci95`,
        `difference`, `ci95`, `p_mcnemar` (`None` for several seeds).

    Raises:
        `ValueError`: The two have different numbers of seeds, or the runs answered different questions.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"{names[0]} and {names[1]} need as many seeds each, got {len(a)} and {len(b)}")
    ids = [row["id"] for row in a[0]]
    for rows in (*a, *b):
        if [row["id"] for row in rows] != ids:
            raise ValueError(f"{names[0]} and {names[1]} answered different questions; evaluate all on one file")
    groups = list(dict.fromkeys(name for row in a[0] for name in groups_of(row, group_by)))
    return [_compared(a, b, names, group, group_by) for group in (*sorted(groups), "all")]


def _compared(
    a: Sequence[Rows], b: Sequence[Rows], names: tuple[str, str], group: str, group_by: Sequence[str]
) -> PooledComparison:
    scores_a, scores_b = (
        [[row["answer_score"] for row in members(rows, group, group_by)] for rows in side] for side in (a, b)
    )
    (mean_a, ci95_a, _), (mean_b, ci95_b, _) = map(pooled_bootstrap, (scores_a, scores_b))
    found = compare(a[0], b[0], names, group, group_by)
    if len(a) > 1:
        difference, ci95, n = pooled_paired_bootstrap(list(zip(scores_a, scores_b, strict=True)))
        found |= {"difference": difference, "ci95": ci95, "n": n, "p_mcnemar": None}
    own = {"seeds": len(a), "accuracy_a": mean_a, "ci95_a": ci95_a, "accuracy_b": mean_b, "ci95_b": ci95_b}
    return cast(PooledComparison, found | own)


def comparison_table(rows: Sequence[PooledComparison]) -> str:
    """The comparisons as aligned text, in percent and points."""
    widest = max(len(row["group"]) for row in rows)
    heads = [f"{name} % [95 %]" for name in (rows[0]["a"], rows[0]["b"])]
    lines = [f"{'group':{widest}} {heads[0]:24} {heads[1]:24} {'difference [95 %]':24} {'McNemar p':>9} {'n':>5}"]
    for row in rows:
        cells = [_cell(row["accuracy_a"], row["ci95_a"], "5.1f"), _cell(row["accuracy_b"], row["ci95_b"], "5.1f")]
        p = "–" if row["p_mcnemar"] is None else f"{row['p_mcnemar']:.2g}"
        difference = _cell(row["difference"], row["ci95"], "+5.1f")
        lines.append(f"{row['group']:{widest}} {cells[0]:24} {cells[1]:24} {difference:24} {p:>9} {row['n']:5}")
    return "\n".join(lines)


def _cell(value: float, ci95: Interval, form: str) -> str:
    sign = "+.1f" if form.startswith("+") else ".1f"
    return f"{100 * value:{form}} [{100 * ci95[0]:{sign}}, {100 * ci95[1]:{sign}}]"
