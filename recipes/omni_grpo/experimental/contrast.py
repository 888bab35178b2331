# SPDX-License-Identifier: Apache-2.0
"""
Contrastive media swap: the two rows of a pair ask one question of two media, and the right answers differ.

Whoever answers from the question, or from what both have in common, is right in at most one of them. Rows of one
generation batch are learned from together, so the sampler puts both members there, next to each other.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset
from trl.trainer.utils import RepeatSampler

from omni_grpo.data.rows.pairs import partners
from omni_rewards import answer_reward
from omni_rewards._completions import about


def paired_order(order: Sequence[int], partner: Sequence[int | None], size: int) -> list[int]:
    """
    An order of rows in which partners are neighbours and no chunk of `size` rows comes between them.

    Rows come where `order` has them, and a partner right behind the first of its pair. Where one place of a chunk is
    left and a pair is next, the next row without a partner comes first. An odd last one of these goes to the end.

    Args:
        order (`Sequence[int]`): Every row once.
        partner (`Sequence[int | None]`): Partner of each row.
        size (`int`): Rows of a chunk, an even number.

    >>> paired_order([3, 4, 0, 2, 1, 5], [1, 0, None, None, 5, 4], 2)
    [3, 2, 4, 5, 0, 1]
    """
    singles = [row for row in order if partner[row] is None]
    last = singles.pop() if len(singles) % 2 else None
    found: list[int] = []
    taken: set[int] = set()
    ahead = iter(singles)
    for row in order:
        if row in taken or row == last:
            continue
        if (other := partner[row]) is None:
            found.append(row)
            taken.add(row)
            continue
        if len(found) % size == size - 1:  # an odd number of singles stands before; so one is still to come
            single = next(s for s in ahead if s not in taken)
            found.append(single)
            taken.add(single)
        found += [row, other]
        taken |= {row, other}
    return found if last is None else [*found, last]


class PairedSampler(RepeatSampler):
    """
    TRL's sampler, with the two rows of a pair next to each other in one generation batch.

    TRL's permutation of an epoch is drawn as it would draw it, and put in order by [`paired_order`]; repetition,
    division into batches and what is dropped at the end are TRL's own, over the rows in that order. So a group lies
    where TRL would lay it, and a resumed run draws the epochs that it skips as it would without pairs.

    Args:
        sampler ([`~trl.trainer.utils.RepeatSampler`]): TRL's, not used otherwise.
        partner (`Sequence[int | None]`): Partner of each row of its data.
    """

    def __init__(self, sampler: RepeatSampler, partner: Sequence[int | None]) -> None:
        super().__init__(
            sampler.data_source,
            sampler.mini_repeat_count,
            sampler.batch_size,
            sampler.repeat_count,
            sampler.shuffle,
            sampler.seed,
        )
        self.partner = partner
        self.drawn = RepeatSampler(sampler.data_source, 1, shuffle=sampler.shuffle, seed=sampler.seed)
        if sampler.shuffle:
            self.drawn.generator = self.generator  # the one that Accelerate keeps equal on all processes

    def __iter__(self) -> Generator[int, None, None]:
        order = paired_order(list(self.drawn), self.partner, self.batch_size)
        repeated = RepeatSampler(order, self.mini_repeat_count, self.batch_size, self.repeat_count, shuffle=False)
        for place in repeated:
            yield order[place]


def check_contrast(args: Any, rows: Any) -> None:
    """
    Hold `contrast_pairs` to the rows and the batches, before a model is loaded.

    Raises:
        `ValueError`: No row has a pair, a streamed data set, or an odd number of prompts in a generation batch.
        `DataError`: A pair that is none, see [`~omni_grpo.data.rows.pairs.partners`].
    """
    if not args.contrast_pairs:
        return
    if (prompts := args.generation_batch_size // args.num_generations) % 2:
        raise ValueError(
            f"contrast_pairs: a generation batch holds {prompts} prompts, which pairs cannot fill; make "
            "generation_batch_size / num_generations even (per_device_train_batch_size, steps_per_generation)"
        )
    if not isinstance(rows, Dataset) or "pair" not in rows.column_names or not any(rows["pair"]):
        raise ValueError(
            "contrast_pairs: no row of the training data has a `pair`; give the two rows of each pair one id "
            "there (the demo's data: `contrast_splits: [rl]`), or leave contrast_pairs out; a stream has none"
        )
    partners(rows["pair"], rows["id"])


@about("answer")
def contrast_reward(
    completions: list[Any],
    pair: list[str | None],
    id: list[str],
    solution: list[str],
    problem_type: list[str],
    options: list[Any] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    r"""
    Score of each answer, times the mean score of its partner's completions in the batch; higher is better.

    $$r_i \cdot \frac{1}{G} \sum_j r'_j$$ with [`~omni_rewards.answer_reward`] as $$r$$, in [0, 1]: the expected score of
    a pair in which both must be right. It is the mean over the partner's completions and not over one of them, which
    would pay a completion for another's luck. So a shortcut that answers one row of a pair right and the other wrong
    earns nothing on either. Under `scale_rewards: group` (TRL's default) the factor cancels unless it is 0: then the
    reward says that a group counts only if its partner was answered right at all.

    `None` for a row without a pair, one whose partner is not in the batch, one that `answer_reward` leaves out.
    """
    # Not the rest of what TRL gives: the run's own `answer_reward` logs already.
    scores = answer_reward(completions, solution, problem_type, options)
    everyone = zip(gather_object(list(pair)), gather_object(list(id)), gather_object(scores), strict=True)
    by_pair: dict[str, dict[str, list[float]]] = {}
    for name, row, score in everyone:
        if name is not None and score is not None:
            by_pair.setdefault(name, {}).setdefault(row, []).append(score)

    def of_partner(name: str | None, row: str) -> float | None:
        others = [s for other, found in by_pair.get(name or "", {}).items() if other != row for s in found]
        return sum(others) / len(others) if others else None

    factors = [of_partner(name, row) for name, row in zip(pair, id, strict=True)]
    return [None if s is None or f is None else s * f for s, f in zip(scores, factors, strict=True)]
