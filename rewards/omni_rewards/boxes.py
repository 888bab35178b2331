# SPDX-License-Identifier: Apache-2.0
"""
Scores of answers that are a box: IoU and generalised IoU.

A box is `[x1, y1, x2, y2]` with x1 < x2 and y1 < y2, in the units of the gold answer; its area is (x2 - x1)(y2 - y1),
with no pixel added at the edges. Read are bare numbers, brackets, `(x1,y1),(x2,y2)`, and JSON: the four numbers, or an
object with `bbox_2d`, `bbox` or `box`, also as the only entry of a list; in a code fence or not.
"""

import json
import re
from typing import Any, cast

from ._scored import UNREADABLE, Scored
from ._written import plain_digits

Box = tuple[float, float, float, float]
_MAX_BARE_LENGTH = 200  # characters of four numbers
_KEYS = ("bbox_2d", "bbox", "box")
_FENCE = re.compile(r"\A```(?:json)?\s(.*)```\Z", re.DOTALL)
_MARK = re.compile(r"<\|?/?(?:box|box_start|box_end)\|?>")
_N = r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))\s*"
_BARE = re.compile(rf"\s*[\[(]?\s*\(?{_N}[,\s]{_N}\)?\s*[,\s]\s*\(?{_N}[,\s]{_N}\)?\s*[\])]?\s*")


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
    text = _MARK.sub(" ", text).strip()
    text = fenced[1].strip() if (fenced := _FENCE.match(text)) else text
    if len(text) <= _MAX_BARE_LENGTH and (bare := _BARE.fullmatch(plain_digits(text))):
        return _as_box(list(map(float, bare.groups())))
    try:
        item: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    item = cast("list[Any]", item)[0] if isinstance(item, list) and len(cast("list[Any]", item)) == 1 else item
    named = [item[key] for key in _KEYS if key in item] if isinstance(item, dict) else [item]
    return _as_box(named[0]) if len(named) == 1 else None


def _as_box(corners: Any) -> Box | None:
    if not isinstance(corners, list) or len(cast("list[Any]", corners)) != 4:
        return None
    # Coordinates beyond 1e9 are no picture's; their areas lose all digits.
    if not all(type(x) in (int, float) and abs(x) <= 1e9 for x in cast("list[Any]", corners)):
        return None
    x1, y1, x2, y2 = map(float, cast("list[Any]", corners))
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
