# SPDX-License-Identifier: Apache-2.0
"""
Scores of answers that are times: temporal IoU of one or more spans.

A span is a start and a later end, in seconds from the start of the clip or as `mm:ss` or `hh:mm:ss`: `3 to 7.5`,
`[3, 7.5]`, `from 3 s to 7.5 s`, `00:03 - 00:07.5`; several are set apart by commas or semicolons.
"""

import re

from ._scored import UNREADABLE, Scored
from ._written import normalize

Span = tuple[float, float]
_MAX_LENGTH = 10_000  # characters
_TIME = r"(?:(?:([0-9]{1,3}):)?([0-9]{1,3}):)?([0-9]{1,9}(?:\.[0-9]{1,9})?)(?: ?(?:seconds|second|secs|sec|s)\b)?"
_SPAN = re.compile(rf" ?(?:(?:from|between) )?{_TIME} ?(?:,|-|–|—|~|to|until|and) ?{_TIME} ?")
_BRACKETS = str.maketrans("[](){}", "      ")


def read_spans(text: str) -> list[Span] | None:
    """
    The spans that `text` lists, in seconds; `None` where it holds anything else, or a span that does not end later.

    >>> read_spans("from 3 s to 7.5 s"), read_spans("[[3, 4], [01:10, 01:12]]"), read_spans("7 to 3")
    ([(3.0, 7.5)], [(3.0, 4.0), (70.0, 72.0)], None)
    """
    text = normalize(text.translate(_BRACKETS)).rstrip(".") if len(text) <= _MAX_LENGTH else ""
    text = re.sub(r" ?([,;]) ?", r"\1", text)
    spans: list[Span] = []
    position = 0
    while match := _SPAN.match(text, position):
        times = [float(part or 0) for part in match.groups()]
        start, end = (3600 * times[k] + 60 * times[k + 1] + times[k + 2] for k in (0, 3))
        if start >= end:
            return None
        spans.append((start, end))
        position = match.end()
        if position == len(text):
            return spans
        if text[position] not in ",;":
            return None
        position += 1
    return None


def _joined(spans: list[Span]) -> list[Span]:
    """The same times as spans that do not touch, in order."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def _seconds(spans: list[Span]) -> float:
    return sum(end - start for start, end in spans)


def temporal_iou(first: list[Span], second: list[Span]) -> float:
    """
    Seconds in both of two lists of spans over seconds in either, in `[0, 1]`.

    >>> temporal_iou([(3, 5)], [(3, 7)]), temporal_iou([(0, 2), (1, 4)], [(0, 4)])
    (0.5, 1.0)
    """
    first, second = _joined(first), _joined(second)
    either = _seconds(_joined([*first, *second]))
    return min(1.0, max(0.0, (_seconds(first) + _seconds(second) - either) / either))


def score_spans(answer: str, solution: str) -> Scored:
    """Temporal IoU of the spans of `answer` with the gold ones."""
    gold, found = read_spans(solution), read_spans(answer)
    if gold is None:
        raise ValueError(f"gold answer {solution!r} is no span of time such as `3 to 7.5`, each end after its start")
    if found is None:
        return UNREADABLE
    return Scored(temporal_iou(found, gold), ", ".join(f"{start:g} to {end:g}" for start, end in _joined(found)))
