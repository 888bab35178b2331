# SPDX-License-Identifier: Apache-2.0
"""
How much of a model's score is reached without what is seen, or without what is heard.

Computed of prediction rows: those with all media, and those of the variants in `omni_grpo.evaluation.variants`. Rows of
a variant that changed nothing in their prompt (`altered` is false) count for nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np

from omni_grpo.data.rows.kinds import kind_of
from omni_grpo.evaluation.baselines import chance_levels
from omni_grpo.evaluation.protocol import Protocol
from omni_grpo.evaluation.records import Difference, Index, Prediction, Shortcuts, Unchanged, VariantChanges
from omni_grpo.evaluation.scoring import grouped
from omni_grpo.evaluation.statistics import accuracy_interval, bootstrap_interval, paired_bootstrap, wilson_interval
from omni_grpo.evaluation.variants import SENSES
from omni_rewards import AnswerReward

Changes = Callable[[Prediction, Prediction, str], bool | None]

_N_RESAMPLES = 2_000
_EPSILON = 1e-9  # of a score: less is rounding


class ShortcutIndex(NamedTuple):
    """The index in [0, 1], its 95 % interval, the rows it is of, and of how many the swap is known to change the truth."""

    value: float
    ci95: tuple[float, float]
    n: int
    n_known: int


class IndexTerm(NamedTuple):
    """One row's part of the index: `a - s`, `a - f`, and whether the swap is known to change the true answer."""

    id: str
    gain: float
    room: float
    known: bool


def shortcut_index(
    whole: Sequence[Prediction],
    swapped: Sequence[Prediction],
    sense: str,
    answers: AnswerReward | None = None,
    changes: Changes | None = None,
) -> ShortcutIndex | None:
    r"""
    The part of a model's score that is left when one modality comes from another row; lower is better.

    $$I = 1 - \min\left(1, \max\left(0, \frac{\sum_i (a_i - s_i)}{\sum_i (a_i - f_i)}\right)\right) \in [0, 1]$$

    $$a_i$$ is a row's score with its own evidence, $$s_i$$ its score under the swap, against the same gold answer, and
    $$f_i$$ what is left to a model that goes by the evidence: `0` where the swap is known to change the true answer,
    chance where that is not known. Rows whose true answer the swap is known to leave as it is do not count. 0: nothing
    is left, the score is owed to this modality; 1: all is left, it does not matter. A lucky guess is reached without
    evidence: a model that goes by the evidence on half of the rows, and guesses on the others, has an index above 0.

    The value is 1 where no score is above $$f$$. The interval is a bootstrap over rows, each with both its scores;
    where all resamples agree, as when not one answer changed, it is Wilson's of as many rows as have a score above
    $$f$$, and `(0, 1)` if there is none.

    Args:
        whole (sequence of `Mapping`): Prediction rows with all media.
        swapped (sequence of `Mapping`): Those of `swapped_audio` or `swapped_video`, each with its `donor`.
        sense (`str`): `"audio"` or `"video"`: which of the two was swapped.
        answers ([`~omni_rewards.AnswerReward`], *optional*): Scores guesses, for chance.
        changes (`Callable`, *optional*):
            `(row, donor, sense)` to whether the donor's evidence changes the row's true answer, `None` if that is not
            known, as it is of every row by default.

    Returns:
        [`ShortcutIndex`], or `None` if no row counts.

    Raises nothing.

    Source: ours. With the true answer known it is the share of right answers that a counterfactual leaves as they are.

    >>> row = {"problem": "Is she glad?", "problem_type": "yes_no", "solution": "yes", "options": None, "meta": {}}
    >>> whole = [{**row, "id": str(i), "answer_score": 1.0} for i in range(40)]
    >>> blind = [{**r, "donor": "0", "altered": True} for r in whole]
    >>> index = shortcut_index(whole, blind, "audio")
    >>> index.value, [round(end, 2) for end in index.ci95]
    (1.0, [0.91, 1.0])
    """
    terms = index_terms(whole, swapped, sense, answers, changes)
    if not terms:
        return None
    gain, room = np.array([[t.gain, t.room] for t in terms]).T

    def index(resamples: np.ndarray, axis: int) -> np.ndarray:  # (r, n) -> (r,)
        rows = resamples.astype(int)
        return index_of(gain[rows].sum(axis=axis), room[rows].sum(axis=axis))

    value = float(index_of(gain.sum(), room.sum()))
    low, high = bootstrap_interval(np.arange(len(gain)), index, n_resamples=_N_RESAMPLES)
    if low == high:
        above = int((room > _EPSILON).sum())
        low, high = wilson_interval(round(value * above), above) if above else (0.0, 1.0)
    return ShortcutIndex(value, (min(low, value), max(high, value)), len(gain), sum(t.known for t in terms))


def index_terms(
    whole: Sequence[Prediction],
    swapped: Sequence[Prediction],
    sense: str,
    answers: AnswerReward | None = None,
    changes: Changes | None = None,
) -> list[IndexTerm]:
    """What each row that counts adds to [`shortcut_index`], whose arguments these are, by id."""
    by_id = {row["id"]: row for row in whole}
    pairs = _pairs(whole, swapped)
    levels = chance_levels([row for row, _ in pairs], kind_of, answers or AnswerReward())
    terms = []
    for (row, other), level in zip(pairs, levels, strict=True):
        donor = by_id.get(str(other.get("donor")))
        change = None if donor is None or changes is None else changes(row, donor, sense)
        if change is not False:
            left = 0.0 if change else level or 0.0
            gain, room = row["answer_score"] - other["answer_score"], row["answer_score"] - left
            terms.append(IndexTerm(row["id"], gain, room, change is True))
    return terms


def index_of(gain: np.ndarray, room: np.ndarray) -> np.ndarray:
    """The index from sums of the terms' gains and rooms; 1 where there is no room."""
    share = np.where(room > _EPSILON, gain / np.maximum(room, _EPSILON), 0.0)
    return 1 - np.clip(share, 0.0, 1.0)


def unchanged(whole: Sequence[Prediction], altered: Sequence[Prediction]) -> dict[str, Unchanged | None]:
    """
    Share of `answers` and of `contexts` that are the same as with all media, each with `ci95` and `n`.

    Answers are compared as they were read, else as text; texts without regard to case, punctuation and spacing. No
    answer both times is no change. Contexts are compared where there was one both times; `None` if there never was.
    """
    answers, contexts = [], []
    for row, other in _pairs(whole, altered):
        answers.append(float(_answer(row) == _answer(other)))
        one, two = (_plain(r["sections"].get("context")) for r in (row, other))
        if one is not None and two is not None:
            contexts.append(float(one == two))
    return {name: _share(same) for name, same in (("answers", answers), ("contexts", contexts))}


def summarise_shortcuts(
    results: Mapping[str, Sequence[Prediction]], combined: Sequence[str] = (), protocol: Protocol | None = None
) -> dict[str, Shortcuts]:
    """
    The diagnostics of one model, by group: the index of each sense, and what each variant changed.

    Args:
        results (`Mapping[str, sequence of dict]`): Prediction rows by variant; `full` is what the others are set against.
        combined (sequence of `str`): Further groups, beside those of `protocol`.
        protocol ([`~omni_grpo.evaluation.protocol.Protocol`], *optional*): Groups, and how answers are scored.

    Returns:
        `dict`: Group to `{"index": {sense: …}, "variants": {variant: {"lost", "answers", "contexts"}}}`, `lost` being
        accuracy with all media minus that of the variant, on the same rows; empty without `full` or without others.
    """
    protocol, others = protocol or Protocol(), [v for v in results if v != "full"]
    if "full" not in results or not others:
        return {}
    figures: dict[str, Shortcuts] = {}
    for group, whole in grouped(results["full"], protocol, combined):
        by_variant = {v: _variant(whole, results[v]) for v in others if _pairs(whole, results[v])}
        swaps = {s: f"swapped_{s}" for s in SENSES if f"swapped_{s}" in by_variant}
        found = {
            s: shortcut_index(whole, results[v], s, protocol.answers, protocol.counterfactual)
            for s, v in swaps.items()
        }
        index = {s: cast(Index, i._asdict()) for s, i in found.items() if i is not None}
        if by_variant:
            figures[group] = {"index": index, "variants": by_variant}
    return figures


def _variant(whole: Sequence[Prediction], altered: Sequence[Prediction]) -> VariantChanges:
    scores = zip(*[(row["answer_score"], other["answer_score"]) for row, other in _pairs(whole, altered)], strict=True)
    lost = paired_bootstrap(*map(list, scores), n_resamples=_N_RESAMPLES)
    same = unchanged(whole, altered)
    return {"lost": cast(Difference, lost._asdict()), "answers": same["answers"], "contexts": same["contexts"]}


def _pairs(whole: Sequence[Prediction], altered: Sequence[Prediction]) -> list[tuple[Prediction, Prediction]]:
    """Rows with all media and the same ones altered, by id, which makes every figure one of the rows, not their order."""
    others = {row["id"]: row for row in altered if row.get("altered", True)}
    return sorted(((row, others[row["id"]]) for row in whole if row["id"] in others), key=lambda pair: pair[0]["id"])


def _share(same: Sequence[float]) -> Unchanged | None:
    return {"share": float(np.mean(same)), "ci95": accuracy_interval(same), "n": len(same)} if same else None


def _answer(row: Prediction) -> str | None:
    if (parsed := row["answer_parsed"]) is not None:
        return str(parsed)
    return _plain(row["sections"].get("answer"))


def _plain(text: str | None) -> str | None:
    return None if text is None else " ".join(re.findall(r"\w+", text.casefold()))
