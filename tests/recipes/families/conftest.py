# SPDX-License-Identifier: Apache-2.0
"""Rows that show the tiny families what they take."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from accelerate import Accelerator

from family_oracle import Oracle, build_oracle
from omni_grpo.data.dataset import to_dataset
from omni_grpo.data.rows.schema import Example, MediaItem
from tiny_families import FAMILIES, TEXTS


@pytest.fixture(autouse=True)
def prepared():
    """Whoever reads a run's fields takes accelerate's state from the trainers that were built before."""
    Accelerator(cpu=True)


@pytest.fixture(scope="session")
def rows_of(clips) -> Callable[..., list[Example]]:
    """Rows of text alone, of each modality that a family has, of all, and of all in the other order with two images."""

    def of(name: str) -> list[Example]:
        kinds = FAMILIES[name].modalities
        suffix = {"image": "png", "video": "mp4", "audio": "wav"}
        stem = {"image": "image", "video": "clip", "audio": "sound"}
        mixes = [(), *((kind,) for kind in kinds), kinds, (*kinds[::-1], "image" if "image" in kinds else kinds[0])]
        return [
            Example(
                id=f"row{i}",
                problem="Does the voice agree with the face?" + " Look." * i,
                problem_type="yes_no",
                solution="no" if i % 2 else "yes",
                target=TEXTS[0],
                media=tuple(
                    MediaItem(
                        kind,
                        str(clips / f"{stem[kind]}{(i + k) % 4}.{suffix[kind]}"),
                        use_audio=kind == "video" and FAMILIES[name].interleaved,
                    )
                    for k, kind in enumerate(mix)
                ),
            )
            for i, mix in enumerate(mixes)
        ]

    return of


@pytest.fixture(scope="session")
def dataset_of(rows_of):
    """Those rows as a data set with prompts."""
    return lambda name: to_dataset(rows_of(name), "short", FAMILIES[name].interleaved)


@pytest.fixture(scope="session")
def make(checkpoint, dataset_of, tmp_path_factory) -> Callable[[str], Oracle]:
    """A family's oracle."""
    made: dict[str, Oracle] = {}

    def build(name: str) -> Oracle:
        if name not in made:
            made[name] = build_oracle(name, checkpoint(name), dataset_of(name), str(tmp_path_factory.mktemp("oracle")))
        return made[name]

    return build


@pytest.fixture(scope="session", params=FAMILIES)
def oracle(request, make) -> Oracle:
    return make(request.param)
