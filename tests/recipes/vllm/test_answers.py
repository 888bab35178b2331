# SPDX-License-Identifier: Apache-2.0
"""Answers by vLLM are those of `generate`, row by row."""

from __future__ import annotations

import pytest
import torch

from omni_grpo import PromptEncoder
from omni_grpo.data.media.settings import MediaSettings
from omni_grpo.data.rows.prompts import as_parts
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.model.towers import attach_media_embedder
from omni_grpo.rollout.answers import generate
from omni_grpo.rollout.vllm.answering import AnsweringEngine
from vllm_runs import BASE

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def parts(rows):
    model, processor = load_model(str(BASE), dtype="float32").eval(), load_processor(str(BASE))
    settings = MediaSettings(num_frames=2, min_pixels=56 * 56, max_pixels=56 * 56, max_audio_seconds=3.0)
    encoder, embedder = PromptEncoder(processor, settings), attach_media_embedder(model)
    prompts = [encoder(as_parts(row["prompt"]), row["id"]) for row in rows]
    return model, processor, embedder, prompts, AnsweringEngine(model, processor, embedder)


def test_greedy_answers_are_the_same(parts):
    model, processor, embedder, prompts, engine = parts
    ours, theirs = (generate(model, processor, embedder, prompts, 24, e) for e in (engine, None))
    assert [a.token_ids for a in ours] == [b.token_ids for b in theirs]
    assert [(a.text, a.truncated) for a in ours] == [(b.text, b.truncated) for b in theirs]
    assert len({a.text for a in ours}) > 1


def test_draws_follow_the_seed(parts):
    model, processor, embedder, prompts, engine = parts

    def drawn(seed):
        torch.manual_seed(seed)
        return [a.text for a in generate(model, processor, embedder, prompts, 24, engine, do_sample=True)]

    first = drawn(1)
    assert drawn(2) != first and drawn(1) == first


def test_other_decoding_is_refused(parts):
    model, processor, embedder, prompts, engine = parts
    with pytest.raises(NotImplementedError, match=r"backend: vllm decodes plainly; leave out .*repetition_penalty"):
        generate(model, processor, embedder, prompts, 8, engine, repetition_penalty=1.1)
