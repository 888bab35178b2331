# SPDX-License-Identifier: Apache-2.0
"""Rows that show a model everything it may be shown."""

from __future__ import annotations

import gc

import pytest

from omni_grpo.data.dataset import to_dataset
from omni_grpo.data.rows.loading import check_rows

QUESTION = {"problem": "Does the voice agree with the face?", "problem_type": "yes_no", "solution": "no"}
CLIPS = [{"type": "video", "path": f"clip{k}.mp4", "use_audio": True} for k in range(4)]


@pytest.fixture(autouse=True)
def freed():
    """Engines of the tests before: each holds a cache of 256 MB."""
    gc.collect()


def dataset(folder, media_of, interleaved=False):
    """Rows that show these media, by name."""
    rows = [(name, {"id": name, **QUESTION, "media": media}) for name, media in media_of.items()]
    return to_dataset(check_rows(rows, folder), "short", interleaved)


@pytest.fixture(scope="session")
def rows(clips):
    """Text, image, video, sound, a clip with its sound beside it, and one of everything and two images."""
    image, sound = {"type": "image", "path": "image0.png"}, {"type": "audio", "path": "sound1.wav"}
    silent, other = {"type": "video", "path": "clip2.mp4"}, {"type": "image", "path": "image3.png"}
    several = [image, CLIPS[1], other, sound]
    shown = {
        "several": several,
        "text": [],
        "image": [image],
        "silent": [silent],
        "sound": [sound],
        "clip": [CLIPS[3]],
    }
    return dataset(clips, shown)


@pytest.fixture(scope="session")
def interleaved(clips):
    """Clips whose sound stands between their frames, two in a row and text alone among them."""
    shown = {"a": [CLIPS[0]], "text": [], "two": [CLIPS[1], CLIPS[2]], "d": [CLIPS[3]], "e": [CLIPS[0]], "f": []}
    return dataset(clips, shown, interleaved=True)


@pytest.fixture(scope="session")
def pictures(clips):
    """Images, a video and text, for a model that hears nothing."""
    image, silent = {"type": "image", "path": "image0.png"}, {"type": "video", "path": "clip2.mp4"}
    shown = {"image": [image], "text": [], "video": [silent], "both": [silent, image], "two": [image, image], "t": []}
    return dataset(clips, shown)


@pytest.fixture(scope="session")
def words(clips):
    """Text alone."""
    return dataset(clips, {name: [] for name in "abcdef"})
