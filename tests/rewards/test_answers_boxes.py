# SPDX-License-Identifier: Apache-2.0
"""Boxes and spans of time: IoU against sampled areas, and the geometry's symmetries."""

import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from omni_rewards import answer_score
from omni_rewards.boxes import area, box_giou, box_iou
from omni_rewards.time_spans import read_spans, temporal_iou

SIDE = 8
fewer = settings(max_examples=40)
INTERVALS = st.builds(lambda start, length: (start, start + length), st.integers(0, SIDE), st.integers(1, SIDE))
BOXES = st.builds(lambda x, y: (x[0], y[0], x[1], y[1]), INTERVALS, INTERVALS)
SPANS = st.lists(INTERVALS, min_size=1, max_size=4)


def cells(box) -> set[tuple[int, int]]:
    """The unit squares of a box: an oracle that knows no formula."""
    return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}


@fewer
@given(BOXES, BOXES)
def test_iou_is_the_share_of_common_cells(first, second) -> None:
    one, two = cells(first), cells(second)
    expected = len(one & two) / len(one | two)
    assert box_iou(first, second) == pytest.approx(expected) == box_iou(second, first)
    assert answer_score(str(list(first)), str(list(second)), "box") == pytest.approx(expected)
    around = (min(first[0], second[0]), min(first[1], second[1]), max(first[2], second[2]), max(first[3], second[3]))
    empty = 1 - len(one | two) / area(around)
    assert box_giou(first, second) == pytest.approx(expected - empty)
    assert -1.0 < box_giou(first, second) <= box_iou(first, second)


@fewer
@given(BOXES, BOXES, st.integers(1, 50), st.integers(-50, 50))
def test_moving_and_scaling_both_boxes_changes_nothing(first, second, factor: int, shift: int) -> None:
    moved = [tuple(factor * value + shift for value in box) for box in (first, second)]
    assert box_giou(*moved) == pytest.approx(box_giou(first, second))
    assert box_iou(*moved) == pytest.approx(box_iou(first, second))


@fewer
@given(BOXES, st.integers(1, 5), st.integers(1, 5))
def test_generalised_iou_tells_a_near_miss_from_a_far_one(box, near: int, farther: int) -> None:
    """Mutant: plain IoU, which is 0 for both."""
    width = box[2] - box[0]
    scores = []
    for gap in (near, near + farther):
        missed = (box[0] + width + gap, box[1], box[2] + width + gap, box[3])
        scores.append(answer_score(str(list(missed)), str(list(box)), "box_giou"))
        assert answer_score(str(list(missed)), str(list(box)), "box") == 0.0
    assert 0.5 > scores[0] > scores[1] > 0.0


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2, 3, 4]",
        "1, 2, 3, 4",
        "1 2 3 4",
        "(1, 2), (3, 4)",
        "<|box_start|>(1,2),(3,4)<|box_end|>",
        "[[1.0, 2, 3, 4]]",
        '{"bbox_2d": [1, 2, 3, 4]}',
        '```json\n[{"bbox": [1, 2, 3, 4]}]\n```',
    ],
)
def test_spellings_of_one_box(text: str) -> None:
    assert answer_score(text, "[1, 2, 3, 4]", "box") == 1.0


@pytest.mark.parametrize(
    "text",
    [
        *("", "1 2 3", "1 2 3 4 5", "[1, 2, 3, 4] or [5, 6, 7, 8]", "[[1,2,3,4],[5,6,7,8]]", "[3, 4, 1, 2]"),
        *(
            "[NaN, 2, 3, 4]",
            "[1, 2, Infinity, 4]",
            "[1, 2, 1e400, 4]",
            "[true, 2, 3, 4]",
            '["1", 2, 3, 4]',
            "[1, 2, 1, 4]",
        ),
        *(
            '{"bbox": [1, 2, 3, 4], "box": [5, 6, 7, 8]}',
            '[{"bbox": [1, 2, 3, 4]}, {"bbox": [5, 6, 7, 8]}]',
            "null",
            "{}",
            "[" * 9000,
        ),
    ],
)
def test_what_is_no_single_box_earns_nothing(text: str) -> None:
    assert answer_score(text, "[1, 2, 3, 4]", "box") == 0.0


def seconds(spans) -> set[int]:
    return {second for start, end in spans for second in range(int(start), int(end))}


@fewer
@given(SPANS, SPANS)
def test_temporal_iou_is_the_share_of_common_seconds(first, second) -> None:
    one, two = seconds(first), seconds(second)
    assert temporal_iou(first, second) == pytest.approx(len(one & two) / len(one | two))
    assert temporal_iou(first, second) == temporal_iou(second, first)


@fewer
@given(SPANS, st.integers(0, 50))
def test_spans_are_read_in_every_spelling(spans, minutes: int) -> None:
    spans = [(60 * minutes + start, 60 * minutes + end) for start, end in spans]
    clock = [(f"{int(a) // 60:02}:{int(a) % 60:02}", f"{int(b) // 60}:{int(b) % 60}.0") for a, b in spans]
    for text in (
        ", ".join(f"{a} to {b}" for a, b in spans),
        "; ".join(f"from {a} s to {b} seconds" for a, b in spans),
        json.dumps(spans),
        ", ".join(f"{a} - {b}" for a, b in clock),
    ):
        assert read_spans(text) == spans, text


@fewer
@given(SPANS, SPANS)
def test_a_longer_span_than_the_gold_one_costs(gold, more) -> None:
    assume(not seconds(more) <= seconds(gold))
    written = [", ".join(f"{a} to {b}" for a, b in spans) for spans in (gold, [*gold, *more])]
    assert answer_score(written[1], written[0], "time_span") < 1.0


@pytest.mark.parametrize(
    "text", ["3", "3 to", "3 to 3", "7 to 3", "3 to 7 to 9", "-1 to 3", "nan to 3", "3 to inf", ""]
)
def test_what_is_no_span_earns_nothing(text: str) -> None:
    assert answer_score(text, "3 to 7", "time_span") == 0.0
