# SPDX-License-Identifier: Apache-2.0
"""Packed rows: the same log-probabilities, loss and gradients as a prompt scored once for each of its completions."""

from __future__ import annotations

import logging
import re
from unittest import mock

import pytest
import torch
from peft import LoraConfig
from torch.nn.attention.flex_attention import flex_attention

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder
from omni_grpo.data.media.settings import MediaError
from omni_grpo.families import Family, base_of
from omni_grpo.model.loading import language_model_targets, load_model, load_processor
from omni_grpo.scoring import packed_attention, packing
from omni_grpo.scoring.packed_attention import PackedGroup, PackedLayout
from omni_grpo.scoring.scorer import Batch, Scorer
from small_runs import SMALL_RUN, length_reward

RELATIVE = 1e-5  # the bar, in float32


@pytest.fixture
def make(tiny, settings, mixed, tmp_path):
    """A trainer of the tiny model on the mixed rows: all modalities, alone and together, and text."""

    def build(peft_config=None, dataset=mixed, attention="sdpa", **overrides):
        fields = {
            **SMALL_RUN,
            "output_dir": str(tmp_path),
            "per_device_train_batch_size": 24,
            "num_generations": 4,
            "max_completion_length": 12,
            "shuffle_dataset": False,
            "max_steps": 2,
        }
        return OmniGRPOTrainer(
            load_model(tiny, attn_implementation=attention),
            [length_reward],
            OmniGRPOConfig(**{**fields, **overrides}),
            dataset,
            encoder=PromptEncoder(load_processor(tiny), settings),
            peft_config=peft_config,
        )

    return build


def batch_of(trainer):
    """A micro-batch as the trainer's own loop gets it, its completions cut to unequal lengths."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    generator = torch.Generator().manual_seed(0)
    ends = torch.randint(1, inputs["completion_mask"].size(1) + 1, (len(inputs["rows"]), 1), generator=generator)
    inputs["completion_mask"] = (torch.arange(inputs["completion_mask"].size(1)) < ends).int()
    inputs["completion_ids"] = torch.where(inputs["completion_mask"].bool(), inputs["completion_ids"], 0)
    for row, ids, end in zip(inputs["rows"], inputs["completion_ids"].tolist(), ends.flatten().tolist(), strict=True):
        row.completion_ids = ids[:end]
    inputs["advantages"] = torch.randn(inputs["advantages"].shape, generator=generator)
    inputs["num_items_in_batch"] = inputs["completion_mask"].sum()
    return inputs


def passes(trainer, inputs, share):
    """Log-probabilities, loss and gradients of one update."""
    trainer.scorer.shares = share
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    kept = inputs["completion_ids"].size(1)
    with torch.no_grad():
        batch = Batch([row.prompt for row in inputs["rows"]], ids, mask, kept)
        logps = trainer.scorer(trainer.model, batch, entropy=True)[:2]
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
    scored = inputs["completion_mask"].bool()
    return [x[scored] for x in logps], loss.detach(), gradients


def distance(a, b):
    """Relative difference of two tensors, by their norms."""
    return ((a - b).norm() / b.norm().clamp(min=1e-12)).item()


def furthest(ours, theirs):
    """The largest relative difference of log-probabilities, entropies, loss and of any parameter's gradient."""
    largest = max(p.norm().item() for p in theirs[2].values())
    assert ours[2].keys() == theirs[2].keys()
    gradients = [
        distance(ours[2][n], theirs[2][n]) for n in theirs[2] if theirs[2][n].norm() > 1e-4 * largest
    ]  # of what is rounding alone, the relative error says nothing
    return max([*map(distance, ours[0], theirs[0]), distance(ours[1], theirs[1]), *gradients])


LORA = LoraConfig(r=4, target_modules=language_model_targets(None), init_lora_weights=False)


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"beta": 0.1},
        {"gradient_checkpointing": True},
        {"peft_config": LORA, "beta": 0.1},
        {"credit_map": "paper"},
        {"constrained_decoding": "strict", "max_completion_length": 80},
        {"num_generations": 3, "steps_per_generation": 4, "per_device_train_batch_size": 6},
        {"num_generations": 8, "steps_per_generation": 4, "per_device_train_batch_size": 6},
        {"freeze_vision": True, "freeze_audio": True},
    ],
    ids=lambda o: ",".join(o) or "plain",
)
def test_packed_equals_plain(make, overrides):
    """All modalities, left padding, unequal completions; whole groups, several groups and parts of groups."""
    trainer = make(**overrides)
    inputs = batch_of(trainer)
    packed, plain = (passes(trainer, inputs, share) for share in (True, False))
    assert furthest(packed, plain) < RELATIVE


@pytest.mark.parametrize("masked", ["some", "all"])
def test_masked_completions_are_left_out(make, masked):
    """As `mask_truncated_completions` leaves them: no token of theirs counts."""
    trainer = make()
    inputs = batch_of(trainer)
    inputs["completion_mask"][:: 2 if masked == "some" else 1] = 0
    inputs["num_items_in_batch"] = inputs["completion_mask"].sum().clamp(min=1)
    packed, plain = (passes(trainer, inputs, share) for share in (True, False))
    if masked == "some":
        assert furthest(packed, plain) < RELATIVE
    assert all(not g.any() for g in packed[2].values()) == (masked == "all")


def test_a_prompt_is_computed_once(make):
    trainer = make(freeze_vision=True, freeze_audio=True)
    inputs = batch_of(trainer)
    trainer.scorer._verified = 1000
    sizes = []
    hook = base_of(trainer.model).language_model.register_forward_hook(
        lambda _, args, kwargs, out: sizes.append(out.last_hidden_state.shape[:2].numel()), with_kwargs=True
    )
    passes(trainer, inputs, True)
    hook.remove()
    distinct = {row.prompt.identity: len(row.prompt.input_ids) - 1 for row in inputs["rows"]}
    assert sizes == [sum(distinct.values()) + int(inputs["completion_mask"].sum())] * 2


MUTANTS = {
    "positions start anew": lambda: mock.patch.object(
        Family, "positions", lambda family, head, ids, media: torch.arange(len(ids)).expand(3, -1)
    ),
    "a segment is another's": lambda: mock.patch.object(
        packing.PackedRows,
        "unpack",
        lambda self, values, shape: values.new_zeros(shape).index_put(
            (self.rows.flip(0), self.columns.flip(0)), values[0, self.places]
        ),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_shows(make, name):
    trainer = make(agreement="off")
    inputs = batch_of(trainer)
    plain = passes(trainer, inputs, False)
    with MUTANTS[name](), mock.patch.object(Scorer, "_verify"):
        assert furthest(passes(trainer, inputs, True), plain) > 100 * RELATIVE


@pytest.mark.parametrize("implementation", ["one block", "shifted"])
def test_a_wrong_mask_shows(make, implementation):
    """Every token sees all before it; or segments see one token less of the prompt."""
    trainer = make(agreement="off")
    inputs = batch_of(trainer)
    plain = passes(trainer, inputs, False)

    def layout(groups):
        if implementation == "one block":
            return PackedLayout(tuple(PackedGroup(g.prompt + sum(g.segments[:-1]), g.segments[-1:]) for g in groups))
        return PackedLayout(tuple(PackedGroup(g.prompt - 1, (1 + g.segments[0], *g.segments[1:])) for g in groups))

    with mock.patch.object(packing, "PackedLayout", layout), mock.patch.object(Scorer, "_verify"):
        assert furthest(passes(trainer, inputs, True), plain) > 100 * RELATIVE


def test_the_blocks_are_the_rule():
    """The attention over blocks equals one dense attention under `PackedLayout.sees`."""
    layout = PackedLayout((PackedGroup(5, (3, 1, 4)), PackedGroup(0, (2, 2)), PackedGroup(7, (6,))))
    module = torch.nn.Module()
    module.num_key_value_groups, module.is_causal = 2, True
    torch.manual_seed(0)
    query = torch.randn(1, 4, layout.size, 8, dtype=torch.float64)
    key, value = (torch.randn(1, 2, layout.size, 8, dtype=torch.float64) for _ in range(2))
    ours, _ = packed_attention.shared_prompt_attention(module, query, key, value, layout)
    places = torch.arange(layout.size)
    dense = layout.sees()(0, 0, places[:, None], places[None])
    theirs, _ = packed_attention.sdpa_attention_forward(module, query, key, value, dense[None, None])
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_without_a_layout_the_attention_is_the_models_own(tiny, make):
    """Bit for bit: what `share_prompt` prepares changes nothing elsewhere, generation included."""
    shared, plain = make(), make(share_prompt="off")
    assert base_of(shared.model).language_model.config._attn_implementation != "sdpa"
    ids = torch.randint(10, 300, (3, 9))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    for keywords in ({"attention_mask": mask}, {}):
        ours, theirs = (t.model(input_ids=ids, **keywords).logits for t in (shared, plain))
        assert torch.equal(ours, theirs)
    ours, theirs = (
        t.model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=5, do_sample=False)
        for t in (shared, plain)
    )
    assert torch.equal(ours, theirs)


def test_the_saved_model_knows_nothing_of_it(make, tmp_path):
    make().model.save_pretrained(tmp_path / "saved")
    assert base_of(load_model(str(tmp_path / "saved"))).language_model.config._attn_implementation == "sdpa"
    assert "shared_prompt" not in (tmp_path / "saved" / "config.json").read_text()


def test_groups_stay_together_and_are_shuffled(make):
    trainer = make(num_generations=3, steps_per_generation=4, per_device_train_batch_size=6)
    trainer.model.train()
    torch.manual_seed(1)
    trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    names = [row.name for batch in trainer._buffered_inputs for row in batch["rows"]]
    assert len(names) == 24
    groups = names[::3]
    assert names == [name for name in groups for _ in range(3)]
    assert groups != sorted(groups)


def test_it_turns_itself_off_when_the_scores_differ(make, caplog):
    """A wrong packing is found on the first batch, named, and not used; `verify` stops instead."""
    with MUTANTS["positions start anew"](), caplog.at_level(logging.WARNING):
        trainer = make()
        trainer.train()
        assert not trainer.scorer.shares
        assert "share_prompt: off" in caplog.text
        assert "differ by" in caplog.text
        with pytest.raises(RuntimeError, match="share_prompt: packed and plain log-probabilities differ"):
            make(share_prompt="verify").train()


def refuse(*args, **kwargs):
    raise MediaError("row 'row2': its prompt ends in media")


def fail(*args, **kwargs):
    raise RuntimeError("no kernel for this shape")


BROKEN = {
    "packing": ("omni_grpo.scoring.scorer.pack_rows", refuse, "cannot be packed: MediaError.*row2"),
    "positions": ("omni_grpo.families.Family.positions", fail, "cannot be packed: RuntimeError.*no kernel"),
    "mask": ("omni_grpo.scoring.packed_attention._starts", fail, "cannot be scored: RuntimeError.*no kernel"),
}


@pytest.mark.parametrize(("target", "raises", "reason"), BROKEN.values(), ids=BROKEN)
def test_it_turns_itself_off_when_packing_raises(make, caplog, target, raises, reason):
    """Said once, with the reason, and the run trains as without sharing; `verify` stops. Mutant: the error goes through."""
    plain = make(share_prompt="off")
    plain.train()
    with mock.patch(target, raises), caplog.at_level(logging.WARNING):
        trainer = make()
        trainer.train()
        assert not trainer.scorer.shares
        [said] = [r.getMessage() for r in caplog.records if "share_prompt: off" in r.getMessage()]
        assert re.search(reason, said)
        with pytest.raises(RuntimeError, match=f"share_prompt: .*{reason}"):
            make(share_prompt="verify").train()
    ours, theirs = ([log["loss"] for log in t.state.log_history if "loss" in log] for t in (trainer, plain))
    assert ours == pytest.approx(theirs, abs=1e-5)


def test_it_turns_itself_off_in_the_middle_of_a_run(make, caplog):
    """Rows that come later may be the first that cannot be packed; nothing of theirs is longer than what was verified."""
    pack, seen = packing.pack_rows, []

    def later(*args):
        seen.append(args)
        return refuse() if len(seen) > 3 else pack(*args)

    with mock.patch("omni_grpo.scoring.scorer.pack_rows", later), caplog.at_level(logging.WARNING):
        trainer = make(max_steps=4, per_device_train_batch_size=8, steps_per_generation=1)
        trainer.train()
    assert len(seen) == 4 and not trainer.scorer.shares and trainer.state.global_step == 4
    assert "cannot be packed" in caplog.text


def test_processes_go_one_way_when_rows_of_one_cannot_be_packed(make):
    """Mutant: this process packs on while the other does not, and under ZeRO-3 both wait forever."""
    trainer = make()
    inputs = batch_of(trainer)
    with mock.patch.object(trainer.accelerator, "gather", lambda mine: torch.cat([mine, torch.tensor([[5, 1]])])):
        assert (
            trainer.scorer._packed(trainer.model, Batch([row.prompt for row in inputs["rows"]], *whole(inputs)))
            is None
        )
    assert not trainer.scorer.shares


def whole(inputs):
    """Ids, mask and the completions' columns of a micro-batch."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    return ids, mask, inputs["completion_ids"].size(1)


def test_attention_without_blocks_is_named(make, caplog):
    """A model with another attention trains all the same, row by row, and `verify` refuses it."""
    trainer = make(attention="eager")
    assert not trainer.scorer.shares
    assert "attention 'eager' takes no blocks" in caplog.text
    trainer.train()
    with pytest.raises(RuntimeError, match="takes no blocks"):
        make(attention="eager", share_prompt="verify")


def test_flex_attention_is_given_the_same_rule():
    """FlexAttention under its block mask equals our attention over blocks."""
    layout = PackedLayout((PackedGroup(5, (3, 1, 4)), PackedGroup(0, (2, 2)), PackedGroup(150, (6, 7))))
    module = torch.nn.Module()
    module.is_causal = True
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, layout.size, 16) for _ in range(3))
    ours, _ = packed_attention.shared_prompt_attention(module, query, key, value, layout)
    with packed_attention.packed_as(layout):
        block_mask = packed_attention._flex_mask(device="cpu")
    theirs = flex_attention(query, key, value, block_mask=block_mask).transpose(1, 2)
    torch.testing.assert_close(ours, theirs)


def test_longer_batches_are_verified_again(make):
    trainer = make()
    inputs = batch_of(trainer)
    trainer.scorer._verified = 0
    ways, one_pass = [], Scorer._pass

    def recorded(self, model, batch, packed, **asked):
        ways.append("plain" if packed is None else "packed")
        return one_pass(self, model, batch, packed, **asked)

    with mock.patch.object(Scorer, "_pass", recorded):
        for kept in (6, 6, 12, 6):
            ids, mask = (
                torch.cat([inputs[f"prompt_{name}"], inputs[f"completion_{name}"][:, :kept]], dim=1)
                for name in ("ids", "mask")
            )
            trainer.scorer(trainer.model, Batch([row.prompt for row in inputs["rows"]], ids, mask, kept))
    assert ways == ["plain", "packed", "packed", "packed", "plain", "packed", "packed", "packed"]


@pytest.mark.parametrize("sharing", ["auto", "verify"])
def test_training_follows_the_plain_path(make, sharing):
    """Two iterations over buffered batches with a reference: the same losses and parameters, to rounding."""
    runs = []
    for mode in (sharing, "off"):
        trainer = make(
            share_prompt=mode,
            beta=0.05,
            num_iterations=2,
            max_steps=4,
            per_device_train_batch_size=8,
            steps_per_generation=1,
            learning_rate=1e-4,
        )
        trainer.train()
        runs.append(trainer)
    ours, theirs = ([log["loss"] for log in t.state.log_history if "loss" in log] for t in runs)
    assert ours == pytest.approx(theirs, abs=1e-5)
    for (name, a), b in zip(runs[0].model.named_parameters(), runs[1].model.parameters(), strict=True):
        assert (a - b).abs().max() < 2e-5, name
