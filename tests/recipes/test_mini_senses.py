# SPDX-License-Identifier: Apache-2.0
"""How the mini model learns to see and to hear: its sentences, its plain chat, and the anchors of its towers."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch
import yaml
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from omni_demo import english
from omni_demo.config import DemoDataConfig
from omni_demo.generate import generate
from omni_demo.grading import claims_of, grade_context, grade_reasoning
from omni_demo.mini.anchor import NEW_LAYERS, AnchorConfig, AnchorTrainer, clips_of, shown_of
from omni_demo.mini.chat import HELD_OUT, questions
from omni_demo.targets import FACES, INTENTS, QUESTIONS, SHARED, VOICES, solution_of
from omni_grpo import PromptEncoder
from omni_grpo.data.dataset import to_dataset
from omni_grpo.data.rows.loading import load_examples
from omni_grpo.families import base_of, family_of
from omni_grpo.model.loading import load_model, load_processor
from script_runs import COMMON, ROOT, start
from small_runs import SMALL_RUN

SIDES = st.tuples(st.sampled_from([*FACES, None]), st.sampled_from([*VOICES, None])).filter(any)


@given(SIDES, st.integers())
def test_a_sentence_is_read_as_it_is_meant(shown, seed):
    """
    By the demo's judge, which grades it: what is there is claimed of its side, and nothing else is. Mutants: a form that
    names no side ("somebody looks happy"); a near word that is another label; the sides' words exchanged.
    """
    face, voice = shown
    rng = random.Random(seed)
    context = english.context_of(face, voice, rng)
    assert claims_of(context) == {side: {word} for side, word in (("face", face), ("voice", voice)) if word}
    assert grade_context(context, english.context_of(face, voice, rng), ("face", "voice")) == 5
    assert context[0].isupper() and context.endswith(".") and " a a" not in context and " a i" not in context


@given(st.sampled_from(FACES), st.sampled_from(VOICES), st.integers())
def test_a_thought_rests_on_its_context_and_leads_to_its_answer(face, voice, seed):
    """Mutants: the verdicts exchanged; one side left out; another label as a near word."""
    rng = random.Random(seed)
    context = english.context_of(face, voice, rng)
    kinds = ["face", "voice"] + ["agreement"] * (face in SHARED and voice in SHARED)
    kinds += ["intent"] * ((voice, face) in INTENTS)
    for kind in kinds:
        answer = solution_of(kind, face, voice)
        thought = english.think_of(kind, face, voice, answer, rng)
        assert grade_reasoning(QUESTIONS[kind], context, thought, answer) == 5, (kind, context, thought)


@given(st.sampled_from(sorted(INTENTS)), st.booleans(), st.sampled_from(["agreement", "intent"]), st.integers())
def test_where_a_side_is_missing_the_thought_names_the_other_and_no_verdict(pair, no_face, kind, seed):
    voice, face = pair
    shown = (None, voice) if no_face else (face, None)
    thought = english.think_of(kind, *shown, "yes" if kind == "agreement" else INTENTS[pair], random.Random(seed))
    assert claims_of(thought) == ({"voice": {voice}} if no_face else {"face": {face}})
    assert "agree" not in thought


def test_forms_are_many():
    rng = random.Random(0)
    assert len({english.context_of("sad", "warm", rng) for _ in range(2000)}) > 1900
    assert len({english.think_of("intent", "amused", "cold", "joke", rng) for _ in range(1000)}) > 900


def test_what_is_asked_of_it_later_is_never_practised():
    asked = questions()
    assert len(set(asked)) == len(asked) > 500 and not set(asked) & set(HELD_OUT) and len(HELD_OUT) == 10


SMALL = DemoDataConfig(
    splits=("base", "perception", "sft"),
    wording="english",
    num_workers=1,
    frame_size_px=64,
    base_clips=24,
    perception_clips=12,
    sft_agreement=8,
    sft_intent=4,
    sft_face=6,
    sft_voice=6,
    base_mixes={"video+audio": 0.25, "image+audio": 0.25, "video": 0.25, "video+silence": 0.25},
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder of a small data set in English."""
    folder = tmp_path_factory.mktemp("english")
    generate(DemoDataConfig(**{**vars(SMALL), "output_dir": str(folder)}))
    return folder


def test_both_senses_are_practised_alike_and_tested_on_people_unseen(data):
    """Mutants: base's people in perception; a video that is watched in silence heard."""
    base, perception = (load_examples(data / f"{split}.jsonl") for split in ("base", "perception"))
    kinds = Counter(example.meta["kind"] for example in base)
    heard = sum(shown_of(clip)["voice"] != "" for clip in clips_of(base))
    assert kinds == {"face": 24, "voice": heard, "said": heard, "describe": 24} and heard == 12
    assert {example.meta["kind"] for example in perception} == {"face", "voice", "said"}
    assert not {e.meta["identity"] for e in base} & {e.meta["identity"] for e in perception}
    assert not {e.meta["phrase"] for e in base} & {e.meta["phrase"] for e in perception} - {None}
    for example in base:
        if example.meta["kind"] == "describe":
            shown = shown_of(example)
            assert (
                claims_of(example.solution).items() <= {s: {shown[s]} for s in ("face", "voice") if shown[s]}.items()
            )
    assert all(example.target for example in load_examples(data / "sft.jsonl"))


@pytest.fixture
def anchors(tiny, settings, data, tmp_path):
    """A trainer of anchors, with fields of its own."""

    def build(**fields):
        def dataset(split):
            clips = clips_of(load_examples(data / f"{split}.jsonl"))
            rows = to_dataset(clips, "short")
            for name in ("face", "voice", "phrase"):
                rows = rows.add_column(name, [shown_of(clip)[name] for clip in clips])
            return rows

        args = AnchorConfig(**{**SMALL_RUN, "output_dir": str(tmp_path), "max_steps": 1, **fields})
        encoder = PromptEncoder(load_processor(tiny), settings)
        return AnchorTrainer(load_model(tiny), args, dataset("base"), encoder, eval_dataset=dataset("perception"))

    return build


def test_towers_learn_and_words_stay(anchors):
    """Mutants: the language model's weights left free; one group for all, which gives towers the projectors' rate."""
    trainer = anchors(max_steps=2, learning_rate=1e-2, tower_learning_rate=0.0, per_device_train_batch_size=8)
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    moved = {n for n, p in trainer.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved and all(name.startswith(NEW_LAYERS) for name in moved)
    assert any("audio" in n for n in moved) and any("visual" in n for n in moved)


def gradient_of(trainer, rows):
    """Norm of each tower's gradient for these clips."""
    trainer.model.zero_grad()
    trainer.compute_loss(trainer.model, trainer.data_collator(rows)).backward()
    family, base = family_of(trainer.model), base_of(trainer.model)
    return {
        m: sum(p.grad.abs().sum().item() for t in family.tower(base, m) for p in t.parameters() if p.grad is not None)
        for m in ("audio", "video")
    }


def test_what_a_clip_does_not_show_pulls_on_nothing(anchors):
    """Gradient exactly zero. Mutants: silence drawn to the first word; a grey picture seen."""
    trainer = anchors()
    rows: list = list(trainer.train_dataset)
    silent = [row for row in rows if not row["voice"]][:2]
    spoken = [row for row in rows if row["voice"]][:2]
    found = gradient_of(trainer, silent)
    assert found["audio"] == 0 and found["video"] > 0
    found = gradient_of(trainer, [{**row, "face": ""} for row in spoken])
    assert found["audio"] > 0 and found["video"] == 0


def test_the_loss_is_the_mean_of_its_clips(anchors):
    """Padding has no influence. Mutants: sounds read beyond their end; the batch's longest sound for all."""
    trainer = anchors()
    rows: list = [row for row in trainer.train_dataset if row["voice"] and row["face"]][:4]
    with torch.no_grad():
        whole = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
        parts = [trainer.compute_loss(trainer.model, trainer.data_collator([row])) for row in rows]
    assert whole.item() == pytest.approx(sum(p.item() for p in parts) / len(parts), rel=1e-3)


def test_words_come_nearer(anchors):
    """It learns its clips by heart. Mutant: the sign of the loss."""
    trainer = anchors(max_steps=60, learning_rate=1e-2, tower_learning_rate=3e-3, per_device_train_batch_size=24)
    trainer.train()
    metrics = trainer.evaluate(trainer.train_dataset)
    assert min(metrics["eval_face"], metrics["eval_voice"]) >= 0.8, metrics
    assert isinstance(trainer.train_dataset, Dataset)


@pytest.fixture
def anchored(tiny, data, tmp_path):
    """Runs the entry script into a folder; its console."""

    def run(name, killed_at=None):
        fields = {
            **{name: value for name, value in COMMON.items() if name != "learning_rate"},
            "model_name_or_path": tiny,
            "output_dir": str(tmp_path / name),
            "train_file": str(data / "base.jsonl"),
            "validation_file": str(data / "perception.jsonl"),
            "max_steps": 6,
            "eval_strategy": "steps",
            "eval_steps": 3,
        }
        config = tmp_path / f"{name}.yaml"
        config.write_text(yaml.safe_dump(fields))
        return start(ROOT / "recipes/anchor_mini.py", "--config", str(config), killed_at=killed_at, timeout=200)

    return run


@pytest.mark.xdist_group("processes")
def test_anchors_that_were_killed_twice_go_on_to_the_same_weights(anchored, tmp_path):
    """And a finished run is not run again. Mutants: rows drawn anew; the optimiser's groups loaded in another order."""
    undisturbed = anchored("one")
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert "anchors on 24 clips" in undisturbed.stdout and "next: python recipes/" in undisturbed.stdout
    assert anchored("two", killed_at=3).returncode != 0
    assert anchored("two", killed_at=5).returncode != 0
    assert anchored("two").returncode == 0
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert "done already" in anchored("two").stdout
