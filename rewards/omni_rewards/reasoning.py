# SPDX-License-Identifier: Apache-2.0
"""Reasoning reward: does `<think>` follow from the context, and lead to the answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ._completions import Completion, completion_text
from .consistency import conclusion_agrees, reasoning_score
from .judge import Judge, Question
from .judge.rows import Row, judge_rows, judge_rows_async, question_of
from .judge.settings import as_judge
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


@dataclass(frozen=True)
class ReasoningReward:
    """
    `reasoning_reward` with settings: a judge in place of the offline scorer, another rubric, another schema.

    A think section that concludes something other than the answer earns `0.0` before the judge is asked.

    Args:
        judge (`Judge` or `dict[str, Any]`, *optional*):
            The judge, or its settings; the offline scorer without one.
        rubric (`str`, *optional*, defaults to `REASONING_RUBRIC`):
            Tells the judge what earns which score from 0 to 5. It is shown QUESTION, CONTEXT, REASONING and ANSWER,
            and REFERENCE where the row has one.
        schema (`SectionSchema`, *optional*, defaults to `CONTEXT_THINK_ANSWER`):
            The sections of the completions: `think` and `answer`, with or without `context`.

    Raises `ValueError` at construction for settings that cannot work, a judge without endpoint among them.

    >>> from omni_rewards import THINK_ANSWER
    >>> ReasoningReward(schema=THINK_ANSWER)(["<think>So it is fear.</think><answer>fear</answer>"], ["label"])
    [1.0]
    """

    judge: Judge | Mapping[str, Any] | None = None
    rubric: str = REASONING_RUBRIC
    schema: SectionSchema = CONTEXT_THINK_ANSWER

    __name__ = "reasoning_reward"  # TRL's metric key

    def __post_init__(self) -> None:
        object.__setattr__(self, "judge", as_judge(self.judge))
        if not self.rubric.strip():
            raise ValueError("`rubric` must tell the judge what to grade")
        if not {"think", "answer"} <= set(self.schema.names):
            raise ValueError(f"reasoning_reward needs `think` and `answer`, the schema has {list(self.schema.names)}")

    def __call__(
        self,
        completions: Sequence[Completion],
        problem_type: Sequence[str],
        options: Sequence[Sequence[str] | None] | None = None,
        reference_reasoning: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """A score for each of the completions, in TRL's calling form."""
        rows = self._rows(completions, problem_type, options, reference_reasoning, kwargs)
        if isinstance(self.judge, Judge):
            return judge_rows(self.judge, rows, kwargs)
        return [row for row in rows if not isinstance(row, tuple)]

    def _rows(
        self,
        completions: Sequence[Completion],
        problem_type: Sequence[str],
        options: Sequence[Sequence[str] | None] | None,
        references: Sequence[str | None] | None,
        columns: Mapping[str, Any],
    ) -> list[Row]:
        count, rows, agreements = len(completions), list[Row](), list[str]()
        options = [None] * count if options is None else options
        references = [None] * count if references is None else references
        columns_by_row = zip(completions, problem_type, options, references, strict=True)
        for index, (completion, kind, choices, reference) in enumerate(columns_by_row):
            texts = parse_sections(completion_text(completion), self.schema).texts
            needed = [name for name in self.schema.names if name in ("context", "think", "answer")]
            if not all(name in texts for name in needed):
                rows.append(0.0)
                agreements.append("unreadable")
                continue
            question = question_of(index, columns)
            agrees = conclusion_agrees(texts["think"], texts["answer"], kind, choices, question)
            agreements.append({True: "agrees", False: "disagrees", None: "concludes nothing"}[agrees])
            reference = reference if reference and reference.strip() else None
            if agrees is False:
                rows.append(0.0)
            elif isinstance(self.judge, Judge):
                rows.append((self._question(question, texts, choices, reference),))
            else:
                rows.append(reasoning_score(texts["think"], agrees, kind, texts.get("context"), reference))
        if (log_extra := columns.get("log_extra")) is not None:
            log_extra("reasoning", agreements)
        return rows

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

    async def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        completions: Sequence[Completion],
        problem_type: Sequence[str],
        options: Sequence[Sequence[str] | None] | None = None,
        reference_reasoning: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """A score for each of the completions, in TRL's calling form."""
        rows = self._rows(completions, problem_type, options, reference_reasoning, kwargs)
        if isinstance(self.judge, Judge):
            return await judge_rows_async(self.judge, rows, kwargs)
        return [row for row in rows if not isinstance(row, tuple)]


def reasoning_reward(
    completions: Sequence[Completion],
    problem_type: Sequence[str],
    options: Sequence[Sequence[str] | None] | None = None,
    reference_reasoning: Sequence[str | None] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    r"""
    Whether `<think>` follows from the context and concludes the answer that is given; higher is better.

    $$R = 0$$ where it concludes another answer, else $$R = \frac{1}{|P|} \sum_{p \in P} p \in [0, 1]$$ over those of
    these parts that apply:

    - *agreement*: 1 if it concludes the answer; 0 if nothing that can be recognised, left out for types such as
      free-form whose conclusions cannot be read;
    - *grounding*: share of what it claims of face and voice that the completion's own context says;
    - *evidence*: 1 if it names at least one element of that context, else 0;
    - *reference*: F1 of its elements and those of the reference reasoning, for a row that has one.

    `0.0` for a completion that lacks a well-formed `<context>`, `<think>` or `<answer>` section. `None` if no part
    applies. Whether the answer is right is not asked: `answer_reward` does. `ReasoningReward` asks a judge instead.

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

    Never raises for what the model wrote; columns of another length than the completions raise `ValueError`.

    Source: the logical reward of HumanOmniV2 (https://huggingface.co/papers/2506.21277), a judge's grade of context and
    think. Deviations: works without a judge, and the answer is read too, so that a think section cannot conclude one
    thing and the answer say another.

    >>> reasoning_reward([
    ...     "<context>The face is sad.</context><think>The face looks sad. So no.</think><answer>no</answer>",
    ...     "<context>The face is sad.</context><think>The face looks sad. So no.</think><answer>yes</answer>",
    ...     "<context>The face is sad.</context><think>The face looks happy. So no.</think><answer>no</answer>",
    ... ], problem_type=["yes_no"] * 3)
    [1.0, 0.0, 0.3333333333333333]
    """
    return _DEFAULT(completions, problem_type, options, reference_reasoning, **kwargs)


_DEFAULT = ReasoningReward()
