# SPDX-License-Identifier: Apache-2.0
"""Training logs as curves, which `drawing` draws."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from omni_grpo.report.figures import number
from omni_grpo.report.run_folder import Row, RunFolder, stage_label, tone

# A reward keeps the colour of the section that it judges; the first match wins.
_REWARD_TONES = (
    ("format", "format|structure|tag"),
    ("context", "context|perception|caption"),
    ("think", "think|reason|logic|coheren"),
    ("answer", "answer|accuracy|correct|choice"),
)

_SHARED = (  # log key, file stem, title, is a share, remark
    ("reward", "reward", "Total reward", False, "Weighted sum of the rewards, mean over completions."),
    ("completions/mean_length", "completion_length", "Completion length, tokens", False, ""),
    ("completions/clipped_ratio", "clipped", "Completions cut off at the limit", True, ""),
    ("frac_reward_zero_std", "zero_variance", "Groups without variance", True, "Equal rewards teach nothing."),
    ("kl", "kl", "KL divergence from the reference", False, ""),
    ("entropy", "entropy", "Entropy of the policy, nats", False, "Near zero there is nothing left to explore."),
)


@dataclass(frozen=True)
class Series:
    """One line: `values[i]` was logged at step `steps[i]`; both finite, steps rising."""

    label: str
    tone: str
    steps: tuple[float, ...]
    values: tuple[float, ...]
    held_out: bool = False
    dash: int = 0  # one of page.css's patterns, so that lines differ not by colour alone

    @property
    def window(self) -> int:
        """Events in the running mean: a fifteenth of the line, odd; 1 (no smoothing) for fewer than 30 events."""
        return 1 if self.held_out or len(self.values) < 30 else len(self.values) // 15 | 1

    @cached_property
    def smooth(self) -> np.ndarray:
        """Centred running mean over `window` events, over fewer at the ends, shape `(n,)`."""
        return self._rolling.mean().to_numpy()

    @cached_property
    def reach(self) -> np.ndarray:
        """
        Half of the 95 % interval of each running mean, by Student's t from the scatter of the events in its window,
        shape `(n,)`; NaN without smoothing. Events are taken as independent, and a trend within the window widens it.
        """
        count = self._rolling.count().to_numpy()
        return t.ppf(0.975, count - 1) * self._rolling.std().to_numpy() / count**0.5

    @property
    def _rolling(self) -> Any:
        return pd.Series(self.values, dtype=float).rolling(self.window, min_periods=1, center=True)


@dataclass(frozen=True)
class Curve:
    """One chart. `share` fixes the vertical axis to 0 to 1."""

    name: str
    title: str
    series: tuple[Series, ...]
    share: bool = False
    remark: str = ""


def build_curves(run: RunFolder) -> list[Curve]:
    """Every curve that the logs of a run allow, in reading order; curves without a value are left out."""
    curves = []
    rewarded = {stage: rows for stage, rows in run.logs.items() if _has_reward(rows)}
    for stage, rows in run.logs.items():
        remark = "The GRPO loss hovers around zero by design; read the reward instead." if stage in rewarded else ""
        lines = tuple(_lines(rows, "loss", "training", tone(stage)))
        curves.append(Curve(f"loss_{stage}", f"Loss: {stage_label(stage)}", lines, remark=remark))
    for stage, rows in rewarded.items():
        tones = reward_tones(rows)
        lines = tuple(s for f in tones for s in _lines(rows, f"rewards/{f}/mean", readable(f), tones[f]))
        curves.append(Curve(f"rewards_{stage}", f"Reward by function: {stage_label(stage)}", lines))
    for key, name, title, share, remark in _SHARED:
        lines = tuple(
            s for stage, rows in rewarded.items() for s in _lines(rows, key, stage_label(stage), tone(stage))
        )
        curves.append(Curve(name, title, lines, share, remark))
    return [curve for curve in curves if curve.series]


def reward_tones(rows: list[Row]) -> dict[str, str]:
    """Reward functions of a log, alphabetically, each with the tone of the section it judges or one of its own."""
    keys = {match[1] for row in rows for key in row if (match := re.fullmatch(r"rewards/(.+)/mean", key))}
    others = iter(["other-1", "other-2", "other-3"] * len(keys))
    tones = {}
    for name in sorted(keys):
        own = next((own for own, pattern in _REWARD_TONES if re.search(pattern, name)), None)
        tones[name] = next(others) if own is None or own in tones.values() else own
    return tones


def readable(function: str) -> str:
    """`omni_rewards.answer_reward` -> `answer`.

    >>> readable("context_format_reward")
    'context format'
    """
    return function.rpartition(".")[2].removesuffix("_reward").replace("_", " ").strip() or function


def _has_reward(rows: list[Row]) -> bool:
    return any(key == "reward" or key.startswith("rewards/") for row in rows for key in row)


def _lines(rows: list[Row], key: str, label: str, tone: str) -> Iterator[Series]:
    for name, held_out in ((key, False), (f"eval_{key}", True)):
        found = [(float(row["step"]), value) for row in rows if (value := number(row.get(name))) is not None]
        if found:
            steps, values = zip(*found, strict=True)
            shown = label if not held_out else "held out" if label == "training" else f"{label}, held out"
            yield Series(shown, tone, steps, values, held_out)
