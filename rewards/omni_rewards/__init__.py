# SPDX-License-Identifier: Apache-2.0
"""
Rewards for completions that write what they perceive, then reason, then answer. Standard library only.

- `sections`: the strict parser of `<context>…</context><think>…</think><answer>…</answer>`; every reward reads through it
- `formats`: is the completion well formed, 0 or 1
- `answers`: is the answer right, by the row's own `problem_type`

To add a reward: write a scalar function that scores one text, wrap it in a function that takes TRL's keyword
arguments and ends in `_reward`, and name it in `__all__`; `tests/rewards/test_contract.py` then checks the rest.
"""

from .answers import CHOICE_TYPES, PROBLEM_TYPES, answer_reward, answer_score
from .formats import section_format_reward, think_answer_format_reward
from .sections import (
    CONTEXT_THINK_ANSWER,
    SECTION_REASONS,
    THINK_ANSWER,
    Sections,
    SectionSchema,
    parse_sections,
)

__all__ = [
    "CHOICE_TYPES",
    "CONTEXT_THINK_ANSWER",
    "PROBLEM_TYPES",
    "SECTION_REASONS",
    "THINK_ANSWER",
    "SectionSchema",
    "Sections",
    "answer_reward",
    "answer_score",
    "parse_sections",
    "section_format_reward",
    "think_answer_format_reward",
]
