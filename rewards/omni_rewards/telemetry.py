# SPDX-License-Identifier: Apache-2.0
"""
What rewards report of a batch beside their scores: signs that a policy games them, as metrics of the run.

- `format/blank_think_rate`: share of the completions whose reasoning holds nothing to be seen
- `answer/option_spam_rate`: share of the answers to closed questions that name several options where one is asked, or
  all of them
- `answer/accuracy_without_reasoning`: mean score of the completions without a readable section of reasoning
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ._lookalikes import is_blank


def log_mean(name: str, values: Sequence[float], columns: Mapping[str, Any]) -> None:
    """Logs the mean of `values`, if there are any and TRL's keyword arguments hold `log_metric`."""
    if (log_metric := columns.get("log_metric")) is not None and values:
        log_metric(name, sum(values) / len(values))


def has_blank_section(text: str, section: str) -> bool:
    r"""
    Whether the first `<section>` of `text` is closed and blank.

    >>> has_blank_section("<think> \n\u200b</think><answer>B</answer>", "think")
    True
    """
    _, opened, rest = text.partition(f"<{section}>")
    inner, closed, _ = rest.partition(f"</{section}>")
    return bool(opened and closed) and is_blank(inner)
