# SPDX-License-Identifier: Apache-2.0
"""The evaluator: a perfect file scores one, a missing answer is a miss, a cut run ends in the same file."""

from __future__ import annotations

import json

import pytest
import torch

from omni_grpo.data.encoding.encoder import PromptEncoder
from omni_grpo.data.encoding.prompt import encode_prompt
from omni_grpo.data.rows.loading import load_examples
from omni_grpo.evaluation.evaluate import evaluate, predict
from omni_grpo.evaluation.prediction_rows import prediction_row
from omni_grpo.evaluation.scoring import compare, summarise, table
from omni_grpo.evaluation.variants import VARIANTS, vary
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.model.towers import attach_media_embedder
from omni_grpo.rollout.answers import Completion, generate
from omni_rewards import ANSWER_REASONS, CONTEXT_THINK_ANSWER, AnswerReward


@pytest.fixture(scope="module")
def examples(mixed_file):
    return load_examples(mixed_file)


@pytest.fixture
def parts(tiny, settings):
    model = load_model(tiny).eval()
    return model, attach_media_embedder(model), PromptEncoder(load_processor(tiny), settings)


def answered(examples, text, bare=False):
    texts = [text(e) if callable(text) else text for e in examples]
    return [
        prediction_row(e, Completion(t, 5, 0.1, False), CONTEXT_THINK_ANSWER, "full", bare, AnswerReward())
        for e, t in zip(examples, texts, strict=True)
    ]


def test_gold_scores_one_and_wrong_scores_zero(examples):
    perfect = answered(examples, lambda e: f"<context>a</context><think>b</think><answer>{e.solution}</answer>")
    metrics = summarise(perfect)
    assert metrics["groups"]["all"]["accuracy"] == 1.0 == metrics["format_rate"]
    assert metrics["groups"]["all"]["chance"] == 0.5 == metrics["groups"]["all"]["majority"]
    wrong = answered(examples, "<context>a</context><think>b</think><answer>maybe</answer>")
    assert summarise(wrong)["groups"]["all"]["accuracy"] == 0.0
    assert compare(perfect, wrong, ("a", "b"), "all")["difference"] == 1.0


def test_a_missing_answer_is_a_miss_unless_the_model_never_learned_sections(examples):
    bare = answered(examples, lambda e: e.solution)
    assert summarise(bare)["groups"]["all"]["accuracy"] == 0.0
    assert summarise(answered(examples, lambda e: e.solution, bare=True))["groups"]["all"]["accuracy"] == 1.0


def test_a_row_says_how_its_answer_was_read(examples):
    """Mutant: reasons of the format in place of the answer's."""
    body = "<context>a</context><think>b</think>"
    texts = ["<answer>Yes.</answer>", "<answer>no</answer>", "<answer>perhaps</answer>", "yes", ""]
    texts = iter([body + text for text in texts])
    rows = answered(examples[:1] * 5, lambda example: next(texts))
    assert [row["answer_reason"] for row in rows] == ["right", "wrong", "unreadable", "no_answer", "no_answer"]
    assert [row["answer_parsed"] for row in rows] == ["yes", "no", None, None, None]
    assert {row["answer_reason"] for row in rows} <= ANSWER_REASONS.keys()


def test_batch_size_does_not_change_answers(parts, examples, tmp_path):
    """Left padding, media of other rows and the order of collation leave greedy answers as they are."""
    texts = []
    for size in (1, 8):
        rows = predict(
            *parts, examples, "short", "full", tmp_path / f"{size}.jsonl", batch_size=size, max_new_tokens=6
        )
        texts.append([row["completion"] for row in rows])
    assert texts[0] == texts[1]


def test_variants_take_out_or_blank_what_they_say(tiny, settings, mixed):
    processor = load_processor(tiny)
    prompt = next(row["prompt"] for row in mixed if len(row["prompt"][-1]["content"]) == 3)
    full = encode_prompt(processor, prompt, settings)
    for variant in ("full", "no_audio", "no_video", "neither", "silent", "blank"):
        removed, blanked = VARIANTS[variant].removed, VARIANTS[variant].blanked
        row = encode_prompt(processor, vary(prompt, variant), settings, blank=blanked)
        for modality in ("audio", "video"):
            assert row.counts[modality] == (0 if modality in removed else full.counts[modality])
        for modality, key in (("audio", "input_features"), ("video", "pixel_values_videos")):
            if modality not in removed:
                assert torch.equal(row.media[key], full.media[key]) == (modality not in blanked)


def test_generation_stops_at_the_end_token(parts, examples, tiny):
    model, embedder, encoder = parts
    prompt = encoder(
        [{"role": "user", "content": [{"type": "text", "path": None, "text": "Hi", "audio_in_video": False}]}]
    )
    original, end = model.lm_head.forward, torch.tensor([encoder.processor.tokenizer.eos_token_id])
    model.lm_head.forward = lambda hidden: original(hidden).index_fill(-1, end, 99.0)
    (completion,) = generate(model, encoder.processor, embedder, [prompt], 6)
    assert (completion.text, completion.num_tokens, completion.truncated) == ("", 1, False)


def test_evaluate_writes_what_the_report_reads(parts, examples, tmp_path):
    metrics, _ = evaluate(
        *parts, examples, "short", tmp_path / "m", ("full", "silent"), batch_size=8, max_new_tokens=4
    )
    assert json.loads((tmp_path / "m" / "metrics.json").read_text())["n"] == len(examples)
    assert set(metrics["variants"]) == {"silent"}
    assert len((tmp_path / "m" / "predictions.silent.jsonl").read_text().splitlines()) == len(examples)
    text = table({"stages": {"m": metrics}, "comparisons": []})
    assert "silent" in text
    assert "valid format" in text


def test_runs_over_different_rows_are_not_compared(examples):
    rows = answered(examples, "x")
    with pytest.raises(ValueError, match="different rows"):
        compare(rows, rows[::-1], ("a", "b"), "all")
