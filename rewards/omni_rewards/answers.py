# SPDX-License-Identifier: Apache-2.0
"""Answer reward: is the text in `<answer>` right, judged by the row's own `problem_type`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ._completions import Completion, about, completion_text
from ._judged import awaited, settled
from ._scored import Options
from .conclusions import conclusion_agrees
from .judge import Judge, Question
from .judge.media import media_of
from .judge.rows import Row, question_of
from .judge.settings import as_judge
from .problem_types import PROBLEM_TYPES, AnswerSettings, require_known, types_of_rows
from .sections import CONTEXT_THINK_ANSWER, SectionSchema, parse_sections
from .telemetry import log_mean

ANSWER_REASONS: dict[str, str] = {
    "right": "earned the maximum",
    "partial": "earned part of it",
    "wrong": "was read as its type and earned nothing",
    "unreadable": "cannot be read as its type",
    "no_answer": "the completion has no single well-formed section of the answer",
    "disagrees": "the reasoning concludes something else (`require_agreement`)",
    "judged": "left to the judge",
}
_RUBRIC = (
    "Grade whether the CANDIDATE answers the QUESTION with the same meaning as the REFERENCE. 5: the same meaning. "
    "3: the main point, with something missing or added. 0: another meaning, a contradiction, no answer, or several "
    "answers of which one may be right. Wording, length and style do not count."
)


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
        problem_type (`str`, *optional*):
            Type of the rows that have none of their own, so that rows of `prompt` and `solution` are enough.

    Raises `ValueError` at construction for a value that cannot be meant, and for a judge without endpoint.

    >>> AnswerReward(tolerance=0.01)(["<answer>101</answer>"], ["100"], ["numerical"])
    [1.0]
    >>> AnswerReward(problem_type="numerical")(["<answer>7.0</answer>"], ["7"])
    [1.0]
    """

    require_agreement: bool = False
    judge: Judge | Mapping[str, Any] | None = None
    rubric: str = _RUBRIC
    schema: SectionSchema = CONTEXT_THINK_ANSWER
    problem_type: str | None = None

    __name__ = "answer_reward"  # TRL's metric key

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.problem_type is not None:
            require_known(self.problem_type)
        object.__setattr__(self, "judge", as_judge(self.judge))
        if not self.rubric.strip():
            raise ValueError("`rubric` must tell the judge what to grade")

    @property
    def sections(self) -> tuple[str, ...]:
        """What the reward speaks about: the answer."""
        return self.schema.names[-1:]

    @property
    def needed_columns(self) -> tuple[str, ...]:
        """Columns without which it says nothing."""
        return ("solution",) if self.problem_type else ("solution", "problem_type")

    def __call__(
        self,
        completions: Sequence[Completion],
        solution: Sequence[str],
        problem_type: Sequence[str | None] | None = None,
        options: Sequence[Options] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """A score for each of the completions, in TRL's calling form."""
        *_, reasoning, section = ("", *self.schema.names)
        rows, reasons, shown = list[Row](), list[str](), list[str]()
        unreasoned, spam = list[int](), list[bool]()
        every_options = [None] * len(completions) if options is None else options
        kinds = types_of_rows(problem_type, self.problem_type, len(completions))
        given = zip(completions, solution, kinds, every_options, strict=True)
        for index, (completion, gold, kind, choices) in enumerate(given):
            texts = parse_sections(completion_text(completion), self.schema).texts
            answer, think = texts.get(section), texts.get(reasoning)
            scored = self.read(answer or "", gold, kind, choices)
            reason = "no_answer" if answer is None else scored.reason
            if self.judge is not None and PROBLEM_TYPES[kind].may_be_judged and reason in ("partial", "wrong"):
                reason = "judged"
            if self.require_agreement and answer and think:
                agrees = conclusion_agrees(think, answer, kind, choices, self.aliases)
                reason = "disagrees" if agrees is False else reason
            row: Row = scored.score if reason in ("right", "partial") else 0.0
            if reason == "judged":
                asked = ("QUESTION", question_of(index, kwargs)), ("REFERENCE", gold), ("CANDIDATE", answer or "")
                row = (Question(self.rubric, asked, media_of(self.judge, index, kwargs)),)
            rows.append(row)
            reasons.append(reason)
            shown.append("" if answer is None else scored.parsed or "")
            unreasoned += [index] if think is None else []
            spam += [] if scored.is_spam is None else [scored.is_spam]
        if (log_extra := kwargs.get("log_extra")) is not None:
            log_extra("answer_parsed", shown)
            log_extra("answer_reason", reasons)
        rewards = settled(self.judge, rows, kwargs)
        bare = [score for index in unreasoned if (score := rewards[index]) is not None]
        log_mean("answer/accuracy_without_reasoning", bare, kwargs)
        log_mean("answer/option_spam_rate", spam, kwargs)
        return rewards


@dataclass(frozen=True)
class AsyncAnswerReward(AnswerReward):
    """`AnswerReward` as a coroutine: TRL awaits it together with the other asynchronous rewards of a step."""

    __call__ = awaited(AnswerReward.__call__)  # pyright: ignore[reportAssignmentType]


@about("answer")
def answer_reward(
    completions: Sequence[Completion],
    solution: Sequence[str],
    problem_type: Sequence[str],
    options: Sequence[Options] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    r"""
    Whether the answer of each completion is right; higher is better. Each row is checked by its own type.

    $$R \in \{0, 1\}$$ for `multiple choice`, `yes_no`, `judge`, `label`, the emotion labels, `numerical` and `math`;
    $$R \in [0, 1]$$ for the other types. `omni_rewards.problem_types` says what each type asks; the gold answer always
    earns `1.0`.

    A wrong or unreadable answer earns `0.0`, and so does a completion without a single well-formed `<answer>` section.
    Defects elsewhere in the completion are `section_format_reward`'s business. Never `None`: every type has an answer.
    `AnswerReward` has tolerances, aliases, a judge for free-form answers, and `require_agreement`.

    Args:
        completions (`list[str]` or `list[list[dict[str, Any]]]`):
            Completions, plain or conversational.
        solution (`list[str]`):
            Gold answers without tags.
        problem_type (`list[str]`):
            Keys of `PROBLEM_TYPES`.
        options (`list[list[str] | None]`, *optional*):
            Options of each row, needed by the rows of `CHOICE_TYPES`: plain texts, or texts after `A.`, `B.`, …
        **kwargs:
            TRL's other arguments and columns. `log_extra` is used to show in the table of completions how answers were
            read (`answer_parsed`) and why they earned what they did (`answer_reason`, a key of `ANSWER_REASONS`);
            `log_metric` for `answer/option_spam_rate` and `answer/accuracy_without_reasoning`.

    Raises `ValueError` for an unknown type and for broken data: a gold answer that is missing, still in tags, or not
    readable as its type; a choice row without options. Raises `ImportError` for `math` without math-verify.

    Source: the accuracy reward of HumanOmniV2 (https://huggingface.co/papers/2506.21277). Deviations: the type is each
    row's own; letters are read with their punctuation and text; sets are de-duplicated and corrected for chance;
    numbers are compared exactly; yes and no are whole words; regression is defined at a gold of 0; error rates follow
    the script; open-vocabulary emotions work; free-form answers need no judge. The types from `box` on, `math` and
    `transcription` are ours.

    >>> completion = "<context>He frowns.</context><think>No praise.</think><answer>B. taunt</answer>"
    >>> answer_reward([completion], ["B"], ["multiple choice"], [["A. praise", "B. taunt"]])
    [1.0]
    """
    return _DEFAULT(completions, solution, problem_type, options, **kwargs)


def answer_score(answer: str, solution: str, problem_type: str, options: Options = None) -> float:
    """
    Score in `[0, 1]` of one bare answer, without tags, against the gold answer; higher is better.

    An empty or unreadable answer scores `0.0`. The gold answer scores `1.0` against itself. Raises `ValueError` as
    `answer_reward` does.

    >>> answer_score("(b)", "B", "multiple choice", ["A. praise", "B. taunt"])
    1.0
    >>> answer_score("A, B", "B", "multiple choice", ["A. praise", "B. taunt"])
    0.0
    >>> answer_score("1,000", "1000.0", "numerical")
    1.0
    """
    return _DEFAULT.read(answer, solution, problem_type, options).score


_DEFAULT = AnswerReward()
