# SPDX-License-Identifier: Apache-2.0
"""Constrained decoding in `generate` and in the trainer."""

from __future__ import annotations

import random
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
import torch
from peft import LoraConfig
from transformers import LogitsProcessor

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder, SectionConstraint, SectionLogitsProcessor
from omni_grpo.data.encoding.inputs import collate_media
from omni_grpo.families import family_of_processor
from omni_grpo.model.loading import language_model_targets, load_model, load_processor
from omni_grpo.rollout.constrained.head import allowed_sets
from omni_rewards import parse_sections
from section_texts import sampled
from small_runs import SMALL_RUN

ROOM = 48  # tokens of a completion


class RowNoise(LogitsProcessor):
    """
    Random logits that depend on a row's own tokens and position alone: sampling that batches cannot change. What
    stands side by side in tags is likely to do so here, so that sections close at all lengths.
    """

    def __init__(self, prompt_length: int, seeds: list[int], tags: list[int]) -> None:
        self.prompt_length, self.seeds, self.tags = prompt_length, seeds, tags

    def __call__(self, input_ids, scores):
        position = input_ids.size(1) - self.prompt_length
        makers = [torch.Generator().manual_seed(1000 * seed + position) for seed in self.seeds]
        noise = 3 * torch.stack([torch.randn(scores.size(1), generator=maker) for maker in makers])
        noise[:, self.tags[0]] += 7  # `</`
        for before, after in pairwise(self.tags):
            noise[input_ids[:, -1] == before, after] += 12
        return scores + noise


@pytest.fixture(scope="module")
def policy(tiny):
    model, processor = load_model(tiny).eval(), load_processor(tiny)
    forbidden = family_of_processor(processor).control_ids(processor)
    constraint = SectionConstraint.from_tokenizer(
        processor.tokenizer, model.config.get_text_config().vocab_size, max_tokens=ROOM, forbidden=forbidden
    )
    return model, processor.tokenizer, constraint


def generated(policy, prompts, seeds, **kwargs):
    """Completions, each up to its end token, of left-padded prompts."""
    model, made, constraint = policy
    width = max(map(len, prompts))
    ids = torch.tensor([[made.pad_token_id] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    tags = made("</context></think></answer>")["input_ids"]
    processors = [RowNoise(width, seeds, tags)] + ([SectionLogitsProcessor(constraint)] if constraint else [])
    with torch.no_grad():
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=ROOM,
            logits_processor=processors,
            **{"do_sample": False, **kwargs},
        )
    rows = output[:, width:].tolist()
    return [row[: row.index(made.eos_token_id) + 1] if made.eos_token_id in row else row for row in rows]


def test_a_batch_equals_single_rows_and_the_cache_changes_nothing(policy):
    """32 prompts of different lengths, sampled together, one by one, and without a cache."""
    chance = random.Random(0)
    prompts = [[chance.randrange(40, 300) for _ in range(chance.randrange(3, 20))] for _ in range(32)]
    together = generated(policy, prompts, list(range(32)))
    assert together == [generated(policy, [p], [i])[0] for i, p in enumerate(prompts)]
    assert together == generated(policy, prompts, list(range(32)), use_cache=False)
    assert len({tuple(row) for row in together}) == 32
    assert len({len(row) for row in together}) > 5, "rows ended at different steps"


def sample_with(policy, count: int, constrained: bool, seed: int) -> float:
    """Share of well-formed completions among `count` that a random model samples."""
    model, made, _ = policy
    torch.manual_seed(seed)
    kept = policy if constrained else (model, made, None)
    rows = generated(kept, [[60, 61, 62]] * count, list(range(seed * count, (seed + 1) * count)), do_sample=True)
    return sum(parse_sections(text).ok for text in made.batch_decode(rows, skip_special_tokens=True)) / count


def test_random_logits_give_well_formed_completions_under_the_constraint_and_none_without(policy):
    assert sample_with(policy, 100, True, 0) == 1.0
    assert sample_with(policy, 100, False, 0) == 0.0


@pytest.mark.slow
def test_ten_thousand_random_completions(policy):
    """The same at full size: a minute or two."""
    assert [sample_with(policy, 250, True, seed) for seed in range(40)] == [1.0] * 40
    assert [sample_with(policy, 250, False, seed) for seed in range(40)] == [0.0] * 40


def test_the_state_of_a_row_follows_from_its_tokens_alone(policy):
    """Rows that change places, as beams do, and a processor that meets a batch in its middle."""
    _, _, constraint = policy
    rows = [sampled(constraint, seed) for seed in (1, 2, 3)]
    length = min(map(len, rows)) - 2
    ids = torch.tensor([[7, 8, *row[:length]] for row in rows])
    steady = SectionLogitsProcessor(constraint, prompt_length=2)
    for stop in range(2, length + 3):
        order = [0, 1, 2] if stop % 2 else [2, 0, 1]
        seen = steady(ids[order, :stop], torch.zeros(3, constraint.vocab_size))
        fresh = SectionLogitsProcessor(constraint, 2)(ids[order, :stop], torch.zeros(3, constraint.vocab_size))
        assert torch.equal(seen, fresh)
        wanted = [constraint.trace(tuple(rows[i][: stop - 1]))[-1] for i in order]
        assert torch.equal(torch.isfinite(seen), torch.tensor(np.stack([constraint.allowed(m) for m in wanted])))
    with pytest.raises(ValueError, match="vocab_size"):
        steady(ids, torch.zeros(3, constraint.vocab_size + 1))
    with pytest.raises(ValueError, match="not allowed"):
        SectionLogitsProcessor(constraint, 0)(ids, torch.zeros(3, constraint.vocab_size))


# In the trainer


def by_length(completions, **kwargs):
    """Differs between completions, so that there is something to learn."""
    return [float(len(c[-1]["content"]) % 7) for c in completions]


@pytest.fixture
def make(tiny, settings, mixed, tmp_path):
    """A constrained trainer of the tiny model on the mixed rows; keyword arguments override the configuration."""

    def build(peft_config=None, **overrides):
        fields = {
            **SMALL_RUN,
            "output_dir": str(tmp_path),
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "num_generations": 4,
            "max_completion_length": 40,
            "max_steps": 2,
            "constrained_decoding": "strict",
        }
        return OmniGRPOTrainer(
            load_model(tiny),
            [by_length],
            OmniGRPOConfig(**{"credit_map": "uniform", **fields, **overrides}),
            mixed,
            encoder=PromptEncoder(load_processor(tiny), settings),
            peft_config=peft_config,
        )

    return build


def watch(trainer, name: str) -> list:
    """What a method of `trainer` returns, call by call, with its arguments."""
    calls, original = [], getattr(trainer, name)

    def spy(*args, **kwargs):
        output = original(*args, **kwargs)
        calls.append((args, output))
        return output

    setattr(trainer, name, spy)
    return calls


def logged(trainer, key):
    return [log[key] for log in trainer.state.log_history if key in log]


@pytest.mark.parametrize("mode", ["strict", "force_tags"])
def test_training_samples_under_the_constraint(make, mode):
    trainer = make(constrained_decoding=mode)
    calls = watch(trainer, "_generate")
    trainer.train()
    texts = [c[0]["content"] for _, output in calls for c in output[3]]
    reasons = {parse_sections(text).reason for text in texts}
    assert (
        reasons == {"ok"} if mode == "strict" else reasons <= {"ok", "truncated", "empty_section", "missing_section"}
    )
    assert logged(trainer, "completions/clipped_ratio") == [0.0, 0.0] or mode == "force_tags"
    assert all(0 < share < 1 for share in logged(trainer, "constrained/chosen_share"))
    assert "generate" not in vars(trainer.model), "the model's own method is back"
    media = family_of_processor(trainer.processing_class).control_ids(trainer.processing_class)
    assert not {token for _, output in calls for ids in output[1] for token in ids} & set(media)
    assert all(trainer.sampler.constraint.paths.table[i] is None for i in media)


@pytest.mark.parametrize("lora", [False, True])
def test_old_new_and_reference_score_one_distribution(make, tiny, lora):
    """At learning rate 0 the ratio is exactly 1 and the KL exactly 0, also when a batch is used twice."""
    peft_config = LoraConfig(r=4, target_modules=language_model_targets(None)) if lora else None
    trainer = make(peft_config, learning_rate=0.0, beta=0.1, num_iterations=2, steps_per_generation=2, max_steps=4)
    batches = watch(trainer, "_generate_and_score_completions")
    passes = watch(trainer, "_get_per_token_logps_and_entropies")
    trainer.train()
    assert logged(trainer, "kl") == [0.0] * 4
    output = batches[0][1]
    assert torch.equal(output["old_per_token_logps"], output["ref_per_token_logps"])
    new = torch.cat([p[1][0] for p in passes if p[1][0].requires_grad][:2])
    old = output["old_per_token_logps"]
    assert torch.equal(new.detach().sum(1).sort().values, old.sum(1).sort().values), "the batch was shuffled by row"
    assert len(passes) == 2 * (1 + 1) + 8, "two batches, each scored by policy and reference; then eight micro-batches"
    assert (old[output["tool_mask"] == 0] == 0).all()
    assert (old[output["tool_mask"] == 1] < 0).all()


def test_scores_are_those_of_a_plain_forward_renormalised(make, tiny):
    """Row by row, unpadded, through the model's own forward, with the sets of allowed tokens found again."""
    trainer = make(max_steps=1, temperature=0.9, learning_rate=0.0, gradient_accumulation_steps=1)
    passes, losses = watch(trainer, "_get_per_token_logps_and_entropies"), watch(trainer, "_compute_loss")
    trainer.train()
    (_, ids, mask, keep, *_), (logps, entropies, _) = passes[-1]
    model, constraint = load_model(tiny).eval(), trainer.sampler.constraint
    for i, row in enumerate(row.prompt for row in losses[-1][0][1]["rows"]):
        completion = ids[i, -keep:][mask[i, -keep:].bool()].tolist()
        whole = torch.tensor([row.input_ids + completion])
        with torch.no_grad():
            logits = model(input_ids=whole, attention_mask=torch.ones_like(whole), **collate_media([row])).logits
        logits = logits[0, len(row.input_ids) - 1 : -1] / 0.9
        for j, name in enumerate(constraint.trace(tuple(completion))):
            allowed = torch.from_numpy(constraint.allowed(name))
            scores = logits[j].masked_fill(~allowed, -torch.inf).log_softmax(-1)
            assert abs(float(scores[completion[j]] - logps[i, j].detach())) < 2e-5
            assert (
                abs(float(torch.distributions.Categorical(logits=scores).entropy() - entropies[i, j].detach())) < 2e-5
            )


def test_forced_tokens_are_left_out_of_loss_and_counts(make):
    """`num_items_in_batch`, by which `dapo` divides, counts choices alone; the mask reaches TRL's loss."""
    trainer = make(max_steps=1)
    batches = watch(trainer, "_generate_and_score_completions")
    trainer.train()
    output = batches[0][1]
    chosen = output["tool_mask"] * output["completion_mask"]
    assert output["num_items_in_batch"] == chosen.sum() < output["completion_mask"].sum()
    assert (chosen[:, 0] == 1).all() or (chosen[:, 0] == 0).all(), "the first tag is spelled alike in every row"


def test_none_is_trls_own_path(make):
    trainer = make(constrained_decoding="none", max_steps=1)
    batches = watch(trainer, "_generate_and_score_completions")
    trainer.train()
    assert trainer.sampler.constraint is None
    assert "tool_mask" not in batches[0][1]
    assert not logged(trainer, "constrained/chosen_share")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"max_completion_length": 8}, "the shortest takes"),
        ({"section_budgets": [30, 30, 30]}, "budgets"),
        ({"top_p": 0.9}, "top_p"),
        ({"top_k": 20}, "top_k"),
        ({"repetition_penalty": 1.1}, "repetition_penalty"),
        ({"constrained_decoding": "soft"}, "none, force_tags, strict"),
        ({"constrained_decoding": "none", "section_budgets": [9, 9, 9]}, "section_budgets"),
    ],
)
def test_what_cannot_be_held_is_refused_at_once(make, overrides, message):
    with pytest.raises(ValueError, match=message):
        make(**overrides)


def test_budgets_reach_the_sampler(make):
    trainer = make(section_budgets=[12, 11, 12], max_steps=1)
    calls = watch(trainer, "_generate")
    trainer.train()
    for completion in calls[0][1][1]:
        for section, end in (("context", 12), ("think", 23), ("answer", 35)):
            assert f"</{section}>" in trainer._tokenizer.decode(completion[:end])


def test_completions_of_another_sampler_are_not_scored(make):
    """A backend that bypasses `generate` stops the run, and so do tokens that were not sampled under the mask."""
    trainer = make(max_steps=1)
    with (
        mock.patch.object(
            OmniGRPOTrainer, "_generate_single_turn", lambda self, ids, *rest: ([[60]] * len(ids), None)
        ),
        pytest.raises(RuntimeError, match="own sampler"),
    ):
        trainer.train()
    with pytest.raises(ValueError, match="not allowed"):
        allowed_sets(trainer.sampler.constraint, torch.tensor([[60, 61]]), torch.ones(1, 2))
