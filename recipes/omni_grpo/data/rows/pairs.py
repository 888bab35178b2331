# SPDX-License-Identifier: Apache-2.0
"""Rows that belong together: the same question of two media, with two answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from omni_grpo.data.rows.schema import Example, refuse


def partners(pairs: Sequence[str | None], ids: Sequence[str]) -> list[int | None]:
    """
    Position of each row's partner, `None` for a row without a pair.

    Args:
        pairs (`Sequence[str | None]`): The `pair` of each row.
        ids (`Sequence[str]`): The `id` of each row, for errors.

    Raises:
        `DataError`: A pair has more or fewer than two rows; the message names them.

    >>> partners(["a", None, "a"], ["x", "y", "z"])
    [2, None, 0]
    """
    members: dict[str, list[int]] = {}
    for place, pair in enumerate(pairs):
        if pair is not None:
            members.setdefault(pair, []).append(place)
    problems = [
        f"pair {pair!r}: has {len(rows)} row{'s' * (len(rows) > 1)} ({', '.join(ids[r] for r in rows)}); give it to "
        "two rows exactly, or take it out"
        for pair, rows in members.items()
        if len(rows) != 2
    ]
    refuse(problems, "problem(s) with pairs")
    other = {row: rows[1 - i] for rows in members.values() for i, row in enumerate(rows)}
    return [other.get(place) for place in range(len(pairs))]


def check_pairs(examples: Sequence[Example]) -> None:
    """
    Hold every pair to what makes it one: two rows, one question, different media, different solutions.

    Raises:
        `DataError`: Naming the rows of every pair that is none, with the remedy (the first 20 in full).
    """
    found = partners([e.pair for e in examples], [e.id for e in examples])
    both = [(examples[a], examples[b]) for a, b in enumerate(found) if b is not None and a < b]
    refuse([error for one, other in both for error in _apart(one, other)], "problem(s) with pairs")


def _apart(one: Example, other: Example) -> Iterator[str]:
    where = f"pair {one.pair!r} (rows {one.id!r} and {other.id!r})"
    if (one.problem, one.problem_type, one.options) != (other.problem, other.problem_type, other.options):
        yield f"{where}: asks two questions, so that the words alone can tell the answers apart; ask one of both media"
    if one.media == other.media:
        yield f"{where}: shows the same media twice; exchange those of one row, or take the pair out"
    if one.solution == other.solution:
        yield f"{where}: has one solution, {one.solution!r}; choose media that change the answer, or take the pair out"
