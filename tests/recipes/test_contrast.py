# SPDX-License-Identifier: Apache-2.0
"""Pairs: two rows that differ where it counts, sampled in one batch, whatever else is drawn; and their reward."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import islice
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trl.trainer.utils import RepeatSampler

from omni_demo.config import DemoDataConfig
from omni_demo.generate import fingerprint, generate
from omni_demo.questions import plan
from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder
from omni_grpo.data.dataset import load_sources, to_dataset
from omni_grpo.data.media.reader import read_media
from omni_grpo.data.media.settings import MediaSettings
from omni_grpo.data.rows.pairs import partners
from omni_grpo.data.rows.schema import DataError
from omni_grpo.experimental.contrast import PairedSampler, contrast_reward, paired_order
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.run.checkpoints import EpochOrder
from small_runs import SMALL_RUN, length_reward


def partner_list(pairs: int, singles: int) -> list[int | None]:
    """Rows 0 and 1 are a pair, and so on; those without a partner come last."""
    return [*(i ^ 1 for i in range(2 * pairs)), *[None] * singles]


@st.composite
def layouts(draw):
    """Partners of rows, an order of them, and an even size of chunks."""
    partner = partner_list(draw(st.integers(0, 12)), draw(st.integers(0, 9)))
    return partner, draw(st.permutations(range(len(partner)))), 2 * draw(st.integers(1, 4))


# The order


@given(layouts())
def test_no_chunk_divides_a_pair_and_no_row_is_lost(layout):
    """Mutants: a pair behind an odd number of singles; a single taken twice; the odd one left inside."""
    partner, order, size = layout
    found = paired_order(order, partner, size)
    assert sorted(found) == list(range(len(partner)))
    whole = [found[i : i + size] for i in range(0, len(found) - size + 1, size)]
    for chunk in whole:
        for place, row in enumerate(chunk):
            if partner[row] is not None:
                assert partner[row] in (chunk[max(place - 1, 0)], chunk[min(place + 1, size - 1)])


@given(layouts())
def test_it_keeps_the_order_that_was_drawn(layout):
    """Pairs come as their first members do, singles as they do; without pairs nothing changes."""
    partner, order, size = layout
    found = paired_order(order, partner, size)

    def by_first(rows):
        return list(dict.fromkeys(min(r, partner[r]) for r in rows if partner[r] is not None))

    assert by_first(found) == by_first(order)
    assert [r for r in found if partner[r] is None] == [r for r in order if partner[r] is None]
    assert paired_order(order, [None] * len(order), size) == list(order)


@given(layouts(), st.integers(0, 3), st.booleans())
def test_the_sampler_is_trls_over_pairs(layout, seed, shuffle):
    """The same repetition, length and number of draws; every batch holds both; the same rows but for the last few."""
    partner, _, size = layout
    stock = RepeatSampler(partner, 3, size, 2, shuffle, seed)
    ours = PairedSampler(RepeatSampler(partner, 3, size, 2, shuffle, seed), partner)
    for _ in range(2):  # epochs
        theirs, rows = list(stock), list(ours)
        assert len(rows) == len(theirs) == len(ours)
        for start in range(0, len(rows), 6 * size):
            batch = rows[start : start + 6 * size]
            assert batch[: 3 * size] == batch[3 * size :] and batch[::3] == [r for r in batch[::3] for _ in [0]]
            assert set(Counter(batch).values()) == {6}
            assert all(partner[row] in batch for row in batch if partner[row] is not None)
        if shuffle and not any(p is not None for p in partner) and len(partner) % 2 == 0:
            assert rows == theirs


def test_the_order_is_one_of_the_seed_and_a_resumed_run_goes_on_in_it():
    partner = partner_list(10, 4)
    make = lambda seed=0: PairedSampler(RepeatSampler(partner, 2, 4, 1, True, seed), partner)  # noqa: E731
    whole = make()
    epochs = [list(whole) for _ in range(3)]
    again = make()
    assert [list(again) for _ in range(3)] == epochs and list(make(1)) != epochs[0] != epochs[1]
    resumed = make()
    loader = torch.utils.data.DataLoader(range(len(partner)), batch_size=8, sampler=resumed)
    state = mock.Mock(epoch=2.3)
    EpochOrder().on_train_begin(None, state, None, train_dataloader=mock.Mock(batch_sampler=loader.batch_sampler))
    assert list(resumed) == epochs[2], "it draws what it skips"


# The rows


@pytest.fixture
def write(clips):
    """A file of rows on the test clips; each is given by its pair, clip and solution, and what else differs."""

    def written(*rows, name="pairs"):
        file = clips / f"{name}.jsonl"
        made = [
            {
                "id": f"{name}{i}",
                "problem": "Does the voice agree with the face?",
                "problem_type": "yes_no",
                "solution": solution,
                "media": [{"type": "video", "path": f"clip{clip}.mp4", "use_audio": True}],
                **({"pair": pair} if pair else {}),
                **(other[0] if other else {}),
            }
            for i, (pair, clip, solution, *other) in enumerate(rows)
        ]
        file.write_text("".join(json.dumps(row) + "\n" for row in made))
        return file

    return written


def test_good_pairs_load_also_over_two_files(write):
    first = write(("a", 0, "yes"), (None, 1, "no"), ("b", 2, "no"))
    second = write(("b", 3, "yes"), ("a", 1, "no"), name="more")
    examples = load_sources(f"{first},{second}")
    assert [e.pair for e in examples] == ["a", None, "b", "b", "a"]
    rows = to_dataset(examples, "short")
    assert partners(rows["pair"], rows["id"]) == [4, None, 3, 2, 0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", 0, "yes")], r"pair 'a': has 1 row \(pairs0\); give it to two"),
        ([("a", 0, "yes"), ("a", 1, "no"), ("a", 2, "no")], r"'a': has 3 rows \(pairs0, pairs1, pairs2\); give"),
        ([("a", 0, "yes"), ("a", 1, "yes")], r"rows 'pairs0' and 'pairs1'\): has one solution, 'yes'; choose media"),
        ([("a", 0, "yes"), ("a", 0, "no")], r"rows 'pairs0' and 'pairs1'\): shows the same media twice; exchange"),
        ([("a", 0, "yes"), ("a", 1, "no", {"problem": "Is it sad?"})], r"'pairs1'\): asks two questions"),
        ([(None, 0, "yes", {"pair": " "})], r"pair: expected a non-empty string"),
    ],
)
def test_what_is_no_pair_is_refused_with_its_rows(write, rows, message):
    with pytest.raises(DataError, match=message):
        load_sources(str(write(*rows)))


# The trainer

PAIRED = [("a", 0, "yes"), (None, 1, "yes"), ("b", 2, "no"), ("a", 1, "no"), ("b", 3, "yes"), (None, 2, "no")]


@pytest.fixture
def make(tiny, settings, write, tmp_path):
    def made(rows=PAIRED, model=None, **overrides):
        fields = {
            **SMALL_RUN,
            "output_dir": str(tmp_path),
            "per_device_train_batch_size": 4,
            "num_generations": 2,
            "max_completion_length": 4,
            "max_steps": 3,
            "contrast_pairs": True,
            "reward_funcs": ["x.length_reward"],
        }
        return OmniGRPOTrainer(
            model or load_model(tiny),
            [length_reward],
            OmniGRPOConfig(**{**fields, **overrides}),
            to_dataset(load_sources(str(write(*rows))), "short"),
            encoder=PromptEncoder(load_processor(tiny), settings),
        )

    return made


def test_a_run_meets_both_rows_of_a_pair_in_every_batch(make):
    """Over an epoch, with the loader that looks ahead."""
    trainer, batches = make(contrast_weight=0.5), []
    original = OmniGRPOTrainer._generate_and_score_completions

    def spy(self, inputs):
        batches.append([row["id"] for row in inputs])
        return original(self, inputs)

    with mock.patch.object(OmniGRPOTrainer, "_generate_and_score_completions", spy):
        trainer.train()
    columns = {**trainer._logs["rewards"], **trainer._logs["extra"]}
    assert len({len(values) for values in columns.values()}) == 1, (
        "what it asks of `answer_reward` is not logged again"
    )
    assert len(batches) == 3 and all(len(set(batch)) == 2 for batch in batches)
    assert sorted(sorted(set(batch)) for batch in batches) == [
        ["pairs0", "pairs3"],
        ["pairs1", "pairs5"],
        ["pairs2", "pairs4"],
    ]


@pytest.mark.parametrize(
    ("rows", "fields", "message"),
    [
        (PAIRED, {"per_device_train_batch_size": 6}, "a generation batch holds 3 prompts"),
        (PAIRED[1:2] * 4, {}, "no row of the training data has a `pair`"),
    ],
)
def test_what_pairs_cannot_fill_is_refused_at_the_start(make, rows, fields, message):
    """Before the model is loaded, which is not there. Mutant: found by the sampler, when the trainer is whole."""
    with pytest.raises(ValueError, match=message):
        make(rows, model="./nowhere", **fields)


def test_half_a_pair_in_the_training_data_is_refused(make):
    trainer = make()
    trainer.train_dataset = trainer.train_dataset.select([0, 1])
    with pytest.raises(DataError, match=r"pair 'a': has 1 row \(pairs0\)"):
        trainer.get_train_dataloader()


# The reward


def asked(trainer, answers, pair, ids, solution):
    texts = [f"<context>a</context><think>b</think><answer>{a}</answer>" for a in answers]
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    return contrast_reward(
        completions, pair=pair, id=ids, solution=solution, problem_type=["yes_no"] * len(texts)
    )  # fmt: skip


def test_it_wants_both_rows_answered(make):
    """Row x is a, whose answer is yes; y its partner, no; z stands alone; w's partner is not in the batch."""
    trainer = make(contrast_weight=0.5)
    assert trainer.reward_func_names == ["length_reward", "contrast_reward"]
    assert trainer.reward_weights.tolist() == [1.0, 0.5]
    ids, pair = [*"xxxx", *"yyyy", "z", "w"], [*["a"] * 8, None, "b"]
    solution = [*["yes"] * 4, *["no"] * 4, "yes", "yes"]
    shortcut = asked(trainer, ["yes"] * 10, pair, ids, solution)
    assert shortcut == [0.0] * 8 + [None, None], "always yes: right on x, and earns nothing"
    honest = asked(trainer, ["yes", "no", "yes", "yes", "no", "yes", "no", "yes", "yes", "yes"], pair, ids, solution)
    assert honest == [0.5, 0, 0.5, 0.5, 0.75, 0, 0.75, 0, None, None]
    order = [7, 2, 9, 0, 5, 1, 8, 3, 6, 4]
    answers = ["yes", "no", "yes", "yes", "no", "yes", "no", "yes", "yes", "yes"]
    mixed = asked(trainer, *([values[i] for i in order] for values in (answers, pair, ids, solution)))
    assert mixed == [honest[i] for i in order]


# The demo's data

SMALL = DemoDataConfig(
    num_workers=1,
    frame_size_px=64,
    splits=("rl",),
    rl_agreement=8,
    rl_intent=8,
    rl_face=0,
    rl_voice=0,
    rl_task_mixes={"video+audio": 0.5, "video": 0.5},
)


def paired_rows(config, split):
    rows, clips = plan(config, split)
    by_stem = {clip.stem: clip for clip in clips}
    pairs: dict[str, list] = {}
    for row in rows:
        if "pair" in row:
            stem = row["media"][0]["path"].rpartition(".")[0]
            pairs.setdefault(row["pair"], []).append((row, by_stem[stem]))
    return pairs


@pytest.mark.parametrize("split", ["rl", "test"])
def test_the_demos_pairs_differ_in_the_voice_alone(split):
    """The same face, person, background, motion and question; another voice, another answer; half of each answer."""
    config = DemoDataConfig(contrast_splits=(split,))
    pairs = paired_rows(config, split)
    kinds = Counter(a["meta"]["kind"] for (a, _), _ in pairs.values())
    assert set(kinds) == {"agreement", "intent"}
    for (a, one), (b, other) in pairs.values():
        assert a["solution"] != b["solution"] and a["problem"] == b["problem"] and a["media"] != b["media"]
        assert one.voice != other.voice and one.stem != other.stem
        shown = {"stem": "", "voice": None, "phrase": None}
        assert replace(one, **shown) == replace(other, **shown)
        assert one.phrase == other.phrase or a["meta"]["kind"] == "intent", "warm and cold words are the voice's own"
    two_sided = sum(r["meta"]["mix"] in ("video+audio", "image+audio") for r in plan(config, split)[0]
                    if r["meta"]["kind"] in kinds)  # fmt: skip
    assert 2 * len(pairs) == two_sided


def test_without_the_option_the_demos_rows_and_fingerprints_are_what_they_were():
    """With it, the other splits are; and of the split, all but the looks of those that came second, and `pair`."""
    plain, config = DemoDataConfig(), DemoDataConfig(contrast_splits=("rl",))
    for split in ("sft", "validation", "test"):
        assert plan(plain, split) == plan(config, split)
        assert fingerprint(plain, split) == fingerprint(config, split)
    assert fingerprint(plain, "rl") != fingerprint(config, "rl")
    before, after = plan(plain, "rl")[0], plan(config, "rl")[0]
    assert not any("pair" in row for row in before)
    for a, b in zip(before, after, strict=True):
        same = ("id", "problem", "solution", "media", "problem_type")
        assert [a[key] for key in same] == [b[key] for key in same]
        assert [a["meta"][key] for key in ("face", "voice", "mix")] == [
            b["meta"][key] for key in ("face", "voice", "mix")
        ]


def test_the_demos_pairs_load_and_show_one_face(tmp_path):
    config = replace(SMALL, output_dir=str(tmp_path), contrast_splits=("rl",))
    generate(config)
    examples = load_sources(str(tmp_path / "rl.jsonl"))
    pairs: dict[str, list] = {}
    for example in examples:
        if example.pair:
            pairs.setdefault(example.pair, []).append(example)
    assert len(pairs) == 6
    for one, other in islice(pairs.values(), 2):
        paths, settings = [e.media[0].path for e in (one, other)], MediaSettings(num_frames=4)
        faces, others = (read_media("video", path, settings).frames for path in paths)
        sound, heard = (read_media("audio", path, settings) for path in paths)
        assert (faces == others).all() and sound.shape == heard.shape and abs(sound - heard).max() > 0.01


@pytest.mark.parametrize("split", ["base", "training"])
def test_splits_without_pairs_are_named(split):
    with pytest.raises(ValueError, match=f"contrast_splits: '{split}' has no pairs"):
        DemoDataConfig(contrast_splits=(split,))
