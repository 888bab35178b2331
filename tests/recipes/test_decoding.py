# SPDX-License-Identifier: Apache-2.0
"""A checkpoint's `generation_config.json` decides nothing but which tokens end and pad, wherever we generate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LogitsProcessorList

import ask_omni
from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, OmniSFTConfig, OmniSFTTrainer, PromptEncoder
from omni_grpo.data.rows.loading import load_examples
from omni_grpo.evaluation.evaluate import evaluate
from omni_grpo.evaluation.protocol import Protocol
from omni_grpo.families import family_of_processor
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.model.towers import attach_media_embedder
from omni_grpo.rollout.answers import decoding_settings, generate
from omni_grpo.rollout.sampler import explicit_decoding
from small_runs import SMALL_RUN, length_reward

LENGTH = 12
SHAPES_GREEDY = {
    "repetition_penalty": 5.0,
    "encoder_repetition_penalty": 5.0,
    "no_repeat_ngram_size": 1,
    "forced_bos_token_id": 60,
    "forced_eos_token_id": 61,
    "num_beams": 4,
    "sequence_bias": [[[62], 50.0]],
    "guidance_scale": 30.0,
    "do_sample": True,
    "stop_strings": ["<"],
    "max_time": 1e-9,
    "return_dict_in_generate": True,
    "watermarking_config": {"bias": 50.0},
    "prompt_lookup_num_tokens": 2,
    "penalty_alpha": 0.6,
}
SHAPES_SAMPLING = {
    "min_p": 0.9,
    "typical_p": 0.1,
    "epsilon_cutoff": 0.9,
    "eta_cutoff": 0.9,
    "top_h": 0.1,
    "no_repeat_ngram_size": 1,
    "sequence_bias": [[[62], 50.0]],
}
HOSTILE = {
    **SHAPES_GREEDY,
    **SHAPES_SAMPLING,
    "temperature": 0.2,
    "top_k": 2,
    "top_p": 0.2,
    "min_new_tokens": 3,
    "max_new_tokens": 4,
    "length_penalty": 3.0,
    "early_stopping": True,
    "exponential_decay_length_penalty": [1, 9.0],
    "renormalize_logits": True,
    "use_cache": False,
}


@pytest.fixture(scope="session")
def hostile(tiny, tmp_path_factory):
    """The tiny checkpoint with other settings of decoding in its `generation_config.json`."""

    def made(**settings) -> str:
        folder = tmp_path_factory.mktemp("hostile") / "model"
        shutil.copytree(tiny, folder)
        file = folder / "generation_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
        return str(folder)

    return made


@pytest.fixture
def prompts(tiny, settings, mixed):
    encoder = PromptEncoder(load_processor(tiny), settings)
    return [encoder(row["prompt"], row["id"]) for row in mixed.select(range(4))]


def completed(path: str, prompts, wrap=lambda model: model, **asked) -> list[str]:
    model = load_model(path).eval()
    embedder = attach_media_embedder(model)
    torch.manual_seed(0)
    return [c.text for c in generate(wrap(model), load_processor(path), embedder, prompts, LENGTH, **asked)]


@pytest.mark.parametrize("name", SHAPES_GREEDY)
def test_greedy_is_greedy_whatever_the_checkpoint_says(tiny, hostile, prompts, name):
    """Mutant: without [`explicit_decoding`] each of these changes the text, or fails."""
    assert completed(hostile(**{name: SHAPES_GREEDY[name]}), prompts) == completed(tiny, prompts)


@pytest.mark.parametrize("name", SHAPES_SAMPLING)
def test_sampling_is_what_is_asked(tiny, hostile, prompts, name):
    """As above; and `top_k` stays off, which transformers sets to 50 where nobody names it (mutant: leave it out)."""
    asked = {"do_sample": True, "temperature": 1.5}
    plain = completed(tiny, prompts, **asked)
    assert completed(hostile(do_sample=True, **{name: SHAPES_SAMPLING[name]}), prompts, **asked) == plain
    assert completed(tiny, prompts, **asked, top_k=0) == plain != completed(tiny, prompts, **asked, top_k=2)


def test_what_is_asked_explicitly_holds(tiny, prompts):
    assert completed(tiny, prompts, repetition_penalty=5.0) != completed(tiny, prompts)


def test_an_adapter_is_no_way_round(tiny, hostile, prompts):
    """PEFT hands its own view of the settings to the model within; the checkpoint has them back after."""

    def adapted(model):
        return get_peft_model(model, LoraConfig(r=2, target_modules=r".*language_model.*q_proj")).eval()

    assert completed(hostile(**HOSTILE), prompts, adapted) == completed(tiny, prompts)
    model = adapted(load_model(hostile(repetition_penalty=5.0)))
    with explicit_decoding(model):
        assert model.generation_config.repetition_penalty is None
    assert model.get_base_model().generation_config.repetition_penalty == 5.0


@pytest.mark.parametrize("whose", ["the checkpoint's", "the tokenizer's", "nobody's"])
def test_end_tokens_end(tiny, hostile, prompts, whose):
    """Mutants: only the tokenizer's end token ends; only the checkpoint's does, and what comes behind it is thrown away."""
    processor, model = load_processor(tiny), load_model(hostile(eos_token_id=[70])).eval()
    said = {"the checkpoint's": 70, "the tokenizer's": processor.tokenizer.eos_token_id, "nobody's": 71}[whose]
    original, calls = model.lm_head.forward, []
    model.lm_head.forward = lambda hidden: original(hidden).index_fill(-1, torch.tensor([said]), 99.0)
    model.lm_head.register_forward_pre_hook(lambda *_: calls.append(1))
    (cut,) = generate(model, processor, attach_media_embedder(model), prompts[:1], LENGTH)
    assert (cut.num_tokens, cut.truncated) == ((LENGTH, True) if whose == "nobody's" else (1, False))
    assert len(calls) <= cut.num_tokens + 1


def test_a_config_that_cannot_be_saved_does_not_cost_the_run(hostile, mixed, settings, tmp_path, caplog):
    """transformers refuses to write it once TRL has aligned an end token: after training. Mutant: kept as it is."""
    path = hostile(do_sample=False, temperature=0.7, eos_token_id=[2])
    args = OmniSFTConfig(**SMALL_RUN, output_dir=str(tmp_path), max_steps=1)
    trainer = OmniSFTTrainer(load_model(path), args, mixed, encoder=PromptEncoder(load_processor(path), settings))
    assert "generation_config.json" in caplog.text and "temperature" in caplog.text
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    assert load_model(str(tmp_path / "saved")).generation_config.temperature is None


# The four places


def test_evaluation_is_greedy_and_says_so(tiny, hostile, settings, mixed_file, tmp_path):
    """Mutant: the record without `decoding`, or with what was not used."""
    written = {}
    for name, path in (("neutral", tiny), ("hostile", hostile(**HOSTILE))):
        model = load_model(path).eval()
        parts = model, attach_media_embedder(model), PromptEncoder(load_processor(path), settings)
        metrics, rows = evaluate(*parts, load_examples(mixed_file), "short", tmp_path / name, max_new_tokens=LENGTH)
        written[name] = [row["completion"] for row in rows]
        record = json.loads((tmp_path / name / "metrics.json").read_text())["decoding"]
        assert record == metrics["decoding"] == decoding_settings(LENGTH)
        assert record["do_sample"] is False and record["max_new_tokens"] == LENGTH and record["num_beams"] == 1
    assert written["neutral"] == written["hostile"]
    asked = Protocol(decoding={"repetition_penalty": 5.0})
    metrics, rows = evaluate(
        *parts, load_examples(mixed_file), "short", tmp_path / "asked", max_new_tokens=LENGTH, protocol=asked
    )
    assert metrics["decoding"]["repetition_penalty"] == 5.0
    assert [row["completion"] for row in rows] != written["neutral"]


def test_asking_is_greedy(tiny, hostile, clips, capsys):
    said = []
    for path in (tiny, hostile(**HOSTILE)):
        words = ["--image", str(clips / "image0.png"), "--question", "What?", "--max_new_tokens", "12", "--raw"]
        ask_omni.main(["--model", path, *words])
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != ""


def test_validation_in_sft_is_greedy(tiny, hostile, settings, mixed, tmp_path):
    texts = []
    for path in (tiny, hostile(**HOSTILE)):
        args = OmniSFTConfig(
            **SMALL_RUN, output_dir=str(tmp_path), validate_answers=True, validation_max_new_tokens=LENGTH
        )
        encoder = PromptEncoder(load_processor(path), settings)
        trainer = OmniSFTTrainer(load_model(path), args, mixed, mixed, encoder=encoder)
        texts.append(trainer._answer(mixed))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("adapter", [False, True])
def test_rollouts_are_sampled_from_what_is_scored(tiny, hostile, settings, mixed, tmp_path, adapter):
    """
    The scores that a token is drawn from are the model's own logits, but for tokens that are forbidden by name.

    Mutant: without [`explicit_decoding`] a checkpoint's `min_p`, `typical_p` or `no_repeat_ngram_size` shape them, and
    the loss knows nothing of it.
    """
    sampled = []
    for path in (tiny, hostile(**HOSTILE)):
        args = OmniGRPOConfig(
            **SMALL_RUN,
            output_dir=str(tmp_path / Path(path).parent.name),
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=LENGTH,
            max_steps=2,
        )
        encoder = PromptEncoder(load_processor(path), settings)
        lora = LoraConfig(r=2, target_modules=r".*language_model.*q_proj") if adapter else None
        trainer = OmniGRPOTrainer(load_model(path), length_reward, args, mixed, encoder=encoder, peft_config=lora)
        policy = trainer.model.get_base_model() if adapter else trainer.model
        own, drawn = policy._get_logits_processor, []

        def watched(*args, own=own, drawn=drawn, **kwargs):
            processors = own(*args, **kwargs)

            def both(ids, scores):
                drawn.append((scores.clone(), processors(ids, scores)))
                return drawn[-1][1]

            return LogitsProcessorList([both])

        policy._get_logits_processor = watched
        trainer.train()
        trainer.save_model(str(tmp_path / "saved" / Path(path).parent.name))
        forbidden = family_of_processor(trainer.processing_class).control_ids(trainer.processing_class)
        for raw, shaped in drawn:
            assert torch.isinf(shaped[:, forbidden]).all()
            raw[:, forbidden] = -torch.inf
            assert torch.equal(raw, shaped)
        assert len(drawn) > 2
        sampled.append([log["loss"] for log in trainer.state.log_history if "loss" in log] + [len(drawn)])
        kept = policy.generation_config.to_dict() | {"eos_token_id": None}  # which the parent aligns
        assert kept == load_model(path).generation_config.to_dict() | {"eos_token_id": None}, "it is saved as it was"
    assert sampled[0] == sampled[1]
