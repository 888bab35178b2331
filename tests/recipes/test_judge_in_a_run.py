# SPDX-License-Identifier: Apache-2.0
"""A judge that sees and hears in a real run: the clips of each row reach it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from judge_server import JudgeServer, always, says
from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder
from omni_grpo.model.loading import load_model, load_processor
from omni_rewards import ContextReward
from small_runs import SMALL_RUN, length_reward

SEEN: list = []


class Contexts(ContextReward):
    """As if the tiny model wrote contexts."""

    def __call__(self, completions, **columns):
        SEEN.extend(columns["prompts"])
        return super().__call__([f"<context>Scene {i % 3}.</context>" for i in range(len(completions))], **columns)


def test_the_clips_of_each_row_reach_the_judge(tiny, settings, tmp_path, mixed) -> None:
    """No row has a reference. Mutant: a run whose rewards see prompts without media."""
    SEEN.clear()
    with JudgeServer(always(says('{"score": 4}'))) as server:
        judge = {"endpoint": server.endpoint, "model": "m", "send_media": True, "max_media": 3, "retries": 0}
        fields = {**SMALL_RUN, "output_dir": str(tmp_path), "per_device_train_batch_size": 4, "num_generations": 2}
        args = OmniGRPOConfig(**fields, max_completion_length=4, max_steps=2)
        encoder = PromptEncoder(load_processor(tiny), settings)
        OmniGRPOTrainer(load_model(tiny), [length_reward, Contexts(judge)], args, mixed, encoder=encoder).train()
    sent = {digest for request in server.requests for _, digest in request.media}
    parts = [part for prompt in SEEN for turn in prompt for part in turn["content"]]
    paths = {part["path"]: part["type"] for part in parts if part["path"]}
    pictures = {hashlib.sha256(Path(path).read_bytes()).hexdigest() for path, kind in paths.items() if kind == "image"}
    assert len(sent) > 1 and sent >= pictures and "video" in paths.values()
    assert all(1 <= len(request.media) <= 3 for request in server.requests)
