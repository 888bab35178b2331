# SPDX-License-Identifier: Apache-2.0
"""What rewards report of a batch beside their scores: signs that a policy games them, as metrics of the run."""

from collections.abc import Mapping, Sequence
from typing import Any

from ._lookalikes import is_blank


def log_blank_reasoning(completions: Sequence[str], section: str, columns: Mapping[str, Any]) -> None:
    """
    Logs `format/blank_{section}_rate`: the share of `completions` whose first `section` holds nothing to be seen.

    `columns` are TRL's keyword arguments; without `log_metric` among them nothing is done.
    """
    log_metric = columns.get("log_metric")
    if log_metric is not None and completions:
        num_blank = sum(has_blank_section(completion, section) for completion in completions)
        log_metric(f"format/blank_{section}_rate", num_blank / len(completions))


def has_blank_section(text: str, section: str) -> bool:
    r"""
    Whether the first `<section>` of `text` is closed and blank.

    >>> has_blank_section("<think> \n\u200b</think><answer>B</answer>", "think")
    True
    """
    _, opened, rest = text.partition(f"<{section}>")
    inner, closed, _ = rest.partition(f"</{section}>")
    return bool(opened and closed) and is_blank(inner)


def log_answers(
    scores: Sequence[float | None],
    has_reasoning: Sequence[bool],
    is_spam: Sequence[bool | None],
    columns: Mapping[str, Any],
) -> None:
    """
    Logs what a policy that games the answers would raise, where the batch has such rows.

    - `answer/option_spam_rate`: share of the answers to closed questions that name several options where one is
      asked, or all of them
    - `answer/accuracy_without_reasoning`: mean score of the completions without a readable section of reasoning

    Args:
        scores (`list[float | None]`): The rewards.
        has_reasoning (`list[bool]`): Whether each completion has a section of reasoning that can be read.
        is_spam (`list[bool | None]`): Whether each answer is spam; `None` for a row that is no closed question.
        columns (`Mapping`): TRL's keyword arguments; without `log_metric` among them nothing is done.
    """
    log_metric = columns.get("log_metric")
    if log_metric is None:
        return
    spam = [found for found in is_spam if found is not None]
    bare = [s for s, reasons in zip(scores, has_reasoning, strict=True) if s is not None and not reasons]
    for name, values in (("option_spam_rate", spam), ("accuracy_without_reasoning", bare)):
        if values:
            log_metric(f"answer/{name}", sum(values) / len(values))
