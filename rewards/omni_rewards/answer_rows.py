# SPDX-License-Identifier: Apache-2.0
"""`AnswerReward`: the answer reward with settings, and the batch that it makes of completions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ._completions import Completion, completion_text
from ._scored import Options, Scored
from .conclusions import conclusion_agrees
from .judge import Judge, Question
from .judge.rows import Row, judge_rows, judge_rows_async, question_of
from .judge.settings import as_judge
from .problem_types import CHOICE_TYPES, AnswerSettings
from .sections import CONTEXT_THINK_ANSWER, SectionSchema, parse_sections
from .telemetry import log_answers

ANSWER_REASONS: dict[str, str] = {
    "right": "earned the maximum",
    "partial": "earned part of it",
    "wrong": "was read as its type and earned nothing",
    "unreadable": "cannot be read as its type",
    "no_answer": "the completion has no single well-formed section of the answer",
    "disagrees": "the reasoning concludes something else (`require_agreement`)",
    "judged": "left to the judge",
}
_CLOSED_TYPES = CHOICE_TYPES | {"yes_no", "judge", "box", "box_giou", "boxes"}
_RUBRIC = (
    "Grade whether the CANDIDATE answers the QUESTION with the same meaning as the REFERENCE. 5: the same meaning. "
    "3: the main point, with something missing or added. 0: another meaning, a contradiction, no answer, or several "
    "answers of which one may be right. Wording, length and style do not count."
)


class _Batch(NamedTuple):
    rows: list[Row]
    has_reasoning: list[bool]
    is_spam: list[bool | None]


@dataclass(frozen=True)
class AnswerReward(AnswerSettings):
    """
    `answer_reward` with settings.

    Formula, range and failures are that function's. With a `judge`, `free-form` answers that are not the gold answer's
    own words are graded by it, and `None` where it is unavailable.

    Args:
        tolerance, absolute_tolerance, regression_scale, unit, chance_corrected, aliases, math_seconds:
            See `AnswerSettings`.
        require_agreement (`bool`, defaults to `False`):
            Withhold the reward (`0.0`) where the reasoning concludes another answer than the one given; see
            `conclusion_agrees`.
        judge (`Judge` or `Mapping[str, Any]`, *optional*): Grades `free-form` answers.
        rubric (`str`, *optional*): What the judge is told to grade.
        schema (`SectionSchema`, *optional*, defaults to `CONTEXT_THINK_ANSWER`):
            The last section is the answer, the one before it the reasoning. The default also reads completions that
            have `<think>` and `<answer>` alone.

    Raises `ValueError` at construction for a value that cannot be meant, and for a judge without endpoint.

    >>> AnswerReward(tolerance=0.01)(["<answer>101</answer>"], ["100"], ["numerical"])
    [1.0]
    """

    require_agreement: bool = False
    judge: Judge | Mapping[str, Any] | None = None
    rubric: str = _RUBRIC
    schema: SectionSchema = CONTEXT_THINK_ANSWER

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "judge", as_judge(self.judge))
        if not self.rubric.strip():
            raise ValueError("`rubric` must tell the judge what to grade")

    @property
    def __name__(self) -> str:
        """The key of TRL's metrics."""
        return "answer_reward"

    def __call__(
        self,
        completions: Sequence[Completion],
        solution: Sequence[str],
        problem_type: Sequence[str],
        options: Sequence[Options] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """A score for each of the completions, in TRL's calling form."""
        batch = self._batch(completions, solution, problem_type, options, kwargs)
        rewards = judge_rows(self.judge, batch.rows, kwargs) if isinstance(self.judge, Judge) else _settled(batch.rows)
        log_answers(rewards, batch.has_reasoning, batch.is_spam, kwargs)
        return rewards

    def _batch(
        self,
        completions: Sequence[Completion],
        solution: Sequence[str],
        problem_type: Sequence[str],
        options: Sequence[Options] | None,
        columns: Mapping[str, Any],
    ) -> _Batch:
        batch, shown, reasons = _Batch([], [], []), list[str](), list[str]()
        *_, reasoning, section = ("", *self.schema.names)
        every_options = [None] * len(completions) if options is None else options
        given = zip(completions, solution, problem_type, every_options, strict=True)
        for index, (completion, gold, kind, choices) in enumerate(given):
            texts = parse_sections(completion_text(completion), self.schema).texts
            answer = texts.get(section)
            scored = self.read(answer or "", gold, kind, choices)
            row, reason = self._row(scored, kind, answer)
            if self.require_agreement and answer is not None and (think := texts.get(reasoning)):
                agrees = conclusion_agrees(think, answer, kind, choices, self.aliases)
                row, reason = (0.0, "disagrees") if agrees is False else (row, reason)
            if reason == "judged":
                asked = ("QUESTION", question_of(index, columns)), ("REFERENCE", gold), ("CANDIDATE", answer or "")
                row = (Question(self.rubric, asked),)
            batch.rows.append(row)
            batch.has_reasoning.append(reasoning in texts)
            batch.is_spam.append(scored.is_spam if kind in _CLOSED_TYPES else None)
            shown.append("" if answer is None or scored.parsed is None else scored.parsed)
            reasons.append(reason)
        if (log_extra := columns.get("log_extra")) is not None:
            log_extra("answer_parsed", shown)
            log_extra("answer_reason", reasons)
        return batch

    def _row(self, scored: Scored, problem_type: str, answer: str | None) -> tuple[Row, str]:
        if answer is None:
            return 0.0, "no_answer"
        if scored.parsed is None:
            return 0.0, "unreadable"
        if self.judge is not None and problem_type == "free-form" and scored.score < 1.0:
            return None, "judged"
        return scored.score, "right" if scored.score == 1.0 else "partial" if scored.score else "wrong"


def _settled(rows: Sequence[Row]) -> list[float | None]:
    return [row for row in rows if not isinstance(row, tuple)]


@dataclass(frozen=True)
class AsyncAnswerReward(AnswerReward):
    """`AnswerReward` as a coroutine: TRL awaits it together with the other asynchronous rewards of a step."""

    async def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        completions: Sequence[Completion],
        solution: Sequence[str],
        problem_type: Sequence[str],
        options: Sequence[Options] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """A score for each of the completions, in TRL's calling form."""
        batch = self._batch(completions, solution, problem_type, options, kwargs)
        if isinstance(self.judge, Judge):
            rewards = await judge_rows_async(self.judge, batch.rows, kwargs)
        else:
            rewards = _settled(batch.rows)
        log_answers(rewards, batch.has_reasoning, batch.is_spam, kwargs)
        return rewards
