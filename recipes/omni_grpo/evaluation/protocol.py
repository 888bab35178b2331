# SPDX-License-Identifier: Apache-2.0
"""How answers are decoded, read, scored and reported: what makes two evaluations comparable, beside the prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from omni_rewards import AnswerReward, Judge

METRICS = ("accuracy", "war_uar")
PARSERS = ("answer_section", "completion")


@dataclass(frozen=True)
class Protocol:
    """
    A protocol of evaluation.

    Args:
        version (`str`): Raised when anything changes that changes figures; written into `metrics.json`.
        metric (`str`): `"accuracy"`, the mean score of the answers; `"war_uar"` adds UAR and the answers that are
            none of the labels, for questions that ask for one label.
        group_by (`tuple[str, ...]`):
            Keys of a row's `meta` by whose values results are reported; by `kind` (else the problem type) if empty.
        combined (`tuple[str, ...]`): Further groups, such as `"intent+agreement"`.
        answers ([`~omni_rewards.AnswerReward`]): Reads and scores answers; its settings are the protocol's.
        decoding (`Mapping[str, Any]`): What is asked of `generate` over greedy decoding; all that decides is in
            `metrics.json`, see [`~omni_grpo.rollout.answers.decoding_settings`].
        counterfactual (`Callable`, *optional*):
            `(row, donor, sense)` to whether the donor's evidence changes the row's true answer, `None` if that is not
            known; for [`~omni_grpo.evaluation.shortcut.shortcut_index`].
        judge ([`~omni_rewards.Judge`], *optional*): Grades contexts, reasoning and steps, beside the offline figures.
        reader (`"policy"` or [`~omni_rewards.Judge`], *optional*):
            Answers from contexts alone, see [`~omni_grpo.evaluation.sufficiency.sufficiency`].

    Raises:
        `ValueError`: `metric` is unknown.
    """

    version: str = "1"
    metric: str = "accuracy"
    group_by: tuple[str, ...] = ()
    combined: tuple[str, ...] = ()
    answers: AnswerReward = field(default_factory=AnswerReward)
    decoding: Mapping[str, Any] = field(default_factory=dict)
    counterfactual: Callable[[Any, Any, str], bool | None] | None = None
    judge: Judge | None = None
    reader: Judge | Literal["policy"] | None = None

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"metric: {self.metric!r} is unknown; one of {', '.join(METRICS)}")
