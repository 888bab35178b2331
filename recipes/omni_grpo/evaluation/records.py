# SPDX-License-Identifier: Apache-2.0
"""
What an evaluation writes and what is read from it: a line of `predictions.jsonl`, `metrics.json` of a model and of a run.

Intervals are at 95 %, shares in `[0, 1]`, times in seconds. What is `NotRequired` is there where it was measured.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from omni_grpo.run.machine import Machine

Interval = Sequence[float]
FULL = "full"  # the variant with all media


class Prediction(TypedDict):
    """
    One completion and what it earned.

    `answer_reason` is a key of `omni_rewards.ANSWER_REASONS`, `answer_parsed` and `gold_parsed` are the two answers as
    they were read, `perception` is [`~omni_grpo.evaluation.perception.perception_of`]. Rows of a variant have `altered`,
    whether it changed anything in their prompt, and `donor`, the id of the row whose media were shown.
    """

    id: str
    problem: str
    problem_type: str
    options: Sequence[str] | None
    solution: str
    context: str | None
    reference_reasoning: str | None
    media: list[dict[str, Any]]
    variant: str
    completion: str
    sections: dict[str, str | None]
    format_ok: bool
    format_reason: str
    answer_score: float
    answer_reason: str
    answer_parsed: str | None
    gold_parsed: str | None
    num_tokens: int
    truncated: bool
    seconds: float
    meta: dict[str, Any]
    perception: NotRequired[dict[str, Any]]
    altered: NotRequired[bool]
    donor: NotRequired[str | None]


class Mean(TypedDict):
    """A figure of several rows; `unavailable` counts those that a judge gave no score."""

    mean: float | None
    ci95: Interval | None
    n: int
    unavailable: NotRequired[int]


class GroupFigures(TypedDict):
    """The score of a group of questions, and what guessing and the commonest answer earn there."""

    n: int
    accuracy: float
    ci95: Interval
    chance: float | None
    majority: float | None
    war: NotRequired[float]
    uar: NotRequired[float]
    uar_ci95: NotRequired[Interval]


class Difference(TypedDict):
    """One mean score minus another on the same `n` rows."""

    difference: float
    ci95: Interval
    n: int


class Unchanged(TypedDict):
    """The share that is the same as with all media."""

    share: float
    ci95: Interval
    n: int


class VariantChanges(TypedDict):
    """What a variant did: accuracy lost against all media, and what it left; `contexts` is `None` where there never was one both times."""

    lost: Difference
    answers: Unchanged | None
    contexts: Unchanged | None


class Index(TypedDict):
    """A shortcut index, see [`~omni_grpo.evaluation.shortcut.ShortcutIndex`]."""

    value: float
    ci95: Interval
    n: int
    n_known: int


class Shortcuts(TypedDict):
    """The index by sense, and what each variant did."""

    index: dict[str, Index]
    variants: dict[str, VariantChanges]


class Summary(TypedDict):
    """
    The figures of one model under one variant; `left_out` has the reasons why rows were not asked, and their ids;
    `sufficiency` is [`~omni_grpo.evaluation.sufficiency.sufficiency`] of the first one.
    """

    n: int
    groups: dict[str, GroupFigures]
    format_rate: float
    format_ci95: Interval
    mean_tokens: float
    answers: dict[str, int]
    perception: dict[str, Mean]
    out_of_vocabulary: NotRequired[dict[str, int]]
    unanswered: NotRequired[int]
    left_out: NotRequired[Mapping[str, list[str]]]
    sufficiency: NotRequired[dict[str, Mean]]


class Metrics(Summary):
    """`eval/<model>/metrics.json`: the headline, the variants, the diagnostics by group, and how it was measured."""

    variants: dict[str, Summary]
    shortcuts: dict[str, Shortcuts]
    metric: str
    protocol_version: str
    prompt_style: str
    media: dict[str, Any]
    decoding: dict[str, Any]
    created: str
    seconds: float
    model: NotRequired[str]
    data: NotRequired[str]


class Comparison(Difference):
    """Accuracy of `a` minus that of `b` on the same rows of a group; McNemar's p for one pair of runs."""

    a: str
    b: str
    group: str
    p_mcnemar: float | None


class PooledComparison(Comparison):
    """Two models over one training seed or several, each with its own accuracy."""

    seeds: int
    accuracy_a: float
    ci95_a: Interval
    accuracy_b: float
    ci95_b: Interval


class RunMetrics(TypedDict):
    """`metrics.json` of a run: its models by name, comparisons, the machine, and seconds by stage."""

    stages: dict[str, Metrics]
    comparisons: list[Comparison]
    benchmark: str | None
    machine: Machine
    seconds: dict[str, float]
