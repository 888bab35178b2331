# SPDX-License-Identifier: Apache-2.0
"""
Scores of answers that are a box: IoU and generalised IoU.

A box is `[x1, y1, x2, y2]` with x1 < x2 and y1 < y2, in the units of the gold answer; its area is (x2 - x1)(y2 - y1),
with no pixel added at the edges. Read are bare numbers, brackets, `(x1,y1),(x2,y2)`, and JSON: the four numbers, or an
object with `bbox_2d`, `bbox` or `box` and perhaps a `label`, also as the only entry of a list; in a code fence or not.
"""

import re

from ._scored import UNREADABLE, Scored
from ._written import plain_digits

Box = tuple[float, float, float, float]
_MAX_LENGTH = 500  # characters of four numbers and what may stand around them
_MARK = re.compile(r"<\|?/?(?:box|box_start|box_end)\|?>|\A\s*```(?:json)?\s|```\s*\Z")
_N = r"\s*([+-]?(?:[0-9]{1,9}\.?[0-9]*|\.[0-9]+))\s*"
_LABEL = r'"label"\s*:\s*"[^"]*"\s*'
_BOX = re.compile(
    rf'\s*\[?\s*(?:\{{\s*(?:{_LABEL},\s*)?"(?:bbox_2d|bbox|box)"\s*:\s*)?[\[(]?\s*'
    rf"\(?{_N}[,\s]{_N}\)?\s*[,\s]\s*\(?{_N}[,\s]{_N}\)?\s*[\])]?\s*(?:(?:,\s*{_LABEL})?\}}\s*)?\]?\s*"
)


def area(box: Box) -> float:
    """Area of a box; 0 where its sides are in the wrong order."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _overlap(first: Box, second: Box) -> float:
    corners = (max(first[0], second[0]), max(first[1], second[1]), min(first[2], second[2]), min(first[3], second[3]))
    return area(corners)


def box_iou(first: Box, second: Box) -> float:
    """
    Area of the overlap of two boxes over the area of their union, in `[0, 1]`.

    >>> box_iou((0, 0, 2, 2), (1, 0, 3, 2)).__round__(3)
    0.333
    """
    overlap = _overlap(first, second)
    return overlap / (area(first) + area(second) - overlap)


def box_giou(first: Box, second: Box) -> float:
    """
    Generalised IoU (Rezatofighi et al. 2019), in `(-1, 1]`: the IoU, less the share of the smallest box around both
    that neither covers. It tells near misses from far ones where the IoU is 0.

    >>> box_giou((0, 0, 1, 1), (1, 0, 2, 1)), box_giou((0, 0, 1, 1), (3, 0, 4, 1))
    (0.0, -0.5)
    """
    around = (min(first[0], second[0]), min(first[1], second[1]), max(first[2], second[2]), max(first[3], second[3]))
    overlap = _overlap(first, second)
    union = area(first) + area(second) - overlap
    return overlap / union - (area(around) - union) / area(around)


def read_box(text: str) -> Box | None:
    """
    The one box that `text` is; `None` for anything else, also for a box without area, NaN or infinity.

    >>> read_box('[{"bbox_2d": [1, 2, 3, 4], "label": "Dog"}]'), read_box("(1,2),(3,4)"), read_box("[4, 4, 1, 1]")
    ((1.0, 2.0, 3.0, 4.0), (1.0, 2.0, 3.0, 4.0), None)
    """
    match = _BOX.fullmatch(plain_digits(_MARK.sub(" ", text))) if len(text) <= _MAX_LENGTH else None
    if match is None:
        return None
    x1, y1, x2, y2 = map(float, match.groups())
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def score_box(answer: str, solution: str, generalised: bool = False) -> Scored:
    """IoU of the answer's one box with the gold box; `generalised`: half of one plus the generalised IoU."""
    gold, found = read_box(solution), read_box(answer)
    if gold is None:
        raise ValueError(f"gold answer {solution!r} is no box [x1, y1, x2, y2] with x1 < x2 and y1 < y2")
    if found is None:
        return UNREADABLE
    score = (1 + box_giou(found, gold)) / 2 if generalised else box_iou(found, gold)
    return Scored(min(1.0, max(0.0, score)), str(list(found)))
