# SPDX-License-Identifier: Apache-2.0
"""OmniGRPOTrainer: the parent's numbers where there are no media, every medium in every pass where there are."""

from __future__ import annotations

import dataclasses
from unittest import mock

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer

from offline_wandb import offline_wandb
from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder
from omni_grpo.data.dataset import to_dataset
from omni_grpo.data.encoding.encoder import prompt_key
from omni_grpo.data.encoding.inputs import collate_media
from omni_grpo.data.media.settings import MediaError
from omni_grpo.data.rows.loading import load_examples
from omni_grpo.families import base_of, family_of_processor
from omni_grpo.model.loading import copy_weights, language_model_targets, load_model, load_processor
from omni_grpo.rollout.constrained.head import exclude_tokens
from omni_grpo.rollout.sampler import cpu_threads
from omni_rewards import answer_reward, section_format_reward
from small_runs import SMALL_RUN, length_reward


def arguments(cls, folder, **overrides):
    fields = {
        **SMALL_RUN,
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_generations": 4,
        "max_completion_length": 8,
        "max_steps": 4,
    }
    return cls(**{**fields, **overrides})


@pytest.fixture
def make(tiny, settings, mixed, tmp_path):
    """A trainer of the tiny model on the mixed rows; keyword arguments override the configuration."""

    def build(dataset=mixed, rewards=(length_reward,), model=None, peft_config=None, **overrides):
        return OmniGRPOTrainer(
            model or load_model(tiny),
            list(rewards),
            arguments(OmniGRPOConfig, tmp_path, **overrides),
            dataset,
            encoder=PromptEncoder(load_processor(tiny), settings),
            peft_config=peft_config,
        )

    return build


def logged(trainer, key):
    return [log[key] for log in trainer.state.log_history if key in log]


def roll_media(trainer):
    """The mutant: each row is given its neighbour's media, of the same size and place."""
    original = OmniGRPOTrainer._generate_and_score_completions

    def shifted(self, inputs):
        output = original(self, inputs)
        by_size = {}
        for i, row in enumerate(output["rows"]):
            by_size.setdefault(tuple(sorted(row.prompt.counts.items())), []).append(i)
        prompts = [row.prompt for row in output["rows"]]
        for places in by_size.values():
            shown = [prompts[i] for i in places]
            step = self.num_generations  # past the row's own group, whose media are the same
            for i, other in zip(places, shown[step:] + shown[:step], strict=True):
                output["rows"][i].prompt = dataclasses.replace(prompts[i], media=other.media, features=other.features)
        return output

    return mock.patch.object(OmniGRPOTrainer, "_generate_and_score_completions", shifted)


@pytest.fixture(scope="module")
def same_size(mixed_file):
    """Eight rows of video with sound: four different clips, so that shifted media meet rows that they fit."""
    rows = [e for e in load_examples(mixed_file) if len(e.media) == 1 and e.media[0].use_audio]
    examples = []
    for k in range(4):
        item = type(rows[0].media[0])("video", rows[0].media[0].path.replace("clip0", f"clip{k}"), True)
        examples.append(type(rows[0])(f"v{k}", rows[0].problem, "yes_no", "yes", media=(item,)))
    return to_dataset(examples, "short")


@pytest.mark.parametrize("credit_map", ["uniform", "paper"])
def test_text_only_rows_train_bit_equal_to_trl(tiny, make, tmp_path, credit_map):
    """Four steps, then every parameter equals that of the parent class given the same suppressed ids, in both passes."""
    prompts = [[{"role": "user", "content": f"Question {k}: does the voice agree?"}] for k in range(8)]
    dataset = Dataset.from_dict({"prompt": prompts})
    processor = load_processor(tiny)
    parent = GRPOTrainer(
        load_model(tiny),
        length_reward,
        arguments(
            GRPOConfig,
            tmp_path / "parent",
            generation_kwargs={"suppress_tokens": family_of_processor(processor).control_ids(processor)},
        ),
        dataset,
        processing_class=processor,
    )
    exclude_tokens(parent.model, family_of_processor(processor).control_ids(processor))  # sampled and scored alike
    parent.train()  # before ours is made: making a trainer seeds the sampling
    ours = make(dataset, credit_map=credit_map, share_prompt="off")
    ours.train()
    moved = 0
    before = load_model(tiny).state_dict()
    for name, theirs in parent.model.state_dict().items():
        assert torch.equal(theirs, ours.model.state_dict()[name]), name
        moved += not torch.equal(theirs, before[name])
    assert moved > 20, "nothing was trained"


def test_kl_is_exactly_zero_at_learning_rate_zero(make):
    """Policy and reference are equal, so any KL means that a row met other media in one of the two passes."""
    trainer = make(learning_rate=0.0, beta=0.1, steps_per_generation=4, shuffle_dataset=True)
    trainer.train()
    assert logged(trainer, "kl") == [0.0] * 4


def test_shifted_media_show_in_the_kl(make, same_size):
    with roll_media(None):
        fields = {"generation_batch_size": 16, "steps_per_generation": None, "agreement": "off"}
        trainer = make(same_size, learning_rate=0.0, beta=0.1, **fields)
        trainer.train()
    assert all(kl > 0 for kl in logged(trainer, "kl"))


def plain_logps(model, row, completion_ids, temperature, never):
    """Log-probabilities of one completion after its unpadded prompt, by the model's own forward; `never` are not sampled."""
    ids = torch.tensor([row.input_ids + completion_ids])
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **collate_media([row])).logits
    logits = logits[0, len(row.input_ids) - 1 : -1].index_fill(-1, torch.tensor(never), -torch.inf)
    logps = (logits / temperature).log_softmax(-1)
    return logps.gather(-1, torch.tensor(completion_ids)[:, None])[:, 0]


def scored_rows(trainer):
    """Rows, completions and the log-probabilities that the loss is made of, from one real micro-batch."""
    seen = {}
    original = trainer._get_per_token_logps_and_entropies

    def spy(model, input_ids, attention_mask, logits_to_keep, *args, **kwargs):
        output = original(model, input_ids, attention_mask, logits_to_keep, *args, **kwargs)
        if torch.is_grad_enabled() and not seen:
            seen.update(ids=input_ids, mask=attention_mask, keep=logits_to_keep, logps=output[0].detach())
            seen["rows"] = trainer._rollout.prompts
        return output

    trainer._get_per_token_logps_and_entropies = spy
    trainer.train()
    for i, row in enumerate(seen["rows"]):
        kept = seen["mask"][i, -seen["keep"] :].bool()
        yield row, seen["ids"][i, -seen["keep"] :][kept].tolist(), seen["logps"][i][kept]


def test_scoring_equals_a_plain_forward_of_each_row(make, tiny):
    trainer = make(max_steps=1, learning_rate=0.0, temperature=0.9)
    model = load_model(tiny).eval()
    for row, completion, logps in scored_rows(trainer):
        wanted = plain_logps(model, row, completion, 0.9, trainer.sampler.forbidden)
        torch.testing.assert_close(logps, wanted, rtol=0, atol=2e-6)


def test_shifted_media_show_in_scoring(make, tiny, same_size):
    """Power of the test above. The names of the rows stay, their features are a neighbour's."""
    with roll_media(None):
        fields = {"generation_batch_size": 16, "steps_per_generation": None, "agreement": "off"}
        trainer = make(same_size, max_steps=1, learning_rate=0.0, **fields)
        scored = list(scored_rows(trainer))
    model, encoder = load_model(tiny).eval(), trainer.encoder
    true = {row["id"]: encoder(row["prompt"], row["id"]) for row in same_size}
    gaps = [
        (logps - plain_logps(model, true[r.name], c, 1.0, trainer.sampler.forbidden)).abs().max()
        for r, c, logps in scored
    ]
    assert max(gaps) > 1e-4


@pytest.mark.parametrize("blank", ["audio", "video"])
def test_silence_and_grey_change_the_scores(make, tiny, same_size, blank):
    """What a scorer that lost the modality would compute differs from what we compute."""
    from omni_grpo.data.encoding.prompt import encode_prompt

    trainer = make(same_size, max_steps=1, learning_rate=0.0)
    model, processor = load_model(tiny).eval(), load_processor(tiny)
    prompts = {row["id"]: row["prompt"] for row in same_size}
    for row, completion, logps in scored_rows(trainer):
        lost = encode_prompt(processor, prompts[row.name], trainer.encoder.settings, row.name, blank=(blank,))
        assert (logps - plain_logps(model, lost, completion, 1.0, trainer.sampler.forbidden)).abs().max() > 1e-4


def test_every_pass_sees_the_media(make, mixed):
    """One sampling pass, one reference pass and one policy pass a micro-batch, each with its rows' media."""
    fields = {"gradient_accumulation_steps": 2, "steps_per_generation": 2, "share_prompt": "off"}
    trainer = make(max_steps=1, beta=0.1, **fields, causal_probe_steps=0)
    trainer.train()
    policy, reference = trainer.media_embedder, trainer.scorer.reference_media
    assert +reference.placed
    assert policy.placed == {m: 2 * n for m, n in reference.placed.items()}, "sampling and loss, once each"


def test_each_distinct_prompt_is_encoded_once(make, mixed):
    trainer = make(max_steps=4, generation_batch_size=8, steps_per_generation=None)
    trainer.train()
    distinct = {prompt_key(prompt) for prompt in mixed["prompt"]}
    assert trainer.encoder.encoded == len(distinct), "8 rows in 4 steps of 2 prompts, 4 completions each"


def test_sampling_has_its_own_threads(make):
    """Mutants: the field is ignored; the update keeps the threads of sampling; an error leaves them behind."""
    before, passes = torch.get_num_threads(), []
    trainer = make(sampling_threads=1, max_steps=1)
    trainer.model.register_forward_pre_hook(
        lambda *_: passes.append((torch.is_grad_enabled(), torch.get_num_threads()))
    )
    try:
        torch.set_num_threads(2)
        trainer.train()
        assert {threads for learning, threads in passes if learning} == {2}, "the update has them all"
        assert (False, 1) in passes and torch.get_num_threads() == 2
        with pytest.raises(MediaError), cpu_threads(1):
            raise MediaError("a file that cannot be read")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ValueError, match="sampling_threads: must be at least 1, got 0"):
        make(sampling_threads=0)


def test_media_ids_are_never_sampled(make, tiny):
    """The head is bent towards every media id; unsuppressed, the model samples them at once."""
    processor = load_processor(tiny)
    forbidden = family_of_processor(processor).control_ids(processor)
    model = load_model(tiny)
    original = model.lm_head.forward

    def bent(hidden):
        logits = original(hidden)
        logits[..., forbidden] += 50.0
        return logits

    model.lm_head.forward = bent
    trainer = make(model=model, max_steps=1, learning_rate=0.0)
    sampled: list[int] = []
    with mock.patch.object(
        GRPOTrainer,
        "_calculate_rewards",
        lambda self, i, p, c, ids: sampled.extend(t for row in ids for t in row) or torch.zeros(len(ids), 1),
    ):
        trainer.train()
    assert sampled
    assert not set(sampled) & set(forbidden)
    ids = torch.tensor([[35, 36, 37]])
    free = model.generate(input_ids=ids, attention_mask=ids * 0 + 1, do_sample=False, max_new_tokens=2)
    assert set(free[0, 3:].tolist()) <= set(forbidden), "unsuppressed, the bent head samples them at once"


@pytest.mark.parametrize("rolled", [("prompt_ids", "prompt_mask"), ("rows",)], ids=["prompts", "media"])
def test_a_micro_batch_with_anothers_prompt_or_media_is_refused(make, mixed, same_size, rolled):
    """
    Media of one size change places between rows of one question, which every count of placeholders takes. Mutants: no
    check, which leaves those; prompts alone are compared, or completions alone.
    """
    trainer = make(same_size if rolled == ("rows",) else mixed, max_steps=1)
    original = OmniGRPOTrainer._generate_and_score_completions

    def swapped(self, inputs):
        output, past = original(self, inputs), self.num_generations
        for name in rolled:
            values = output[name]
            output[name] = values.roll(past, 0) if isinstance(values, torch.Tensor) else values[past:] + values[:past]
        return output

    with (
        mock.patch.object(OmniGRPOTrainer, "_generate_and_score_completions", swapped),
        pytest.raises(MediaError, match=r"row '(row|v)\d': the micro-batch pairs its media with another row's tokens"),
    ):
        trainer.train()


def test_lora_stays_out_of_the_towers(make):
    trainer = make(max_steps=2, peft_config=LoraConfig(r=4, target_modules=language_model_targets(None)), beta=0.1)
    trainer.train()
    trained = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
    assert trained
    assert all("language_model" in name and "lora" in name for name in trained)
    plain = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    from peft import get_peft_model

    reached = [n for n, p in get_peft_model(trainer.model.unload(), plain).named_parameters() if p.requires_grad]
    assert any("audio_tower" in name for name in reached), "plain names reach into the audio tower: the trap is real"


@pytest.mark.parametrize(("vision", "audio"), [(True, False), (False, True), (True, True)])
def test_frozen_towers_do_not_move(make, tiny, vision, audio):
    trainer = make(max_steps=2, freeze_vision=vision, freeze_audio=audio)
    trainer.train()
    before, after = base_of(load_model(tiny)), base_of(trainer.model)
    for tower, frozen in (("visual", vision), ("audio_tower", audio)):
        pairs = zip(getattr(before, tower).parameters(), getattr(after, tower).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) == frozen


def test_the_reference_is_the_policys_own_start(make, tiny):
    """Also for weights that stand in no checkpoint; TRL would load them by name and get others."""
    model = load_model(tiny)
    with torch.no_grad():
        model.lm_head.weight.add_(0.01)
    start = copy_weights(model).state_dict()
    trainer = make(model=model, beta=0.1, max_steps=2)
    trainer.train()
    assert all(torch.equal(v, start[k]) for k, v in trainer.ref_model.state_dict().items())
    assert any(not torch.equal(v, start[k]) for k, v in trainer.model.state_dict().items())


def test_checkpoints_fall_on_generation_borders(make, tmp_path):
    """One generated batch serves 2 iterations of 2 steps: 4 steps. Saves asked for at every step wait for them."""
    make(
        max_steps=9,
        save_strategy="steps",
        save_steps=1,
        num_iterations=2,
        steps_per_generation=4,
        gradient_accumulation_steps=2,
    ).train()
    assert sorted(f.name for f in tmp_path.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-8", "checkpoint-9"]


def test_equal_rewards_are_seen_exactly(make):
    """With a weight such as 0.3 TRL's figure reads 0 although every group is constant."""
    trainer = make(
        rewards=[lambda completions, **kw: [0.7] * len(completions)], reward_funcs=["x.y"], reward_weights=[0.3]
    )
    trainer.train()
    assert logged(trainer, "frac_zero_variance_groups") == [1.0] * 4


def test_completions_table_shows_media_sections_and_rewards(make, tmp_path):
    import pandas as pd

    make(rewards=[answer_reward, section_format_reward], log_completions=True, num_completions_to_print=0).train()
    (table,) = [pd.read_parquet(f) for f in sorted((tmp_path / "completions").glob("*.parquet"))[-1:]]
    columns = {"prompt", "completion", "id", "media", "context", "think", "answer", "format", "advantage"}
    assert columns | {"answer_reward", "section_format_reward"} <= set(table.columns)
    with_clip = table[table["media"].str.contains("clip")]
    assert len(with_clip)
    assert all("Does the voice" in str(p) for p in table["prompt"])


def test_a_run_of_mixed_interleaving_is_refused(tiny, settings, mixed_file, tmp_path):
    """`use_audio_in_video` is one flag for a forward pass: a video without interleaved sound has no place beside one."""
    interleaved = dataclasses.replace(settings, load_audio_from_video=True)
    dataset = to_dataset(load_examples(mixed_file), "short", load_audio_from_video=True)

    def trainer(rows):
        return OmniGRPOTrainer(
            load_model(tiny),
            length_reward,
            arguments(OmniGRPOConfig, tmp_path, learning_rate=0.0, beta=0.1, max_steps=2),
            rows,
            encoder=PromptEncoder(load_processor(tiny), interleaved),
        )

    sounding = trainer(dataset.select([0, 6]))
    sounding.train()
    assert logged(sounding, "kl") == [0.0, 0.0]
    with pytest.raises(MediaError, match="row3"):
        trainer(dataset.select([0, 3])).train()


def test_wandb_takes_the_table_offline(make, tmp_path):
    """wandb's tables want one type a column; rows of different media differ in theirs until they are made readable."""
    with offline_wandb(tmp_path):
        make(max_steps=2, log_completions=True, num_completions_to_print=0, report_to=["wandb", "tensorboard"]).train()
    tables = [f.read_text() for f in tmp_path.glob("wandb/offline-run-*/files/media/table/*.json")]
    assert any("[video clip" in t for t in tables)
    assert any("Does the voice agree" in t for t in tables)
    assert list(tmp_path.glob("runs/**/events.out.tfevents.*")) or list(tmp_path.rglob("events.out.tfevents.*"))
