# SPDX-License-Identifier: Apache-2.0
"""The planted shortcut: its rows, and the figures of its table."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from planted_shortcut import AGREEING_FACES, face_tells, planted
from shortcut_table import pooled, share

from omni_demo.config import load_config
from omni_demo.design import cells
from omni_demo.targets import PROBLEM_TYPES, QUESTIONS, SHARED, solution_of
from omni_grpo.data.rows.pairs import check_pairs
from omni_grpo.data.rows.schema import Example, MediaItem
from omni_grpo.evaluation.shortcut import index_of

DATA = Path(__file__).parents[2] / "recipes/configs/demo/experiments_data.yaml"


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    """The planted rows of the experiments' own design."""
    every = []
    for number, cell in enumerate(cells(load_config(DATA, {}), "rl")):
        meta = {"kind": cell.kind, "face": cell.face, "voice": cell.voice, "mix": cell.mix}
        solution = solution_of(cell.kind, *cell.pair)
        every.append({"id": str(number), "problem": QUESTIONS[cell.kind], "solution": solution, "meta": meta})
    return list(planted(every))


def test_the_face_tells_nine_answers_in_ten_and_answers_are_balanced(rows):
    assert np.mean([face_tells(row) for row in rows]) == pytest.approx(0.9, abs=0.005)
    assert Counter(row["meta"]["face"] for row in rows) == dict.fromkeys(SHARED, len(rows) // 4)
    assert Counter(row["solution"] for row in rows) == dict.fromkeys(("yes", "no"), len(rows) // 2)
    for face in SHARED:
        usual = "yes" if face in AGREEING_FACES else "no"
        of_face = [row["solution"] for row in rows if row["meta"]["face"] == face]
        assert of_face.count(usual) == pytest.approx(0.9 * len(of_face), abs=1)


def test_every_row_against_the_face_has_a_partner(rows):
    check_pairs(
        [
            Example(r["id"], r["problem"], PROBLEM_TYPES["agreement"], r["solution"], pair=r.get("pair"),
                    media=(MediaItem("video", r["id"]),))
            for r in rows
        ]
    )  # fmt: skip
    assert all("pair" in row for row in rows if not face_tells(row))
    faces: dict[str, set[str]] = {}
    for row in rows:
        if "pair" in row:
            faces.setdefault(row["pair"], set()).add(row["meta"]["face"])
    assert all(len(shown) == 1 for shown in faces.values())


def terms(seed: int, n: int = 120) -> np.ndarray:
    rng = np.random.default_rng(seed)
    right, kept = rng.integers(0, 2, n), rng.integers(0, 2, n)
    return np.array([right - right * kept, right], dtype=float)  # gain, room


class TestPooled:
    def test_one_seed_is_the_index(self):
        gain, room = terms(0)
        figure = pooled(index_of, [terms(0)])
        assert figure["value"] == pytest.approx(float(index_of(gain.sum(), room.sum())))
        assert figure["ci95"][0] < figure["value"] < figure["ci95"][1]

    def test_seeds_are_summed(self):
        both = terms(0) + terms(1)
        figure = pooled(index_of, [terms(0), terms(1)])
        assert figure["value"] == pytest.approx(float(index_of(*both.sum(axis=1))))
        assert figure["by_seed"] == [pooled(index_of, [terms(s)])["value"] for s in (0, 1)]

    def test_a_difference_turns_its_sign_with_its_sides(self):
        ours, other = [terms(0), terms(1)], [terms(2), terms(3)]
        one, two = pooled(index_of, ours, other), pooled(index_of, other, ours)
        assert one["value"] == pytest.approx(-two["value"])
        assert one["ci95"] == pytest.approx([-end for end in reversed(two["ci95"])])

    def test_against_itself_there_is_none(self):
        figure = pooled(index_of, [terms(0), terms(1)], [terms(0), terms(1)])
        assert figure["value"] == 0 and figure["ci95"] == [0, 0]

    def test_a_weighted_share_stays_within_its_range(self):
        """A weighted mean whose weights are not summed anew in each resample does not."""
        weights = np.where(np.arange(120) % 2, 1.8, 0.2)
        right = np.ones(120)
        figure = pooled(share, [np.array([weights * right, weights])])
        assert figure["value"] == pytest.approx(1) and figure["ci95"] == pytest.approx([1, 1])
