# SPDX-License-Identifier: Apache-2.0
"""Answer reward: is the text in `<answer>` right, judged by the row's own `problem_type`."""

from collections.abc import Sequence
from typing import Any

from ._completions import Completion, about
from ._scored import Options
from .answer_rows import AnswerReward

_DEFAULT = AnswerReward()


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
