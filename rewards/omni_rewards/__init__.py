# SPDX-License-Identifier: Apache-2.0
"""
Rewards for completions that write what they perceive, then reason, then answer. Standard library only.

- `sections`: the strict parser of `<context>…</context><think>…</think><answer>…</answer>`; every reward reads through it
- `formats`: is the completion well formed, 0 or 1
- `answers`: is the answer right, by the row's own `problem_type`; `problem_types`: what each type asks
- `context`: does the context say what the reference says, by what it names (`coverage`)
- `conclusions`: does the thought conclude the answer that is given; `reasoning`: does it follow, as a judge grades it
- `judge`: a language model that grades, behind any OpenAI-compatible endpoint

To add a problem type: write its record into `PROBLEM_TYPES`; prompt, check of rows, scores and baselines read it there.

To add a reward: write a function that takes TRL's keyword arguments and has an attribute `sections`, the sections that
it is about; a run names it by its dotted path, wherever it stands. In this package it ends in `_reward` and is named in
`__all__`; `tests/rewards/test_contract.py` then checks the rest.
"""

from .answers import ANSWER_REASONS, AnswerReward, AsyncAnswerReward, answer_reward, answer_score
from .conclusions import conclusion_agrees
from .context import AsyncContextReward, ContextReward, context_reward, context_score
from .coverage import Coverage, context_coverage
from .emotions import EMOTION_ALIASES, EMOTION_LABEL_SETS
from .formats import (
    SectionFormatReward,
    ThinkAnswerFormatReward,
    section_format_reward,
    think_answer_format_reward,
)
from .judge import Judge, Question
from .problem_types import CHOICE_TYPES, PROBLEM_TYPES, ProblemType
from .reasoning import AsyncReasoningReward, ReasoningReward, reasoning_reward
from .sections import (
    CONTEXT_THINK_ANSWER,
    SECTION_REASONS,
    SUMMARY_CAPTION_REASONING_CONCLUSION,
    THINK_ANSWER,
    Sections,
    SectionSchema,
    parse_sections,
)

__all__ = [
    "ANSWER_REASONS",
    "CHOICE_TYPES",
    "CONTEXT_THINK_ANSWER",
    "EMOTION_ALIASES",
    "EMOTION_LABEL_SETS",
    "PROBLEM_TYPES",
    "SECTION_REASONS",
    "SUMMARY_CAPTION_REASONING_CONCLUSION",
    "THINK_ANSWER",
    "AnswerReward",
    "AsyncAnswerReward",
    "AsyncContextReward",
    "AsyncReasoningReward",
    "ContextReward",
    "Coverage",
    "Judge",
    "ProblemType",
    "Question",
    "ReasoningReward",
    "SectionFormatReward",
    "SectionSchema",
    "Sections",
    "ThinkAnswerFormatReward",
    "answer_reward",
    "answer_score",
    "conclusion_agrees",
    "context_coverage",
    "context_reward",
    "context_score",
    "parse_sections",
    "reasoning_reward",
    "section_format_reward",
    "think_answer_format_reward",
]
