# SPDX-License-Identifier: Apache-2.0
"""Whether longer completions earn more: fifths by length, and a rank correlation with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from omni_grpo.evaluation.statistics import accuracy_interval, bootstrap_interval
from omni_grpo.report.figures import Table, share, signed
from omni_grpo.report.rollouts import Group
from omni_grpo.report.run_folder import RunFolder, stage_label, tone

NUM_BINS = 5
MIN_ROWS = 20
MIN_GROUPS = 10


def length_tables(run: RunFolder) -> list[Table]:
    """Accuracy by length on the test rows, one table a stage."""
    tables = []
    for stage, predictions in run.predictions.items():
        if len(predictions) < MIN_ROWS:
            continue
        lengths, scores = np.array([(row["num_tokens"], row["answer_score"]) for row in predictions.values()]).T
        rows = []
        for name, chosen in fifths(lengths):
            own, tokens = scores[chosen], f"{lengths[chosen].min():.0f} – {lengths[chosen].max():.0f}"
            cell = share(float(own.mean()), accuracy_interval(own), float(scores.mean()), tone(stage))
            rows.append([name, tokens, cell, str(len(own))])
        rho = spearman(lengths, scores)
        ends = f"rank correlation {signed(rho)}" if rho is not None else "all alike, so no correlation"
        caption = f"{stage_label(stage)}, accuracy in percent by length; {ends}"
        tables.append(Table(caption, ["Test rows", "Tokens", "Accuracy", "n"], rows))
    return tables


def training_sentences(groups: Sequence[Group]) -> list[str]:
    """For each stage with enough groups: whether the reward of the training's own rollouts goes with their length."""
    sentences = []
    for stage in dict.fromkeys(group.stage for group in groups):
        found = [rho for group in groups if group.stage == stage and (rho := _within(group)) is not None]
        if len(found) < MIN_GROUPS:
            continue
        low, high = bootstrap_interval(found)
        verdict = "rises" if low > 0 else "falls" if high < 0 else "neither rises nor falls clearly"
        sentences.append(
            f"In training ({stage_label(stage)}), the total reward {verdict} with the length of a completion within "
            f"its group: mean rank correlation {signed(float(np.mean(found)))}, 95\u00a0% interval {signed(low)} to "
            f"{signed(high)}, over {len(found):,} groups in which both vary."
        )
    return sentences


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
