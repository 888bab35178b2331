# SPDX-License-Identifier: Apache-2.0
"""Whether longer completions earn more: fifths by length, and a rank correlation with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from omni_grpo.evaluation.statistics import accuracy_interval, bootstrap_interval
from omni_grpo.report.drawing import interval_glyph
from omni_grpo.report.markup import interval, note, number, percent, table, text
from omni_grpo.report.rollouts import Group
from omni_grpo.report.run_folder import RunFolder
from omni_grpo.report.tables import tone

NUM_BINS = 5
MIN_ROWS = 20
MIN_GROUPS = 10


def length_tables(run: RunFolder, groups: Sequence[Group]) -> str:
    """One table a stage of accuracy by length on the test rows, and a sentence on the training's own rollouts."""
    parts = [_stage_table(run, stage) for stage in run.predictions]
    parts += [_training_sentence(run, stage, groups) for stage in dict.fromkeys(group.stage for group in groups)]
    return "".join(parts) or note("Neither predictions nor completions of the training: nothing to measure.")


def _stage_table(run: RunFolder, stage: str) -> str:
    pairs = [
        (tokens, score)
        for row in run.predictions[stage].values()
        if (tokens := number(row.get("num_tokens"))) is not None
        and (score := number(row.get("answer_score"))) is not None
    ]
    if len(pairs) < MIN_ROWS:
        return ""
    lengths, scores = (np.array(column) for column in zip(*pairs, strict=True))
    rows = []
    for name, chosen in fifths(lengths):
        low, high = lengths[chosen].min(), lengths[chosen].max()
        ci95 = list(accuracy_interval(scores[chosen]))
        mean = float(scores[chosen].mean())
        glyph = interval_glyph(mean, ci95, float(scores.mean()), tone(stage))
        cell = f'<span class="value">{percent(mean)}</span> <span class="ci">{interval(ci95)}</span>{glyph}'
        rows.append([name, f"{low:.0f} – {high:.0f}", cell, str(int(chosen.sum()))])
    rho = spearman(lengths, scores)
    ends = f"; rank correlation {_signed(rho)}" if rho is not None else "; all alike, so no correlation"
    caption = f"{run.label(stage)}, accuracy in percent by length{ends}"
    return table(caption, ["Test rows", "Tokens", "Accuracy", "n"], rows)


def _training_sentence(run: RunFolder, stage: str, groups: Sequence[Group]) -> str:
    found = [rho for group in groups if group.stage == stage and (rho := _within(group)) is not None]
    if len(found) < MIN_GROUPS:
        return ""
    low, high = bootstrap_interval(found)
    verdict = "rises" if low > 0 else "falls" if high < 0 else "neither rises nor falls clearly"
    return (
        f'<p class="lead">In training ({text(run.label(stage))}), the total reward {verdict} with the length of a '
        f"completion within its group: mean rank correlation {_signed(float(np.mean(found)))}, 95\u00a0% interval "
        f"{_signed(low)} to {_signed(high)}, over {len(found):,} groups in which both vary.</p>\n"
    )


def _within(group: Group) -> float | None:
    pairs = [(len(rollout.text), rollout.total) for rollout in group.rollouts if rollout.total is not None]
    return spearman(*map(np.array, zip(*pairs, strict=True))) if len(pairs) > 2 else None


def fifths(lengths: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Names and masks of up to five bins by length; equal lengths share a bin, and an empty one is left out."""
    names = ["Shortest", "Short", "Middle", "Long", "Longest"]
    edges = np.quantile(lengths, np.linspace(0, 1, NUM_BINS + 1)[1:-1])
    places = np.searchsorted(edges, lengths, side="left")
    return [(name, places == place) for place, name in enumerate(names) if (places == place).any()]


def spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    """
    Spearman's rank correlation in `[-1, 1]`, ties at their mean rank; `None` where either does not vary.

    >>> spearman(np.array([1, 2, 3]), np.array([0.1, 0.5, 0.9]))
    1.0
    """
    if len(set(a.tolist())) < 2 or len(set(b.tolist())) < 2:
        return None
    found: Any = spearmanr(a, b)
    return round(float(found.statistic), 12)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
