# SPDX-License-Identifier: Apache-2.0
"""
Scores of answers that are boxes: IoU and generalised IoU of one box, average precision of several.

A box is `[x1, y1, x2, y2]` with x1 < x2 and y1 < y2, in the units of the gold answer; its area is (x2 - x1)(y2 - y1),
with no pixel added at the edges. Read are bare numbers, brackets, `(x1,y1),(x2,y2)`, and JSON: a list of boxes, or of
objects with `bbox_2d`, `bbox` or `box` and, if there are classes, `label`; in a code fence or not.
"""

import json
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

from ._scored import UNREADABLE, Options, Scored
from ._written import normalize, plain_digits

Box = tuple[float, float, float, float]
IOU_THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))  # as COCO averages them
_MAX_BOXES_PER_GOLD = 10
_MAX_BARE_LENGTH = 200  # characters of four numbers
_KEYS = ("bbox_2d", "bbox", "box")
_FENCE = re.compile(r"\A```(?:json)?\s(.*)```\Z", re.DOTALL)
_MARK = re.compile(r"<\|?/?(?:box|box_start|box_end)\|?>")
_N = r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))\s*"
_BARE = re.compile(rf"\s*[\[(]?\s*\(?{_N}[,\s]{_N}\)?\s*[,\s]\s*\(?{_N}[,\s]{_N}\)?\s*[\])]?\s*")


class LabelledBox(NamedTuple):
    """A box and its class, the empty text where there are no classes."""

    box: Box
    label: str


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


def read_boxes(text: str) -> list[LabelledBox] | None:
    """
    The boxes that `text` lists; `None` where it holds anything else, also a box without area, NaN or infinity.

    >>> read_boxes('[{"bbox_2d": [1, 2, 3, 4], "label": "Dog"}]')
    [LabelledBox(box=(1.0, 2.0, 3.0, 4.0), label='dog')]
    >>> read_boxes("(1,2),(3,4)"), read_boxes("[4, 4, 1, 1]")
    ([LabelledBox(box=(1.0, 2.0, 3.0, 4.0), label='')], None)
    """
    text = _MARK.sub(" ", text).strip()
    fenced = _FENCE.match(text)
    text = fenced[1].strip() if fenced else text
    bare = _BARE.fullmatch(plain_digits(text)) if len(text) <= _MAX_BARE_LENGTH else None
    if bare:
        return _read_items([list(map(float, bare.groups()))])
    try:
        items: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_single = isinstance(items, dict) or (isinstance(items, list) and items[:1] != [] and _is_number(items[0]))
    return _read_items([items] if is_single else items)


def _read_items(items: Any) -> list[LabelledBox] | None:
    if not isinstance(items, list):
        return None
    boxes = [_read_item(item) for item in cast("list[Any]", items)]
    return [box for box in boxes if box] if all(boxes) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _read_item(item: Any) -> LabelledBox | None:
    label: Any = ""
    corners: Any = item
    if isinstance(item, dict):
        fields = cast("dict[str, Any]", item)
        label = fields.get("label", "")
        named = [fields[key] for key in _KEYS if key in fields]
        corners = named[0] if len(named) == 1 else None
    if not (isinstance(corners, list) and isinstance(label, str)):
        return None
    numbers = cast("list[Any]", corners)
    # Coordinates beyond 1e9 are no picture's; their areas lose all digits.
    if len(numbers) != 4 or not all(_is_number(number) and abs(number) <= 1e9 for number in numbers):
        return None
    x1, y1, x2, y2 = map(float, numbers)
    return LabelledBox((x1, y1, x2, y2), normalize(label)) if x1 < x2 and y1 < y2 else None


@lru_cache(maxsize=1024)  # one gold answer comes once for each of its completions
def _read_gold(solution: str) -> list[LabelledBox]:
    gold = read_boxes(solution)
    if gold is None:
        raise ValueError(f"gold answer {solution!r} is no box [x1, y1, x2, y2] with x1 < x2 and y1 < y2, nor a list")
    return gold


def score_box(answer: str, solution: str, options: Options = None, generalised: bool = False) -> Scored:
    """IoU of the answer's one box with the gold box; `generalised`: half of one plus the generalised IoU."""
    gold, found = _read_gold(solution), read_boxes(answer)
    if len(gold) != 1:
        raise ValueError(f"gold answer {solution!r} holds {len(gold)} boxes; the type of several is `boxes`")
    if found is None or len(found) != 1:
        return Scored(0.0, None, is_spam=len(found or ()) > 1)
    boxes = found[0].box, gold[0].box
    score = (1 + box_giou(*boxes)) / 2 if generalised else box_iou(*boxes)
    return Scored(min(1.0, max(0.0, score)), _shown(found))


def average_precision(found: Sequence[LabelledBox], gold: Sequence[LabelledBox]) -> float:
    r"""
    Mean over IoU thresholds .50, .55, … .95 and over classes of the average precision of unranked boxes, in `[0, 1]`.

    Boxes without a confidence make one point of the precision-recall curve, and the area below it is
    $$\text{precision} \times \text{recall}$$: a box too many costs wherever it stands in the list. The classes are those
    of both lists, so an invented class costs as well. Each box is matched at most once, as well as can be.

    >>> dog, cat = LabelledBox((0, 0, 2, 2), "dog"), LabelledBox((5, 5, 9, 9), "cat")
    >>> average_precision([dog, cat], [dog, cat]), average_precision([dog, dog, cat], [dog, cat])
    (1.0, 0.75)
    """
    labels = sorted({item.label for item in [*found, *gold]})
    if not labels:
        return 1.0  # nothing to find, nothing found
    total = 0.0
    for label in labels:
        answered = [item.box for item in found if item.label == label]
        wanted = [item.box for item in gold if item.label == label]
        if answered and wanted:
            ious = [[box_iou(box, other) for other in answered] for box in wanted]  # (gold, answered)
            matches = [_num_matched(ious, threshold) for threshold in IOU_THRESHOLDS]
            total += math.fsum(m / len(answered) * (m / len(wanted)) for m in matches) / len(matches)
    return total / len(labels)


def _num_matched(ious: Sequence[Sequence[float]], threshold: float) -> int:
    """Size of the largest matching of gold and answered boxes whose IoU is at least `threshold`."""
    near = [[k for k, iou in enumerate(row) if iou >= threshold] for row in ious]
    owner: dict[int, int] = {}  # answered box -> its gold box

    def place(gold: int, tried: set[int]) -> bool:
        for k in near[gold]:
            if k not in tried:
                tried.add(k)
                if k not in owner or place(owner[k], tried):
                    owner[k] = gold
                    return True
        return False

    return sum(place(gold, set()) for gold in range(len(near)))


def score_boxes(answer: str, solution: str, options: Options = None) -> Scored:
    """Average precision of the boxes listed; 0 for more than ten boxes to a gold box, which could not earn 0.1."""
    gold, found = _read_gold(solution), read_boxes(answer)
    if found is None:
        return UNREADABLE
    if len(found) > _MAX_BOXES_PER_GOLD * max(1, len(gold)):
        return Scored(0.0, f"{len(found)} boxes", is_spam=True)
    return Scored(average_precision(found, gold), _shown(found))


def _shown(boxes: Sequence[LabelledBox]) -> str:
    return "; ".join(f"{item.label} {list(item.box)}".strip() for item in boxes)
