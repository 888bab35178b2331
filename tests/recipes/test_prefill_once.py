# SPDX-License-Identifier: Apache-2.0
"""Sampling from a prompt that was computed once gives the tokens of sampling from one computed for every completion."""

from __future__ import annotations

import json
import logging
from unittest import mock

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import Cache

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder, SectionConstraint
from omni_grpo.build import check_generation
from omni_grpo.data.encoding.inputs import MODALITIES, EncodedPrompt, collate_media
from omni_grpo.data.media.settings import MediaError
from omni_grpo.evaluation.arguments import EvalArguments
from omni_grpo.families import base_of
from omni_grpo.model.loading import language_model_targets, load_model, load_processor
from omni_grpo.model.towers import attach_media_embedder
from omni_grpo.rollout import sampler as module
from omni_grpo.rollout.answers import generate
from omni_grpo.rollout.constrained.token_bytes import token_bytes
from omni_grpo.rollout.prefill import ONCE, distinct_prompts
from omni_grpo.rollout.sampler import GenerateSampler
from omni_rewards import CONTEXT_THINK_ANSWER
from small_runs import length_reward

RAGGED = [0, 0, 1, 2, 2, 2, 3, 4, 0, 5, 6, 7, 1, 1]  # groups of one to four, some of them apart
DISTINCT = 7  # rows 1 and 7 ask the same without media
SCORES = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True}
MODES = [{"do_sample": False}, {"do_sample": True, "temperature": 1.3, "top_k": 0}]


@pytest.fixture(scope="module")
def encoder(tiny, settings):
    return PromptEncoder(load_processor(tiny), settings)


@pytest.fixture(scope="module")
def rows(encoder, mixed):
    encoded = [encoder(row["prompt"], row["id"]) for row in mixed]
    return [encoded[i] for i in RAGGED]


def padded(rows, pad=0):
    longest = max(len(r.input_ids) for r in rows)
    ids = torch.tensor([[pad] * (longest - len(r.input_ids)) + r.input_ids for r in rows])
    mask = torch.tensor([[0] * (longest - len(r.input_ids)) + [1] * len(r.input_ids) for r in rows])
    return {"input_ids": ids, "attention_mask": mask}


def plain(model, rows, seed=0, **kwargs):
    """What `generate` makes of every prompt as often as it stands there, with nothing of ours but the hook."""
    torch.manual_seed(seed)
    return model.generate(**padded(rows), **collate_media(rows), max_new_tokens=12, **kwargs)


def shared(model, embedder, rows, seed=0, **kwargs):
    """What the sampler makes of them, before it is cut at the end tokens."""
    torch.manual_seed(seed)
    return GenerateSampler(embedder, 0, ())._generate(model, rows, padded(rows), {"max_new_tokens": 12, **kwargs})


def widths(model) -> list[tuple[int, int]]:
    """Rows and positions of each pass through the language model from now on."""
    seen: list[tuple[int, int]] = []
    base_of(model).language_model.layers[0].register_forward_pre_hook(
        lambda _, args: seen.append(tuple(args[0].shape[:2]))
    )
    return seen


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("mode", MODES, ids=["greedy", "sampled"])
def test_the_same_tokens_are_sampled(tiny, rows, mode, lora):
    """Text, image, video, sound and mixed rows, left padding, ragged groups."""
    model = load_model(tiny).eval()
    if lora:
        targets = language_model_targets(None)
        model = get_peft_model(model, LoraConfig(r=4, target_modules=targets, init_lora_weights=False)).eval()
    embedder = attach_media_embedder(model)
    wanted = plain(model, rows, **mode)
    before, passes = embedder.placed.copy(), widths(model)
    assert torch.equal(shared(model, embedder, rows, **mode), wanted)
    width = padded(rows)["input_ids"].size(1)
    assert passes == [(DISTINCT, width - 1), *[(len(rows), 1)] * 12]
    assert embedder.placed - before == before, "every row's media were counted, as in the plain way"
    assert "generate" not in vars(model), "the model's own method is back"


@pytest.mark.parametrize("mutant", ["index", "positions", "rows"])
def test_anothers_prompt_or_place_shows_in_the_scores(tiny, rows, mutant):
    """Power of the next test."""
    model = load_model(tiny).eval()
    embedder = attach_media_embedder(model)
    original = module.prefill

    def wrong(model, inputs, media, index):
        prefilled = original(model, inputs, media, index[1:] + index[:1] if mutant == "index" else index)
        if mutant == "positions":
            prefilled["position_ids"] = prefilled["position_ids"] + 50
        if mutant == "rows":
            prefilled["past_key_values"].reorder_cache(torch.arange(len(index)).roll(1))
        return prefilled

    wanted = plain(model, rows, **SCORES).logits
    with mock.patch.object(module, "prefill", wrong):
        got = shared(model, embedder, rows, **SCORES).logits
    assert max((a - b).abs().max() for a, b in zip(wanted, got, strict=True)) > 2e-4, "ten roundings"


def test_scores_differ_by_rounding_alone(tiny, rows):
    """Closer than tokens can tell: the scores of all steps, and with them all cached keys, values and positions."""
    model = load_model(tiny).eval()
    embedder = attach_media_embedder(model)
    wanted, got = plain(model, rows, **SCORES), shared(model, embedder, rows, **SCORES)
    for a, b in zip(wanted.logits, got.logits, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5)


def test_nobody_computes_the_prompts_logits(tiny, rows):
    model = load_model(tiny).eval()
    embedder, seen = attach_media_embedder(model), []
    hook = model.lm_head.register_forward_hook(lambda _, __, out: seen.append(out.shape[1]))
    shared(model, embedder, rows, do_sample=False)
    assert set(seen) == {1}
    hook.remove()
    assert model(**padded(rows), **collate_media(rows)).logits.size(1) == padded(rows)["input_ids"].size(1)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_distinct_prompts_are_found_wherever_they_lie(order):
    prompts = [EncodedPrompt([1, k]) for k in range(4)] + [EncodedPrompt([1, 0], {"pixel_values": torch.zeros(1)})]
    rows = [prompts[i] for i in order]
    firsts, index = distinct_prompts(rows)
    assert [rows[firsts[i]] is row for i, row in zip(index, rows, strict=True)] == [True] * len(rows)
    assert len(firsts) == len(set(order)) == len(set(index))


def test_prompts_of_equal_words_and_other_media_are_kept_apart(tiny, encoder, mixed, clips):
    """Same ids, other pictures. Mutant: prompts told apart by their ids."""
    prompt = next(
        row["prompt"] for row in mixed if [p["type"] for p in row["prompt"][-1]["content"]] == ["image", "text"]
    )

    def of(k):
        parts = [
            p | {"path": str(clips / f"image{k}.png")} if p["type"] == "image" else p for p in prompt[-1]["content"]
        ]
        return encoder([*prompt[:-1], prompt[-1] | {"content": parts}], f"image{k}")

    rows = [of(k) for k in (0, 1, 0, 1, 2)]
    assert len({tuple(row.input_ids) for row in rows}) == 1
    assert distinct_prompts(rows) == ([0, 1, 4], [0, 1, 0, 1, 2])
    model = load_model(tiny).eval()
    embedder = attach_media_embedder(model)
    for a, b in zip(plain(model, rows, **SCORES).logits, shared(model, embedder, rows, **SCORES).logits, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5)


@pytest.mark.parametrize("mode", MODES, ids=["greedy", "sampled"])
def test_the_constraint_holds_and_chooses_the_same(tiny, rows, mode):
    model = load_model(tiny).eval()
    embedder, tokenizer = attach_media_embedder(model), load_processor(tiny).tokenizer
    constraint = SectionConstraint(
        token_bytes(tokenizer, model.config.get_text_config().vocab_size),
        [tokenizer.eos_token_id],
        CONTEXT_THINK_ANSWER,
        40,
        "strict",
    )
    asked = {
        **mode,
        "max_new_tokens": 40,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    outputs = []
    for share in (False, True):
        torch.manual_seed(0)
        sampler = GenerateSampler(embedder, 0, [tokenizer.eos_token_id], share=share, constraint=constraint)
        outputs.append(sampler(model, rows, **asked))
    assert outputs[0] == outputs[1]
    texts = tokenizer.batch_decode(outputs[0].completion_ids, skip_special_tokens=True)
    assert all(text.endswith("</answer>") for text in texts)


def test_evaluation_answers_repeated_prompts_as_single_ones(tiny, encoder, rows):
    model = load_model(tiny).eval()
    embedder, passes = attach_media_embedder(model), widths(model)
    repeated = generate(model, encoder.processor, embedder, rows, 8)
    assert passes[0][0] == DISTINCT
    alone = [generate(model, encoder.processor, embedder, [row], 8)[0] for row in rows]
    assert [c.text for c in repeated] == [c.text for c in alone]
    assert [c.num_tokens for c in repeated] == [c.num_tokens for c in alone]


def test_prompts_that_do_not_repeat_go_the_plain_way(tiny, rows):
    model = load_model(tiny).eval()
    embedder = attach_media_embedder(model)
    distinct = [rows[i] for i in distinct_prompts(rows)[0]]
    passes = widths(model)
    assert torch.equal(shared(model, embedder, distinct, do_sample=False), plain(model, distinct, do_sample=False))
    assert passes[0] == (DISTINCT, padded(distinct)["input_ids"].size(1))


@pytest.mark.parametrize("texts", [[[60], [60]], [[60], [61], [60, 62, 63]]])
def test_with_several_processes_each_goes_through_the_same_passes(tiny, texts):
    """A process with nothing to share, or with prompts of one token, makes the forward that the others make."""
    model = load_model(tiny).eval()
    embedder, rows = attach_media_embedder(model), [EncodedPrompt(ids) for ids in texts]
    wanted = plain(model, rows, do_sample=False)
    passes = widths(model)
    with mock.patch.object(module, "several_processes", lambda: True):
        assert torch.equal(shared(model, embedder, rows, do_sample=False), wanted)
    assert len(passes) == 13, "one for the prompts, twelve for the tokens"


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"num_beams": 2}, "num_beams is 2"),
        ({"use_cache": False}, "use_cache is False"),
        ({"cache_implementation": "static"}, "cache_implementation is static"),
        ({}, "dropout is on"),
        ({"cache": object()}, "cannot be repeated"),
    ],
    ids=lambda x: next(iter(x), "dropout") if isinstance(x, dict) else "",
)
def test_what_cannot_be_shared_is_computed_the_plain_way_and_named(tiny, rows, caplog, asked, reason):
    model = load_model(tiny).eval()
    embedder = attach_media_embedder(model)
    module.notice.cache_clear()
    if reason == "dropout is on":
        model.add_module("drop", torch.nn.Dropout(0.1))  # does nothing, but is there
    prefill = module.prefill
    broken = mock.patch.object(
        module, "prefill", lambda *given: prefill(*given) and None if "cache" in asked_first else prefill(*given)
    )
    asked_first, asked = asked, {} if "cache" in asked else asked
    rows = [rows[2], rows[2]] if "num_beams" in asked else rows  # beams and media do not go together
    before = embedder.placed.copy()
    wanted = plain(model, rows, do_sample=False, **asked)
    counted = embedder.placed - before
    if reason == "dropout is on":
        model.drop.train()
    with broken, caplog.at_level(logging.WARNING):
        before = embedder.placed.copy()
        got = shared(model, embedder, rows, do_sample=False, **asked)
        assert embedder.placed - before == counted, "as in the plain way. Mutant: what was prefilled counts, too"
        shared(model, embedder, rows, do_sample=False, **asked)
    assert torch.equal(got, wanted)
    if "cache" in asked_first:  # nor is what was prefilled in vain counted as seen
        sampled = GenerateSampler(embedder, 0, ())
        with broken:
            sampled(model, rows, do_sample=False, max_new_tokens=2)
    assert [reason in record.message for record in caplog.records if "share_prompt" in record.message] == [True], (
        "once"
    )


# In the trainer


def by_length(completions, **kwargs):
    return [float(len(c[-1]["content"]) % 7) for c in completions]


@pytest.fixture
def run(tiny, settings, mixed, tmp_path):
    """Trains two steps; completions of both, passes of the first sampling, and the trainer."""

    def build(**overrides):
        fields = {
            "output_dir": str(tmp_path),
            "per_device_train_batch_size": 16,
            "num_generations": 4,
            "max_completion_length": 8,
            "max_steps": 2,
            "learning_rate": 1e-3,
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "save_strategy": "no",
        }
        trainer = OmniGRPOTrainer(
            load_model(tiny),
            [by_length],
            OmniGRPOConfig(**{**fields, **overrides}),
            mixed,
            encoder=PromptEncoder(load_processor(tiny), settings),
        )
        sampled, passes, original = [], [], OmniGRPOTrainer._generate_single_turn
        record = widths(trainer.model)

        def spy(self, *args, **kwargs):
            record.clear()
            output = original(self, *args, **kwargs)
            sampled.append(output[0])
            passes.append(list(record))
            return output

        with mock.patch.object(OmniGRPOTrainer, "_generate_single_turn", spy):
            trainer.train()
        return sampled, passes, trainer

    return build


@pytest.mark.parametrize("frozen", [False, True])
def test_training_samples_the_same_completions_from_a_quarter_of_the_prompts(run, frozen):
    ways = [run(share_prompt=way, freeze_vision=frozen, freeze_audio=frozen) for way in ("off", "auto")]
    assert ways[0][0][0] == ways[1][0][0], "the first batch; the second is sampled from other roundings"
    assert ways[0][1][0][0][0] == 16
    assert ways[1][1][0][0][0] == 4
    assert ways[0][2].media_embedder.placed.keys() == set(MODALITIES)


def test_constrained_training_samples_the_same(run):
    asked = {"constrained_decoding": "strict", "max_completion_length": 40, "max_steps": 1}
    ways = [run(share_prompt=way, **asked) for way in ("off", "auto")]
    assert ways[0][0] == ways[1][0]
    assert [passes[0][0][0] for _, passes, _ in ways] == [16, 4]


def test_training_goes_on_where_the_cache_cannot_be_repeated(run, monkeypatch):
    """The media that sampling saw are counted once. Mutant: those of the failed prefill stay in the count."""
    with monkeypatch.context() as patched:
        patched.delattr(Cache, "reorder_cache")
        sampled, passes, _ = run()
    assert sampled[0] == run(share_prompt="off")[0][0]
    assert [rows for rows, _ in passes[0][:2]] == [4, 16], "the prefill in vain, then every prompt"


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("steps", [1, 4])
def test_sampling_that_did_not_see_the_media_is_refused(tiny, rows, share, steps):
    """
    A model whose passes nothing counts sees too few, one that computes prompts anew for each token too many. Mutants:
    `!=` as `<`, as `>`.
    """
    model = load_model(tiny)
    embedder = attach_media_embedder(model)
    asked = {"do_sample": False, "max_new_tokens": steps}
    with pytest.raises(MediaError, match=r"sampling saw \d+ of \d+ audio features of rows \['row0'"):
        if steps == 1:
            GenerateSampler(embedder, 0, (), share=share)(load_model(tiny), rows, **asked)
        else:
            GenerateSampler(embedder, 0, (), share=share)(model, rows, use_cache=False, **asked)


AGAIN = {
    "num_beams": 2,
    "num_return_sequences": 2,
    "use_cache": False,
    "prefill_chunk_size": 8,
    "guidance_scale": 1.5,
}


@pytest.mark.parametrize("name", ONCE)
def test_settings_that_show_a_prompt_anew_or_in_part_are_refused_at_start(tiny, rows, tmp_path, name):
    """
    By name, and only these: each would end the first step. Mutants: `use_cache` alone; the check without evaluation's
    beams; a value that says what holds anyway is refused.
    """
    embedder = attach_media_embedder(model := load_model(tiny).eval())
    with pytest.raises(ValueError):  # a MediaError mostly
        GenerateSampler(embedder, 0, [2])(model, rows, max_new_tokens=4, do_sample=True, **{name: AGAIN[name]})
    fields = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "agreement": "warn"}
    shown, told = (
        Dataset.from_list([{"prompt": [{"role": "user", "content": [part]}]}])
        for part in ({"type": "image", "path": "a.png"}, {"type": "text", "text": "a"})
    )
    for form in (dict, json.dumps):
        args = OmniGRPOConfig(**fields, generation_kwargs=form({"min_p": 0.1, name: AGAIN[name]}))
        check_generation(args, told)
        with pytest.raises(ValueError, match=f"^generation_kwargs: {name}: {AGAIN[name]} .*; take it out"):
            OmniGRPOTrainer("no/model", [length_reward], args, shown)
    for plain in ONCE[name]:
        check_generation(OmniGRPOConfig(**fields, generation_kwargs={"min_p": 0.1, name: plain}), shown)
    with pytest.raises(ValueError, match=f"generation_kwargs: no such setting '{name}'"):
        EvalArguments(models=["a=b"], test_file="t", output_dir="o", generation_kwargs={name: AGAIN[name]})
