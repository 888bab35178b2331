# SPDX-License-Identifier: Apache-2.0
"""Rows that are scored one by one: dealt by length, trimmed, and with the same gradient as TRL's order."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder
from omni_grpo.families import base_of
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.scoring.row_order import interchangeable_micro_batches, least_padding_order, padded_tokens, used_columns
from omni_grpo.scoring.scorer import Batch
from small_runs import SMALL_RUN, length_reward

LENGTHS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 20)), min_size=1, max_size=24)


@given(lengths=LENGTHS, size=st.integers(1, 6))
def test_the_order_is_a_permutation_and_never_worse(lengths, size):
    order = least_padding_order(lengths, size)
    assert sorted(order) == list(range(len(lengths)))
    chosen = padded_tokens([lengths[i] for i in order], size)
    assert sum(map(sum, lengths)) <= chosen <= padded_tokens(lengths, size)
    prompts_alone = [(p, 0) for p, _ in lengths]
    best = padded_tokens(sorted(prompts_alone), size)  # where one length counts, to sort is all there is
    if len(lengths) % size == 0:
        assert padded_tokens([prompts_alone[i] for i in least_padding_order(prompts_alone, size)], size) == best


@given(lengths=LENGTHS)
def test_what_is_cut_is_padding_alone(lengths):
    """Mutants: one column more on either side."""
    prompt, kept = max(p for p, _ in lengths) + 2, max(c for _, c in lengths) + 3
    mask = torch.zeros(len(lengths), prompt + kept, dtype=torch.int)
    for row, (p, c) in zip(mask, lengths, strict=True):
        row[prompt - p : prompt + c] = 1
    left, right = used_columns(mask, kept)
    assert mask[:, left : prompt + right].sum() == mask.sum()
    assert (left, right) == (2, max(kept - 3, 1))


@pytest.fixture
def make(tiny, settings, mixed, tmp_path):
    """Six questions with media and without, four completions each, in micro-batches of four."""

    def build(attention="eager", **overrides):
        fields = {
            **SMALL_RUN,
            "output_dir": str(tmp_path),
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 3,
            "steps_per_generation": 6,
            "num_generations": 4,
            "max_completion_length": 10,
            "shuffle_dataset": False,
            "max_steps": 2,
        }
        return OmniGRPOTrainer(
            load_model(tiny, attn_implementation=attention),
            [length_reward],
            OmniGRPOConfig(**{**fields, **overrides}),
            mixed,
            encoder=PromptEncoder(load_processor(tiny), settings),
        )

    return build


def of_unequal_length(trainer):
    """Completions end at random, so that there is something to sort."""
    finish = trainer._generate_and_score_completions

    def cut(inputs):
        batch = finish(inputs)
        ends = torch.randint(1, 10, (len(batch["rows"]), 1), generator=torch.Generator().manual_seed(0))
        columns = torch.arange(batch["completion_mask"].size(1))
        batch["completion_mask"] = batch["completion_mask"] * (columns < ends).int()
        batch["num_items_in_batch"] = batch["completion_mask"].sum()
        return batch

    return mock.patch.object(trainer, "_generate_and_score_completions", cut)


def run(trainer):
    """Gradient of each optimiser step, the samples in it, and the columns that the language model computed."""
    gradients, samples, columns = [], [], 0
    loss = trainer._compute_loss

    def counted(_, args, kwargs, out):
        nonlocal columns
        columns += out.last_hidden_state.shape[:2].numel() if torch.is_grad_enabled() else 0

    def recorded(model, inputs):
        rows = zip(inputs["rows"], inputs["completion_ids"], inputs["completion_mask"], strict=True)
        samples.extend((row.name, *ids[mask.bool()].tolist()) for row, ids, mask in rows)
        return loss(model, inputs)

    class Gradients(torch.optim.SGD):
        def step(self, closure=None):
            del closure
            gradients.append({n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None})

    trainer.create_optimizer = lambda *_: setattr(trainer, "optimizer", Gradients(trainer.model.parameters(), lr=0.0))
    hook = base_of(trainer.model).language_model.register_forward_hook(counted, with_kwargs=True)
    with of_unequal_length(trainer), mock.patch.object(trainer, "_compute_loss", recorded):
        trainer.train()
    hook.remove()
    size = len(samples) // len(gradients)
    return gradients, [sorted(samples[i : i + size]) for i in range(0, len(samples), size)], columns


@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
def test_each_step_has_the_samples_and_the_gradient_of_trls_order(make, loss_type):
    """Two steps from one generation batch. Mutants: rows sorted over the whole batch; media left where they were."""
    dealt, plain = (run(make(share_prompt=mode, loss_type=loss_type, max_grad_norm=0.0)) for mode in ("auto", "off"))
    assert dealt[1] == plain[1] and len(dealt[1]) == 2
    assert dealt[2] < 0.9 * plain[2], "padding that was computed"
    for ours, theirs in zip(dealt[0], plain[0], strict=True):
        assert ours.keys() == theirs.keys()
        largest = max(g.norm() for g in theirs.values())
        for name, gradient in theirs.items():
            if gradient.norm() > 1e-4 * largest:
                assert (ours[name] - gradient).norm() < 1e-5 * gradient.norm(), name


def test_padding_is_logged_and_falls(make):
    trainer = make()
    with of_unequal_length(trainer):
        trainer.train()
    entry = next(log for log in trainer.state.log_history if "padding/after" in log)
    assert 0 < entry["padding/after"] < entry["padding/before"] < 1


@pytest.mark.parametrize(
    ("fields", "micro_batches"),
    [
        ({}, 3),
        ({"gradient_accumulation_steps": 6}, 6),
        ({"gradient_accumulation_steps": 4}, 1),
        ({"gradient_accumulation_steps": 12}, 6),
        ({"loss_type": "bnpo"}, 1),
        ({"top_entropy_quantile": 0.2}, 1),
        ({"entropy_coef": 0.1}, 1),
    ],
    ids=str,
)
def test_rows_stay_within_their_optimiser_step(make, fields, micro_batches):
    assert interchangeable_micro_batches(make(**fields)) == micro_batches


@pytest.mark.parametrize("constrained", ["none", "strict"])
def test_trimmed_scores_are_the_plain_ones(make, constrained):
    """Scores of a chunk, and zeros where there was nothing to score. Mutant: shifted by the columns that were cut."""
    trainer = make(constrained_decoding=constrained, max_completion_length=80 if constrained == "strict" else 10)
    trainer.model.train()
    with of_unequal_length(trainer):
        trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    for batch in trainer._buffered_inputs:
        ids, mask = (
            torch.cat([batch[f"{part}_{k}"] for part in ("prompt", "completion")], 1) for k in ("ids", "mask")
        )
        kept, scores = batch["completion_ids"].size(1), []
        whole = Batch([row.prompt for row in batch["rows"]], ids, mask, kept)
        for mode in ("auto", "off"):
            with torch.no_grad():
                trainer.scorer.mode = mode
                scores.append(trainer.scorer.score(trainer.model, whole, entropy=True)[:2])
        for ours, theirs in zip(*scores, strict=True):
            assert ours.shape == theirs.shape == batch["completion_ids"].shape
            scored = batch["completion_mask"].bool()
            torch.testing.assert_close(ours[scored], theirs[scored], rtol=1e-5, atol=1e-6)
