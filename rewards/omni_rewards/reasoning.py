# SPDX-License-Identifier: Apache-2.0
"""Reasoning reward: does `<think>` follow from the context and lead to the answer, as a judge grades it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ._completions import Completion, about, completion_text
from ._judged import awaited, settled
from .conclusions import conclusion_agrees
from .judge import Judge, Question
from .judge.media import media_of
from .judge.rows import Row, question_of
from .judge.settings import as_judge
from .problem_types import require_known, types_of_rows
from .sections import CONTEXT_THINK_ANSWER, SectionSchema, parse_sections

REASONING_RUBRIC = (
    "You are given a QUESTION about media that you cannot see or hear, the CONTEXT that the system wrote of them, its "
    "REASONING and its ANSWER; where there is a REFERENCE, it is sound reasoning for the same question. Grade the "
    "reasoning, not the style. 5: it uses the visual and the audible evidence of the context that the question needs, "
    "every step follows, and it leads to exactly this answer. 4: one minor gap. 3: a needed piece of evidence is not "
    "used, or a step does not follow. 2: several. 1: it hardly bears on the question or the context. 0: it contradicts "
    "the context, assumes what the context does not say, concludes something other than the answer, or is empty. "
    "Phrases such as 'let me check again' earn nothing."
)


_UNSEEN = " that you cannot see or hear"
_NO_JUDGE = (
    "reasoning_reward needs a judge, because words alone do not tell sound reasoning from any other. In Python: "
    'ReasoningReward(judge={"endpoint": "http://localhost:8000/v1", "model": "NAME"}); in a run\'s YAML, under the path '
    "that `reward_funcs` has: reward_settings: {omni_rewards.reasoning_reward: {judge: {endpoint: "
    '"http://localhost:8000/v1", model: NAME}}}'
)


@dataclass(frozen=True)
class ReasoningReward:
    """
    `reasoning_reward` with its judge, and another rubric or schema.

    Formula, range and failures are that function's.

    Args:
        judge (`Judge` or `dict[str, Any]`):
            The judge, or its settings; required.
        rubric (`str`, *optional*, defaults to `REASONING_RUBRIC`):
            Tells the judge what earns which score from 0 to 5. It is shown QUESTION, CONTEXT, REASONING and ANSWER,
            and REFERENCE where the row has one.
        schema (`SectionSchema`, *optional*, defaults to `CONTEXT_THINK_ANSWER`):
            The sections of the completions: `think` and `answer`, with or without `context`.
        problem_type (`str`, *optional*): Type of the rows that have none of their own.

    Raises `ValueError` at construction without a judge, and for settings that cannot work, a judge without endpoint
    among them.

    >>> from omni_rewards import THINK_ANSWER
    >>> reward = ReasoningReward({"endpoint": "http://localhost:8000/v1", "model": "qwen"}, schema=THINK_ANSWER)
    >>> reward(["<think>So it is fear.</think><answer>joy</answer>"], ["emotion"])  # settled before the judge is asked
    [0.0]
    """

    judge: Judge | Mapping[str, Any] | None = None
    rubric: str = REASONING_RUBRIC
    schema: SectionSchema = CONTEXT_THINK_ANSWER
    problem_type: str | None = None

    __name__ = "reasoning_reward"  # TRL's metric key
    sections = ("think",)

    def __post_init__(self) -> None:
        if self.judge is None:
            raise ValueError(_NO_JUDGE)
        object.__setattr__(self, "judge", as_judge(self.judge))
        if self.problem_type is not None:
            require_known(self.problem_type)
        if not self.rubric.strip():
            raise ValueError("`rubric` must tell the judge what to grade")
        if not {"think", "answer"} <= set(self.schema.names):
            raise ValueError(f"reasoning_reward needs `think` and `answer`, the schema has {list(self.schema.names)}")

    @property
    def needed_columns(self) -> tuple[str, ...]:
        """Columns without which it says nothing."""
        return () if self.problem_type else ("problem_type",)

    def __call__(
        self,
        completions: Sequence[Completion],
        problem_type: Sequence[str | None] | None = None,
        options: Sequence[Sequence[str] | None] | None = None,
        reference_reasoning: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """A score for each of the completions, in TRL's calling form."""
        count, rows, agreements = len(completions), list[Row](), list[str]()
        options = [None] * count if options is None else options
        references = [None] * count if reference_reasoning is None else reference_reasoning
        kinds = types_of_rows(problem_type, self.problem_type, count)
        columns_by_row = zip(completions, kinds, options, references, strict=True)
        for index, (completion, kind, choices, reference) in enumerate(columns_by_row):
            texts = parse_sections(completion_text(completion), self.schema).texts
            needed = [name for name in self.schema.names if name in ("context", "think", "answer")]
            if not all(name in texts for name in needed):
                rows.append(0.0)
                agreements.append("unreadable")
                continue
            agrees = conclusion_agrees(texts["think"], texts["answer"], kind, choices)
            agreements.append({True: "agrees", False: "disagrees", None: "unclear"}[agrees])
            reference = reference if reference and reference.strip() else None
            question = self._question(question_of(index, kwargs), texts, choices, reference)
            if media := media_of(self.judge, index, kwargs):
                question = replace(question, rubric=question.rubric.replace(_UNSEEN, ""), media=media)
            rows.append(0.0 if agrees is False else (question,))
        if (log_extra := kwargs.get("log_extra")) is not None:
            log_extra("reasoning", agreements)
        return settled(self.judge, rows, kwargs)

    def _question(
        self, question: str, texts: Mapping[str, str], options: Sequence[str] | None, reference: str | None
    ) -> Question:
        parts = {
            "QUESTION": "\n".join([question, *(option for option in options or () if option not in question)]),
            "CONTEXT": texts.get("context"),
            "REASONING": texts["think"],
            "ANSWER": texts["answer"],
            "REFERENCE": reference,
        }
        return Question(self.rubric, tuple((name, text.strip()) for name, text in parts.items() if text))


@dataclass(frozen=True)
class AsyncReasoningReward(ReasoningReward):
    """`ReasoningReward` as a coroutine: TRL awaits it together with the other asynchronous rewards of a step."""

    __call__ = awaited(ReasoningReward.__call__)  # pyright: ignore[reportAssignmentType]


@about("think")
def reasoning_reward(
    completions: Sequence[Completion],
    problem_type: Sequence[str],
    options: Sequence[Sequence[str] | None] | None = None,
    reference_reasoning: Sequence[str | None] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    r"""
    Whether `<think>` follows from the context and leads to the answer given, as a judge grades it; higher is better.

    $$R = 0$$ where it concludes another answer, which `conclusion_agrees` reads before the judge is asked, else
    $$R = \frac{g}{5} \in [0, 1]$$ with the judge's grade $$g$$, a whole number from 0 to 5.

    The function has no judge and so raises: in Python the reward is `ReasoningReward(judge=…)`; a run's YAML names this
    path in `reward_funcs` and the judge in `reward_settings`.

    `0.0` for a completion that lacks a well-formed `<context>`, `<think>` or `<answer>` section. `None` where the judge
    cannot be reached, or writes no readable grade. Whether the answer is right is not asked: `answer_reward` does.

    Args:
        completions (`list[str]` or `list[list[dict[str, Any]]]`):
            Completions, plain or conversational.
        problem_type (`list[str]`):
            Problem types of the rows, as for `answer_reward`.
        options (`list[list[str] | None]`, *optional*):
            Options of each row.
        reference_reasoning (`list[str | None]`, *optional*):
            Sound reasoning for the row, where it is known.
        **kwargs:
            TRL's other arguments and columns. `problem`, else `prompts`, is read for the question, and `log_extra` is
            used to show whether think and answer agree in the table of completions, as column `reasoning`.

    Raises `ValueError` here, for want of a judge; with one never for what the model wrote, but for columns of another
    length than the completions.

    Source: the logical reward of HumanOmniV2 (https://huggingface.co/papers/2506.21277), a judge's grade of context and
    think. Deviation: the answer is read too, so that a think section cannot conclude one thing and the answer say
    another.

    >>> reward = ReasoningReward(judge={"endpoint": "http://localhost:8000/v1", "model": "qwen"})
    >>> reward([
    ...     "<context>The face is sad.</context><think>The face is sad. So no.</think><answer>yes</answer>",
    ...     "<context>The face is sad.</context><answer>no</answer>",
    ... ], problem_type=["yes_no"] * 2)  # settled before the judge is asked
    [0.0, 0.0]
    """
    return ReasoningReward()(completions, problem_type, options, reference_reasoning, **kwargs)
