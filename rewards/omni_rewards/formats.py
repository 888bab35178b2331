# SPDX-License-Identifier: Apache-2.0
"""Format rewards: strict, so that no malformed completion can be taught as a good one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ._completions import Completion, about, completion_text
from .sections import CONTEXT_THINK_ANSWER, THINK_ANSWER, SectionSchema, parse_sections
from .telemetry import has_blank_section, log_mean

MAX_SECTION_CHARACTERS = 65_536


@dataclass(frozen=True)
class SectionFormatReward:
    """
    `section_format_reward` for any schema, with limits on the length of a section.

    Formula, range and failures are that function's; a section outside the limits earns `0.0` as well.

    Args:
        schema (`SectionSchema`, *optional*, defaults to `CONTEXT_THINK_ANSWER`):
            The sections to expect.
        min_characters (`int`, *optional*, defaults to `1`):
            Fewest characters, blanks around them not counted, in each section but the last. A higher floor stops a
            `<think>` that shrinks to a full stop; the answer may be one letter.
        max_characters (`int`, *optional*, defaults to `65_536`):
            Most characters in any section, about 16,000 tokens.

    Raises `ValueError` at construction if the limits leave no length between them.

    >>> SectionFormatReward(min_characters=20)(["<context>He frowns.</context><think>.</think><answer>B</answer>"])
    [0.0]
    """

    sections = ("tag",)  # what it is about: the form

    schema: SectionSchema = CONTEXT_THINK_ANSWER
    min_characters: int = 1
    max_characters: int = MAX_SECTION_CHARACTERS

    def __post_init__(self) -> None:
        if not 1 <= self.min_characters <= self.max_characters:
            raise ValueError(
                f"min_characters and max_characters must be 1 or more and in order, got {self.min_characters} and "
                f"{self.max_characters}"
            )

    @property
    def __name__(self) -> str:
        """The key of TRL's metrics, one for each schema: `section_format_reward` for the default one."""
        if self.schema == CONTEXT_THINK_ANSWER:
            return "section_format_reward"
        return f"{'_'.join(self.schema.names)}_format_reward"

    def __call__(self, completions: Sequence[Completion], **kwargs: Any) -> list[float]:
        """`1.0` or `0.0` for each of the completions, in TRL's calling form."""
        texts = [completion_text(completion) for completion in completions]
        reasons = [self.reason(text) for text in texts]
        for name in self.schema.names[-2:-1]:  # the reasoning, where there is a section for it
            log_mean(f"format/blank_{name}_rate", [has_blank_section(text, name) for text in texts], kwargs)
        if (log_extra := kwargs.get("log_extra")) is not None:
            log_extra(self.__name__.replace("reward", "reason"), reasons)
        return [float(reason == "ok") for reason in reasons]

    def reason(self, text: str) -> str:
        """`"ok"`, a key of `SECTION_REASONS`, or `"too_short"` or `"too_long"` for a section outside the limits."""
        sections = parse_sections(text, self.schema)
        if not sections.ok:
            return sections.reason
        if any(len(sections.texts[name].strip()) < self.min_characters for name in self.schema.names[:-1]):
            return "too_short"
        return "too_long" if max(map(len, sections.texts.values())) > self.max_characters else "ok"


@dataclass(frozen=True)
class ThinkAnswerFormatReward(SectionFormatReward):
    """
    `think_answer_format_reward` with limits on the length of a section; see `SectionFormatReward`.

    >>> ThinkAnswerFormatReward(max_characters=5)(["<think>Anger.</think><answer>B</answer>"])
    [0.0]
    """

    schema: SectionSchema = THINK_ANSWER


@about("tag")
def section_format_reward(completions: Sequence[Completion], **kwargs: Any) -> list[float]:
    r"""
    Whether each completion is `<context>…</context><think>…</think><answer>…</answer>`; higher is better.

    $$R \in \{0, 1\}$$

    `1.0` only if each section is there exactly once, in this order, with text in it and only whitespace around.
    Every defect in `SECTION_REASONS`, truncation included, earns `0.0`, and so does a section of more than 65,536
    characters. Never `None`, raises nothing. `SectionFormatReward` has other schemas and limits.

    Args:
        completions (`list[str]` or `list[list[dict[str, Any]]]`):
            Completions, plain or conversational.
        **kwargs:
            TRL's other arguments and columns. `log_extra` is used to show the reason of each verdict in the table of
            completions, as column `section_format_reason`; `log_metric` for `format/blank_think_rate`.

    Source: the format reward of HumanOmniV2 (https://huggingface.co/papers/2506.21277), which also accepts empty,
    repeated and nested sections and text after the answer; those are refused here.

    >>> section_format_reward([
    ...     "<context>He frowns.</context><think>A frown is no praise.</think><answer>B</answer>",
    ...     "<context> </context><think>A frown is no praise.</think><answer>B</answer>",
    ... ])
    [1.0, 0.0]
    """
    return _SECTION_FORMAT(completions, **kwargs)


@about("tag")
def think_answer_format_reward(completions: Sequence[Completion], **kwargs: Any) -> list[float]:
    r"""
    Whether each completion is `<think>…</think><answer>…</answer>`; higher is better.

    $$R \in \{0, 1\}$$

    Same rule as `section_format_reward` for two sections; a `<context>` section earns `0.0`. Never `None`, raises
    nothing.

    Args:
        completions (`list[str]` or `list[list[dict[str, Any]]]`):
            Completions, plain or conversational.
        **kwargs:
            TRL's other arguments and columns. `log_extra` is used to show the reason of each verdict in the table of
            completions, as column `think_answer_format_reason`; `log_metric` for `format/blank_think_rate`.

    Source: the format reward of R1-Omni (https://huggingface.co/papers/2503.05379), which also accepts empty,
    repeated and nested sections; those are refused here.

    >>> think_answer_format_reward(["<think>A trembling voice.</think><answer>fear</answer>", "fear"])
    [1.0, 0.0]
    """
    return _THINK_ANSWER_FORMAT(completions, **kwargs)


_SECTION_FORMAT = SectionFormatReward()
_THINK_ANSWER_FORMAT = ThinkAnswerFormatReward()
