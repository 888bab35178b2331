# SPDX-License-Identifier: Apache-2.0
"""Format rewards: strict, so that no malformed completion can be taught as a good one."""

from collections.abc import Sequence
from typing import Any

from ._completions import Completion, completion_text
from .sections import CONTEXT_THINK_ANSWER, THINK_ANSWER, SectionSchema, parse_sections


def section_format_reward(completions: Sequence[Completion], **kwargs: Any) -> list[float]:
    r"""
    Whether each completion is `<context>…</context><think>…</think><answer>…</answer>`; higher is better.

    $$R \in \{0, 1\}$$

    `1.0` only if each section is there exactly once, in this order, with text in it and only whitespace around.
    Every defect in `SECTION_REASONS`, truncation included, earns `0.0`. Never `None`, raises nothing.

    Args:
        completions (`list[str]` or `list[list[dict[str, Any]]]`):
            Completions, plain or conversational.
        **kwargs:
            TRL's other arguments and columns; not used.

    Source: the format reward of HumanOmniV2 (https://huggingface.co/papers/2506.21277), which also accepts empty,
    repeated and nested sections and text after the answer; those are refused here.

    >>> section_format_reward([
    ...     "<context>He frowns.</context><think>A frown is no praise.</think><answer>B</answer>",
    ...     "<context> </context><think>A frown is no praise.</think><answer>B</answer>",
    ... ])
    [1.0, 0.0]
    """
    return _format_scores(completions, CONTEXT_THINK_ANSWER)


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
            TRL's other arguments and columns; not used.

    Source: the format reward of R1-Omni (https://huggingface.co/papers/2503.05379), which also accepts empty,
    repeated and nested sections; those are refused here.

    >>> think_answer_format_reward(["<think>A trembling voice.</think><answer>fear</answer>", "fear"])
    [1.0, 0.0]
    """
    return _format_scores(completions, THINK_ANSWER)


def _format_scores(completions: Sequence[Completion], schema: SectionSchema) -> list[float]:
    return [float(parse_sections(completion_text(completion), schema).ok) for completion in completions]
