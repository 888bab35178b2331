# SPDX-License-Identifier: Apache-2.0
"""SFT: loss on the completion alone, padding without influence, every modality in the loss."""

from __future__ import annotations

import pytest
import torch

from omni_grpo import OmniSFTConfig, OmniSFTTrainer, PromptEncoder
from omni_grpo.data.dataset import with_sft_targets
from omni_grpo.data.media.settings import MediaError
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.sft import IGNORED, OmniCollator
from small_runs import SMALL_RUN


@pytest.fixture(scope="module")
def encoder(tiny, settings):
    return PromptEncoder(load_processor(tiny), settings)


@pytest.fixture
def make(tiny, encoder, mixed, tmp_path):
    def build(dataset=mixed, eval_dataset=None, **overrides):
        fields = {
            **SMALL_RUN,
            "output_dir": str(tmp_path),
            "per_device_train_batch_size": 4,
            "max_steps": 3,
        }
        args = OmniSFTConfig(**{**fields, **overrides})
        return OmniSFTTrainer(load_model(tiny), args, dataset, eval_dataset, encoder=encoder)

    return build


def test_labels_are_the_target_and_the_end_of_turn_alone(encoder, mixed):
    """Looked at token by token: mutants that shift by one, label the header or the padding fail here."""
    batch = OmniCollator(encoder)(list(mixed))
    tokenizer = encoder.processor.tokenizer
    for i, row in enumerate(mixed):
        prompt = encoder(row["prompt"], row["id"]).input_ids
        target = tokenizer(row["target"])["input_ids"] + [tokenizer.eos_token_id]
        end = len(prompt) + len(target)
        assert batch["input_ids"][i, : len(prompt)].tolist() == prompt
        assert batch["labels"][i, : len(prompt)].tolist() == [IGNORED] * len(prompt)
        assert batch["labels"][i, len(prompt) : end].tolist() == target
        assert (batch["labels"][i, end:] == IGNORED).all()
        assert batch["attention_mask"][i].tolist() == [1] * end + [0] * (batch["input_ids"].shape[1] - end)
        assert tokenizer.decode(prompt).endswith("<|im_start|>assistant\n")
        assert tokenizer.decode(target) == row["target"] + "<|im_end|>"


def test_loss_is_the_mean_over_completion_tokens_of_the_plain_model(make, tiny, encoder, mixed):
    """Computed row by row without padding by the model's own forward."""
    trainer = make(learning_rate=0.0, max_steps=1, per_device_train_batch_size=8)
    trainer.train()
    model, total, count = load_model(tiny).eval(), 0.0, 0
    for row in mixed:
        batch = OmniCollator(encoder)([row])
        batch.pop("rows")
        labels = batch.pop("labels")[:, 1:]
        logps = model(**batch).logits[:, :-1].log_softmax(-1)
        kept = labels != IGNORED
        total -= logps.gather(-1, labels.clamp(min=0)[..., None])[..., 0][kept].sum().item()
        count += int(kept.sum())
    assert trainer.state.log_history[0]["loss"] == pytest.approx(total / count, rel=1e-5)


def test_padding_does_not_change_a_rows_loss(tiny, encoder, mixed):
    model = load_model(tiny).eval()
    alone = OmniCollator(encoder)([mixed[0]])
    padded = OmniCollator(encoder)([mixed[0], {**mixed[1], "target": mixed[1]["target"] * 3}])
    longest = alone["input_ids"].shape[1]
    assert padded["input_ids"].shape[1] > longest
    for batch in (alone, padded):
        batch.pop("rows")
        batch.pop("labels")
    torch.testing.assert_close(model(**alone).logits[0], model(**padded).logits[0, :longest], rtol=0, atol=2e-5)


@pytest.mark.parametrize("strategy", ["group_by_length", "batch_rebalance"])
def test_rows_of_like_length_come_together(make, mixed, strategy):
    """TRL's own samplers, with our collator; mutant: lengths of the prompts without their media."""
    padding = {}
    rows = mixed.select([i % len(mixed) for i in range(24)])
    for how in ("random", strategy):
        seen, padded = [], []
        trainer = make(
            rows, train_sampling_strategy=how, max_steps=-1, num_train_epochs=1, gradient_accumulation_steps=3
        )
        collate = trainer.data_collator

        def noted(batch, collate=collate, seen=seen, padded=padded):
            seen.extend(row["id"] for row in batch)
            whole = collate(batch)
            assert [
                row.get("length", n) for row, n in zip(batch, whole["attention_mask"].sum(1).tolist(), strict=True)
            ] == (whole["attention_mask"].sum(1).tolist())
            padded.append((whole["attention_mask"] == 0).sum().item())
            return whole

        trainer.data_collator = noted
        trainer.train()
        assert sorted(seen) == sorted(rows["id"]), "each row once"
        padding[how] = sum(padded)
    assert padding[strategy] < 0.7 * padding["random"]


def test_every_modality_reaches_the_loss(make, mixed):
    trainer = make()
    trainer.train()
    assert all(trainer.media_embedder.rows[m] > 0 for m in ("audio", "image", "video"))
    thinker = trainer.model.model
    start = load_model(trainer.model.config._name_or_path).model
    for name in ("audio_tower", "visual", "language_model"):
        after, before = (list(getattr(m, name).parameters()) for m in (thinker, start))
        assert any(not torch.equal(a, b) for a, b in zip(after, before, strict=True)), f"{name} was not trained"


def test_a_batch_that_lost_its_media_is_refused(make):
    trainer = make()
    collate = trainer.data_collator

    def losing(rows):
        batch = collate(rows)
        return {k: v for k, v in batch.items() if k != "pixel_values_videos"}

    trainer.data_collator = losing
    with pytest.raises(MediaError, match="video placeholders in rows"):
        trainer.train()


def test_too_long_rows_are_refused_not_cut(encoder, mixed):
    with pytest.raises(ValueError, match=r"row 'row0'.*max_length"):
        OmniCollator(encoder, max_length=20)(list(mixed))


def test_validation_goes_by_generated_answers_and_keeps_the_best(make, mixed, tmp_path):
    """Rows are learned by heart within the run, so that the answers improve and the last checkpoint is the best."""
    rows = with_sft_targets(mixed, "solution")
    trainer = make(
        rows,
        rows,
        max_steps=40,
        learning_rate=3e-3,
        validate_answers=True,
        validation_max_new_tokens=4,
        eval_strategy="steps",
        eval_steps=20,
        save_strategy="steps",
        save_steps=20,
        load_best_model_at_end=True,
        metric_for_best_model="eval_answer_accuracy",
    )
    trainer.train()
    logs = [log for log in trainer.state.log_history if "eval_answer_accuracy" in log]
    assert len(logs) == 2
    assert all(log["eval_answer_accuracy"] == 0.0 == log["eval_format_rate"] for log in logs), (
        "a bare answer without sections is malformed, and a malformed completion earns nothing"
    )
    assert trainer.state.best_model_checkpoint
