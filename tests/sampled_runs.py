# SPDX-License-Identifier: Apache-2.0
"""Sampled rows as the product writes them: `sample_omni.py` itself; only the model's words are given where a test needs some."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import sample_omni
from omni_grpo.rollout.answers import Completion
from omni_grpo.sampling import sampling

Says = Callable[[str, int], tuple[str, int, bool]]  # (row's id, its draw) -> text, tokens, whether it was cut
FIELDS = {
    "num_completions": 4,
    "reward_funcs": ["omni_rewards.answer_reward"],
    "prompt_style": "short",
    "num_frames": 2,
    "min_pixels": 56 * 56,
    "max_pixels": 56 * 56,
    "batch_size": 3,
    "max_new_tokens": 5,
}


def config(folder: Path, data: Path, model: str, **fields: Any) -> list[str]:
    """The command line of a sampling of `data` by `model` into `folder`."""
    given = {**FIELDS, "train_file": str(data), "model_name_or_path": model, "output_dir": str(folder), **fields}
    file = folder.with_suffix(".yaml")
    file.write_text(json.dumps(given))
    return ["--config", str(file)]


def write_samples(
    folder: Path, data: Path, model: str, says: Says | None = None, **fields: Any
) -> list[dict[str, Any]]:
    """`<folder>/samples.jsonl`, in words of the model's own, or in those that `says` gives it; its rows."""
    draws: Counter[str] = Counter()

    def spoken(model: Any, processor: Any, embedder: Any, prompts: list[Any], *args: Any, **kwargs: Any):
        found = []
        for prompt in prompts:
            text, tokens, cut = says(prompt.name, draws[prompt.name]) if says else ("", 0, False)
            draws[prompt.name] += 1
            found.append(Completion(text, tokens, 0.1, cut, processor.tokenizer(text)["input_ids"]))
        return found

    with mock.patch.object(sampling, "generate", spoken if says else sampling.generate):
        sample_omni.main(config(folder, data, model, **fields))
    return read(folder)


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


def rates(folder: Path) -> dict[str, list[float | None]]:
    """By row, what its completions earned of the first reward."""
    return {row["id"]: [next(iter(c["rewards"].values())) for c in row["completions"]] for row in read(folder)}


def numbered(name: str) -> int:
    return int(re.sub(r"\D", "", name))
