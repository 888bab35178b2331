# SPDX-License-Identifier: Apache-2.0
"""The scored distribution is the sampled one, in every pass; where it is not, the run says so and stops."""

from __future__ import annotations

import dataclasses
from unittest import mock

import pytest
import torch
from peft import LoraConfig
from trl.trainer.utils import add_fused_lm_head

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder
from omni_grpo.data.encoding.inputs import EncodedPrompt
from omni_grpo.data.media.settings import MediaError
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.rollout import recording
from omni_grpo.rollout.constrained.head import exclude_tokens
from omni_grpo.rollout.sampler import GenerateSampler
from omni_grpo.scoring.agreement import check_prompts
from omni_grpo.scoring.probe import exchanged
from omni_grpo.scoring.scorer import Scorer
from small_runs import SMALL_RUN, length_reward
from tiny_families import save_tiny


@pytest.fixture
def make(tiny, settings, mixed, tmp_path):
    def build(dataset=mixed, peft_config=None, **fields):
        given = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4, "num_generations": 4}
        given |= {"max_completion_length": 6, "max_steps": 1, "learning_rate": 1e-2}
        args = OmniGRPOConfig(**{**SMALL_RUN, "output_dir": str(tmp_path), **given, **fields})
        encoder = PromptEncoder(load_processor(tiny), settings)
        return OmniGRPOTrainer(
            load_model(tiny), [length_reward], args, dataset, encoder=encoder, peft_config=peft_config
        )

    return build


def logged(trainer, key):
    return [log[key] for log in trainer.state.log_history if key in log]


def text_alone(mixed):
    return mixed.filter(
        lambda prompt: all(p["type"] == "text" for turn in prompt for p in turn["content"]), input_columns="prompt"
    )


# The scored distribution is the sampled one.

RUNS = {
    "packed": {"share_prompt": "verify"},
    "row by row": {"share_prompt": "off"},
    "trained towers, colder": {"temperature": 0.7, "cast_lm_head_to_fp32": True},
    "frozen towers, tokens of the user's": {
        "freeze_vision": True,
        "freeze_audio": True,
        "generation_kwargs": {"suppress_tokens": [*range(40, 90)]},
    },
    "old and reference passes": {
        "beta": 0.1,
        "steps_per_generation": 4,
        "gradient_accumulation_steps": 2,
        "num_iterations": 2,
    },
    "sections": {"constrained_decoding": "strict", "max_completion_length": 80},
}


@pytest.mark.parametrize("name", RUNS)
def test_what_is_scored_is_what_was_sampled(make, name):
    """On the same weights, to the rounding of float32. Mutants: below."""
    trainer = make(**RUNS[name], agreement_stop=1e-6, max_steps=2)
    trainer.train()
    found = logged(trainer, "agreement/max")
    assert (
        len(found) == (1 if name == "old and reference passes" else 2)
        and 0 < max(found) <= 4e-6
        and max(logged(trainer, "agreement/mean")) <= 1e-6
    )
    assert logged(trainer, "agreement/causal_probe")[0] > 1e-4
    shown = {key.split("/")[-1] for log in trainer.state.log_history for key in log if "agreement/modality" in key}
    assert shown == {"audio", "image", "video", "text"}
    if name == "packed":
        assert trainer.scorer.shares


@pytest.mark.parametrize("name", ["packed", "frozen towers, tokens of the user's", "old and reference passes"])
def test_scoring_without_the_mask_stops_the_run(make, name):
    """The mutant: each ratio is off by the probability of what is never sampled."""
    with mock.patch("omni_grpo.build.exclude_tokens"), pytest.raises(RuntimeError, match=r"agreement_stop is 0\.001"):
        make(**RUNS[name]).train()


def test_a_reference_without_the_mask_shows_in_the_kl(make):
    for reference_too in (True, False):
        done = []

        def only_policy(model, ids, done=done, too=reference_too):
            done.append(exclude_tokens(model, ids) if too or not done else None)

        with mock.patch("omni_grpo.build.exclude_tokens", only_policy):
            trainer = make(learning_rate=0.0, beta=0.1)
        trainer.train()
        assert len(done) == 2 and (max(map(abs, logged(trainer, "kl"))) > 1e-5) is not reference_too


@pytest.mark.parametrize("family", ["text", "gemma4"])
def test_the_fused_head_over_the_tokens_that_are_left(family, tiny, tmp_path):
    """Log-probability, entropy and gradient are those of a softmax that never had them; gemma caps its logits."""
    model = load_model(tiny if family == "text" else save_tiny(family, tmp_path)).eval()
    config, excluded = model.config.get_text_config(), [7, 11, 200]
    ids = torch.randint(20, 100, (2, 9), generator=torch.Generator().manual_seed(0))
    hidden = model.base_model(input_ids=ids).last_hidden_state[:, :-1]
    logits = model.get_output_embeddings()(hidden)
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = cap * torch.tanh(logits / cap)
    assert (cap is not None) == (family == "gemma4")
    kept = (logits / 0.8).index_fill(-1, torch.tensor(excluded), -1e9).log_softmax(-1)
    logps, entropy = kept.gather(-1, ids[:, 1:, None])[..., 0], -(kept.exp() * kept).sum(-1)
    head = model.get_output_embeddings().weight
    (wanted,) = torch.autograd.grad(logps.sum(), head)
    add_fused_lm_head(model, temperature=0.8, outputs=("log_probs", "entropy"))
    plain = model(input_ids=ids, labels=ids, fused_lm_head=True)
    exclude_tokens(model, [])
    exclude_tokens(model, excluded)
    exclude_tokens(model, excluded)  # twice is once
    scored = model(input_ids=ids, labels=ids, fused_lm_head=True)
    torch.testing.assert_close(scored.log_probs, logps, rtol=0, atol=2e-6)
    torch.testing.assert_close(scored.entropy, entropy, rtol=0, atol=4e-6)
    (found,) = torch.autograd.grad(scored.log_probs.sum(), head)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=2e-5)
    assert (plain.log_probs - logps).abs().min() > 1e-4, "the mutant: no mask"
    if head is not model.get_input_embeddings().weight and cap is None:
        assert not found[excluded].any()
    assert model(input_ids=ids).logits[..., excluded].isfinite().all(), "sampling's own pass is as it was"


def test_the_sampler_gives_the_log_probabilities_of_what_it_drew(make, mixed):
    """Against all scores of `generate`, kept; the recorder keeps one step's. Mutants: the step before; no temperature."""
    trainer = make()
    encoder, made, drawn = trainer.encoder, [], []
    prompts = [encoder(row["prompt"], row["id"]) for row in mixed for _ in range(2)]
    of = recording.ChosenLogProbs.of
    sampler = GenerateSampler(trainer.media_embedder, 0, {2}, {5, 6}, logprobs=True)
    generate = type(trainer.model).generate

    def with_scores(self, **asked):
        made.append(generate(self, **asked, output_scores=True, return_dict_in_generate=True))
        return made[-1].sequences

    def noted(recorder, output):
        drawn.append(sum(t.numel() for t in vars(recorder).values() if isinstance(t, torch.Tensor)))
        return of(recorder, output)

    asked = {"do_sample": True, "temperature": 0.5, "top_k": 20, "max_new_tokens": 9}
    with (
        mock.patch.object(type(trainer.model), "generate", with_scores),
        mock.patch.object(recording.ChosenLogProbs, "of", noted),
    ):
        sampled = sampler(trainer.model.eval(), prompts, **asked)
    scores = torch.stack(made[0].scores, dim=1).log_softmax(-1)  # (B, T, V)
    for ids, logprobs, row in zip(sampled.completion_ids, sampled.logprobs, scores, strict=True):
        wanted = row[: len(ids)].gather(-1, torch.tensor(ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(logprobs), wanted, rtol=0, atol=1e-6)
    assert drawn == [scores[:, 0].numel()], "one step's scores"
    assert sampled.prompt_ids == [prompt.input_ids for prompt in prompts]
    assert sampler(trainer.model, prompts[:1], max_new_tokens=2, do_sample=False).logprobs is None
    assert "_get_logits_processor" not in vars(trainer.model)


# What bends the sampled distribution.

BENT = {
    "top_k": {"top_k": 5},
    "top_p": {"top_p": 0.5},
    "min_p": {"min_p": 0.5},
    "repetition_penalty": {"repetition_penalty": 1.3},
    "of the user's": {"generation_kwargs": {"no_repeat_ngram_size": 1}},
    "another temperature": {"generation_kwargs": {"temperature": 0.5}},
}


@pytest.mark.parametrize("name", BENT)
def test_a_bent_distribution_is_refused_or_measured(make, name):
    setting = next(iter(BENT[name].get("generation_kwargs", BENT[name])))
    with pytest.raises(ValueError, match=f"^{setting}=.*set `agreement: warn`"):
        make(**BENT[name])
    trainer = make(**BENT[name], agreement="warn")
    trainer.train()
    assert logged(trainer, "agreement/mean")[0] > 1e-4  # 1e-8 where nothing bends


def test_what_bends_nothing_is_let_through(make):
    neutral = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "num_beams": 1, "use_cache": True}
    trainer = make(generation_kwargs=neutral, agreement="off")
    trainer.train()
    assert not logged(trainer, "agreement/mean") and logged(trainer, "agreement/causal_probe")
    for field, value in (("agreement_warn", 0.0), ("agreement_stop", -1.0), ("causal_probe_steps", -1)):
        with pytest.raises(ValueError, match=field):
            make(**{field: value})


# What the meter and the probe catch.


def with_rows(change):
    """Patches the rows between sampling and the loss."""
    whole = OmniGRPOTrainer._generate_and_score_completions

    def changed(self, inputs):
        output = whole(self, inputs)
        for row in output["rows"]:
            row.prompt = change(self, row.prompt)
        return output

    return mock.patch.object(OmniGRPOTrainer, "_generate_and_score_completions", changed)


def test_other_media_in_scoring_stop_the_run(make):
    with with_rows(lambda self, prompt: exchanged(prompt, self.media_embedder.family)):
        with pytest.raises(RuntimeError, match=r"agreement: .*docs/agreement.md"):
            make().train()
        trainer = make(agreement="warn")
        trainer.train()
    apart = {m: logged(trainer, f"agreement/modality/{m}") for m in ("audio", "image", "video", "text")}
    assert all(min(apart[m]) > 1e-4 for m in ("audio", "image", "video")) and max(apart["text"]) < 1e-6


def test_shifted_positions_and_stale_weights_stop_the_run(make):
    whole = Scorer._pass

    def shifted(self, model, batch, packed, **asked):
        if packed is not None:
            packed = packed._replace(position_ids=packed.position_ids * 2)
        return whole(self, model, batch, packed, **asked)

    with (
        mock.patch.object(Scorer, "_pass", shifted),
        pytest.raises(RuntimeError, match=r"agreement_stop|share_prompt"),
    ):
        make(share_prompt="verify").train()
    trainer = make()
    sampler = trainer.sampler

    def stale(model, prompts, **asked):
        noise = {p: torch.randn_like(p) * 0.01 for p in model.parameters()}
        with torch.no_grad():
            [p.add_(n) for p, n in noise.items()]
            sampled = sampler(model, prompts, **asked)
            [p.sub_(n) for p, n in noise.items()]
        return sampled

    stale.constraint = None
    trainer.sampler = stale
    with pytest.raises(RuntimeError, match="agreement_stop"):
        trainer.train()


def test_a_prompt_that_sampling_saw_otherwise_stops_the_run(make):
    trainer = make()
    sampler = trainer.sampler

    def shorter(model, prompts, **asked):
        sampled = sampler(model, prompts, **asked)
        return sampled._replace(prompt_ids=[ids[:3] + ids[4:] for ids in sampled.prompt_ids])

    trainer.sampler = shorter
    with pytest.raises(MediaError, match=r"row '.*': sampling was shown another prompt than scoring"):
        trainer.train()
    check_prompts([EncodedPrompt([1, 2], name="a")], [[1, 2]])
    with pytest.raises(MediaError, match=r"row 'a': .* of 3 tokens for 2"):
        check_prompts([EncodedPrompt([1, 2], name="a")], [[1, 2, 3]])


@pytest.mark.parametrize("frozen", [True, False])
def test_media_that_do_not_reach_scoring_stop_the_run_at_its_start(make, frozen):
    """The mutant: scoring shows every row the first one's media, so that nothing that is exchanged arrives."""
    whole = Scorer.completions

    def blind(self, model, prompts, *given):
        return whole(
            self,
            model,
            [dataclasses.replace(p, media=prompts[0].media, features=prompts[0].features) for p in prompts],
            *given,
        )

    with mock.patch.object(Scorer, "completions", blind):
        trainer = make(freeze_vision=frozen, freeze_audio=frozen)
        with pytest.raises(RuntimeError, match=r"causal_probe_steps: .* scoring does not see the media"):
            trainer.train()
    assert trainer.state.global_step == 0, "nothing was learnt"


def test_the_probe_comes_every_so_many_steps_and_not_on_text(make, mixed):
    small = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    trainer = make(max_steps=5, causal_probe_steps=2, learning_rate=0.0, **small)
    trainer.train()
    assert [log["step"] for log in trainer.state.log_history if "agreement/causal_probe" in log] == [1, 3, 5]
    for fields in ({"dataset": text_alone(mixed)}, {"causal_probe_steps": 0}):
        trainer = make(**fields, **small)
        trainer.train()
        assert not logged(trainer, "agreement/causal_probe") and logged(trainer, "agreement/mean")


def test_with_dropout_the_probed_row_is_judged_in_the_batchs_place(make):
    """LoRA's dropout is on in the loss: the batch's figures say nothing of the two passes."""
    lora = LoraConfig(r=4, lora_dropout=0.5, target_modules=r".*language_model.*q_proj", init_lora_weights=False)
    trainer = make(peft_config=lora, causal_probe_steps=1)
    trainer.train()
    assert min(logged(trainer, "agreement/mean")) > 1e-5 > max(logged(trainer, "agreement/probed/mean"))
    with mock.patch("omni_grpo.build.exclude_tokens"), pytest.raises(RuntimeError, match="agreement_stop"):
        make(peft_config=lora).train()
