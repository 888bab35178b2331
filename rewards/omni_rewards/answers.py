# SPDX-License-Identifier: Apache-2.0
"""Answer reward: is the text in `<answer>` right, judged by the row's own `problem_type`."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from ._completions import Completion, completion_text
from ._written import (
    normalize,
    option_texts,
    read_choice,
    read_choices,
    read_label,
    read_labels,
    read_number,
    read_yes_no,
)
from .sections import parse_sections

PROBLEM_TYPES: dict[str, str] = {
    "multiple choice": "one option: its letter, its letter and text, or its text",
    "emer_ov_mc": "several options; F1 of the two sets of letters",
    "yes_no": "yes or no, as a whole word",
    "judge": "alias of yes_no",
    "label": "one word or phrase; case and surrounding punctuation ignored",
    "numerical": "a number; 42 = 42.0, thousands separators allowed",
    "regression": "a number; 1 minus the relative error",
    "emer_ov": "comma-separated words; F1 of the two sets",
    "OCR": "a transcription; equal up to case and white space",
    "free-form": "any text; equal up to case and white space",
}
CHOICE_TYPES: frozenset[str] = frozenset({"multiple choice", "emer_ov_mc"})


def answer_reward(
    completions: Sequence[Completion],
    solution: Sequence[str],
    problem_type: Sequence[str],
    options: Sequence[Sequence[str] | None] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    r"""
    Whether the answer of each completion is right; higher is better. Each row is checked by its own type.

    $$R \in \{0, 1\}$$, and $$R \in [0, 1]$$ for the graded types `emer_ov_mc`, `emer_ov` and `regression`.

    A wrong or unreadable answer earns `0.0`, and so does a completion without a single well-formed `<answer>` section.
    Defects elsewhere in the completion are `section_format_reward`'s business. Never `None`: every type has an answer.

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
            TRL's other arguments and columns. `log_extra` is used to show the extracted answers in the table of
            completions, as column `answer`.

    Raises `ValueError` for an unknown type and for broken data: a gold answer that is missing, still in tags, or not
    readable as its type; a choice row without options.

    Source: the accuracy reward of HumanOmniV2 (https://huggingface.co/papers/2506.21277). Deviations: the type is each
    row's own; letters are read with their punctuation and text; sets are de-duplicated; numbers are compared exactly;
    yes and no are whole words; regression is defined at a gold of 0.

    >>> completion = "<context>He frowns.</context><think>No praise.</think><answer>B. taunt</answer>"
    >>> answer_reward([completion], ["B"], ["multiple choice"], [["A. praise", "B. taunt"]])
    [1.0]
    """
    rows_options = [None] * len(completions) if options is None else options
    answers = [parse_sections(completion_text(completion)).texts.get("answer", "") for completion in completions]
    if (log_extra := kwargs.get("log_extra")) is not None:
        log_extra("answer", [answer.strip() for answer in answers])
    return [answer_score(*row) for row in zip(answers, solution, problem_type, rows_options, strict=True)]


def answer_score(answer: str, solution: str, problem_type: str, options: Sequence[str] | None = None) -> float:
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
    if problem_type not in _SCORERS:
        raise ValueError(f"unknown problem_type {problem_type!r}; known are {', '.join(map(repr, _SCORERS))}")
    if not isinstance(solution, str) or not solution.strip():  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"a {problem_type} row needs its gold answer as text, got {solution!r}")
    if "<answer" in solution:
        raise ValueError(f"the gold answer must be bare, without tags, got {solution!r}")
    return _SCORERS[problem_type](answer, solution, options)


def _set_f1(found: set[str], gold: set[str]) -> float:
    return 2 * len(found & gold) / (len(found) + len(gold))


def _read_gold_number(solution: str) -> Decimal:
    gold = read_number(solution)
    if gold is None:
        raise ValueError(f"gold answer {solution!r} is not a number")
    return gold


def _score_choice(answer: str, solution: str, options: Sequence[str] | None) -> float:
    texts = option_texts(options)
    gold = read_choice(solution, texts)
    if gold is None:
        raise ValueError(f"gold answer {solution!r} is not one of the options {options}")
    return float(read_choice(answer, texts) == gold)


def _score_choices(answer: str, solution: str, options: Sequence[str] | None) -> float:
    texts = option_texts(options)
    gold = read_choices(solution, texts)
    if not gold:
        raise ValueError(f"gold answer {solution!r} is not a list of the options {options}")
    return _set_f1(read_choices(answer, texts), gold)


def _score_yes_no(answer: str, solution: str, options: Sequence[str] | None) -> float:
    gold = read_yes_no(solution)
    if gold is None:
        raise ValueError(f"gold answer {solution!r} is neither yes nor no")
    return float(read_yes_no(answer) == gold)


def _score_label(answer: str, solution: str, options: Sequence[str] | None) -> float:
    gold = read_label(solution)
    if not gold:
        raise ValueError(f"gold answer {solution!r} holds no word")
    return float(read_label(answer) == gold)


def _score_number(answer: str, solution: str, options: Sequence[str] | None) -> float:
    return float(read_number(answer) == _read_gold_number(solution))


def _score_regression(answer: str, solution: str, options: Sequence[str] | None) -> float:
    gold, number = _read_gold_number(solution), read_number(answer)
    if number is None:
        return 0.0
    if gold == 0:  # relative error has no value here: right or wrong
        return float(number == 0)
    return max(0.0, 1.0 - float(abs(number - gold) / abs(gold)))


def _score_words(answer: str, solution: str, options: Sequence[str] | None) -> float:
    gold = read_labels(solution)
    if not gold:
        raise ValueError(f"gold answer {solution!r} holds no word")
    return _set_f1(read_labels(answer), gold)


def _score_text(answer: str, solution: str, options: Sequence[str] | None) -> float:
    return float(normalize(answer) == normalize(solution))


_SCORERS: dict[str, Callable[[str, str, Sequence[str] | None], float]] = {
    "multiple choice": _score_choice,
    "emer_ov_mc": _score_choices,
    "yes_no": _score_yes_no,
    "judge": _score_yes_no,
    "label": _score_label,
    "numerical": _score_number,
    "regression": _score_regression,
    "emer_ov": _score_words,
    "OCR": _score_text,
    "free-form": _score_text,
}
