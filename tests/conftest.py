# SPDX-License-Identifier: Apache-2.0
"""Everything is built here: real files, a real thinker of 0.1 M parameters, no network."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import hypothesis
import numpy as np
import pytest
from hypothesis.internal.conjecture import providers

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_ASSETS_CACHE"] = tempfile.mkdtemp(prefix="omni-grpo-assets-")  # embedded pictures, as files

# A busy machine is no failure, and the same code passes or fails each time: `make test-fuzz` draws new examples.
hypothesis.settings.register_profile("fuzz", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("same", hypothesis.settings.get_profile("fuzz"), derandomize=True)
hypothesis.settings.load_profile("same")


def pytest_configure(config: pytest.Config) -> None:
    """Examples are also made of the constants of our modules, so they would differ with what a worker has loaded."""
    if config.getoption("--hypothesis-profile") in (None, "same"):
        patch = mock.patch.object(providers, "_get_local_constants", providers.Constants)
        patch.start()
        config.add_cleanup(patch.stop)


REPOSITORY = Path(__file__).resolve().parent.parent

TEXTS = [
    "<context>The face looks happy. The voice sounds angry.</context>"
    "<think>They do not agree.</think><answer>no</answer>",
    "Does the voice agree with the face? Answer yes or no. Look, listen, think.",
]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> str:
    """Directory of a tiny thinker with its processor."""
    import torch

    from omni_demo.model import TinyOmniConfig, save_tiny_omni

    torch.set_num_threads(1)
    config = TinyOmniConfig(width=32, text_layers=2, vision_layers=1, audio_layers=1, image_size_px=56, vocab_size=400)
    return str(save_tiny_omni(tmp_path_factory.mktemp("models") / "tiny", TEXTS, config))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Callable[[str], str]:
    """Directory of a family's tiny model with its processor, built once."""
    from tiny_families import save_tiny

    made: dict[str, str] = {}

    def of(name: str) -> str:
        if name not in made:
            made[name] = save_tiny(name, tmp_path_factory.mktemp("families") / name)
        return made[name]

    return of


@pytest.fixture(scope="session")
def settings():
    """Two frames of 56 by 56: as small as honest media get."""
    from omni_grpo.data.media.settings import MediaSettings

    return MediaSettings(num_frames=2, min_pixels=56 * 56, max_pixels=56 * 56, max_audio_seconds=3.0)


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    """Folder with four talking clips, four sounds and four images, all different."""
    from media_files import write_image, write_sound, write_video

    folder = tmp_path_factory.mktemp("clips")
    for k in range(4):
        rng = np.random.default_rng(k)
        frames = rng.integers(0, 255, (8, 64, 64, 3), dtype=np.uint8)
        tone = 0.3 * np.sin(2 * np.pi * 220 * (k + 1) * np.arange(16_000) / 16_000).astype(np.float32)
        write_video(folder / f"clip{k}.mp4", frames, sound=tone, sound_rate=16_000)
        write_sound(folder / f"sound{k}.wav", tone, rate=16_000)
        write_image(folder / f"image{k}.png", frames[0])
    return folder


def mixed_rows(folder: Path, n: int = 8) -> list[dict]:
    """Rows that cycle through video + audio, text alone, image + audio, video alone, audio alone, image alone."""
    question = {"problem": "Does the voice agree with the face?", "problem_type": "yes_no"}
    target = TEXTS[0]
    mixes = [
        lambda k: [{"type": "video", "path": f"clip{k}.mp4", "use_audio": True}],
        lambda k: [],
        lambda k: [{"type": "image", "path": f"image{k}.png"}, {"type": "audio", "path": f"sound{k}.wav"}],
        lambda k: [{"type": "video", "path": f"clip{k}.mp4"}],
        lambda k: [{"type": "audio", "path": f"sound{k}.wav"}],
        lambda k: [{"type": "image", "path": f"image{k}.png"}],
    ]
    return [
        {
            "id": f"row{i}",
            **question,
            "solution": "no" if i % 2 else "yes",
            "target": target,
            "media": mixes[i % len(mixes)](i % 4),
        }
        for i in range(n)
    ]


@pytest.fixture(scope="session")
def mixed_file(clips) -> Path:
    """The mixed rows as a JSONL file beside their media."""
    file = clips / "mixed.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in mixed_rows(clips)))
    return file


@pytest.fixture(scope="session")
def mixed(mixed_file):
    """The mixed rows as a data set with prompts."""
    from omni_grpo.data.dataset import to_dataset
    from omni_grpo.data.rows.loading import load_examples

    return to_dataset(load_examples(mixed_file), "short")
