# SPDX-License-Identifier: Apache-2.0
"""Graded format reward: a slope towards the strict format for a model that does not know it yet."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ._completions import Completion, completion_text
from ._lookalikes import is_blank
from .formats import SectionFormatReward
from .sections import SectionSchema, find_tags


@dataclass(frozen=True)
class GradedFormatReward(SectionFormatReward):
    """
    `graded_format_reward` for any schema, with the limits of `SectionFormatReward`.

    Formula, range and failures are that function's; a text whose only fault is a section outside the limits earns
    `0.5`.

    >>> GradedFormatReward(schema=SectionSchema(("plan", "answer")))(["<plan>Look.</plan><answer>B</answer> B"])
    [0.4583333333333333]
    """

    @property
    def __name__(self) -> str:
        """The key of TRL's metrics, one for each schema: `graded_format_reward` for the default one."""
        return f"graded_{super().__name__.removeprefix('section_')}"

    def __call__(self, completions: Sequence[Completion], **kwargs: Any) -> list[float]:
        """A score for each of the completions, in TRL's calling form."""
        return [self._score(completion_text(completion)) for completion in completions]

    def _score(self, text: str) -> float:
        if self.reason(text) == "ok":
            return 1.0
        return 0.5 * _passed_checks(text, self.schema) / (6 * len(self.schema.names))


def _passed_checks(text: str, schema: SectionSchema) -> int:
    """How many of the six checks of `graded_format_reward` hold, over all sections of the schema."""
    tags = find_tags(text, schema)
    counts = Counter(tag.name for tag in tags)
    passed = 0
    for name in schema.names:
        for closes in (False, True):
            alike = [tag for tag in tags if tag.name == name and tag.closes == closes]
            passed += len(alike) == 1 and alike[0].is_exact
    stops = [0, *(stop for tag in tags for stop in (tag.start, tag.end)), len(text)]
    is_clear = [is_blank(text[start:end]) for start, end in zip(stops[::2], stops[1::2], strict=True)]
    found: list[int] = []  # places in the schema of the complete sections, as they appear
    for index, (opening, closing) in enumerate(pairwise(tags)):
        is_pair = opening.is_exact and closing.is_exact and opening.name == closing.name
        is_single = counts[opening.name] == 2
        if is_pair and is_single and closing.closes and not opening.closes and not is_clear[index + 1]:
            found.append(schema.names.index(opening.name))
            passed += 1 + is_clear[index] + is_clear[index + 2]
    return passed + _longest_rise(found)


def _longest_rise(places: Sequence[int]) -> int:
    """Length of the longest increasing subsequence."""
    ends: list[int] = []  # smallest last element of a rise of each length
    for place in places:
        at = bisect_left(ends, place)
        ends[at : at + 1] = [place]
    return len(ends)


def graded_format_reward(completions: Sequence[Completion], **kwargs: Any) -> list[float]:
    r"""
    How much of `<context>…</context><think>…</think><answer>…</answer>` each completion has; higher is better.

    $$R = 1$$ for what `section_format_reward` accepts, else $$R = \tfrac{1}{2} \cdot \frac{\text{checks passed}}{6n}$$
    with $$n = 3$$ sections; $$R \in [0, 1/2] \cup \{1\}$$

    The six checks of each section: its opening tag is there exactly once; so is its closing tag; it is complete, which
    is the one opened directly before the other with text between; it is in order, which counts the longest run of
    complete sections that stand as the schema has them; and, for a complete one, nothing stands between it and the
    tag, or end of the text, before it; nor after it. So each tag that is learned raises the score, text outside never
    does, and only the strict format earns more than one half. Plain prose earns `0.0`. Never `None`, raises nothing.

    For the first steps of a model that does not know the format yet; from a cold-started one `section_format_reward`
    is enough.

    Args:
        completions (`list[str]` or `list[list[dict[str, Any]]]`):
            Completions, plain or conversational.
        **kwargs:
            TRL's other arguments and columns; not used.

    Source: ours. The tag-counting rewards in use (e.g. `tag_count_reward` of https://github.com/huggingface/open-r1)
    also give their maximum to text outside the tags, to empty sections and to sections in any order.

    >>> graded_format_reward([
    ...     "<context>He frowns.</context><think>A frown is no praise.</think><answer>B</answer>",
    ...     "<context>He frowns.</context><think>A frown is no praise.</think> B",
    ...     "B",
    ... ])
    [1.0, 0.3055555555555556, 0.0]
    """
    return _GRADED_FORMAT(completions, **kwargs)


_GRADED_FORMAT = GradedFormatReward()
