# SPDX-License-Identifier: Apache-2.0
"""The demo data: the design is fair, the splits share nothing, and the files are what the rows say."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from omni_demo.config import MIXES, SPLITS, DemoDataConfig, load_config, parse_overrides
from omni_demo.faces import EXPRESSIONS, NEUTRAL_EXPRESSION, face_image
from omni_demo.generate import fingerprint, generate
from omni_demo.phrases import words_of
from omni_demo.questions import GROUP_OF_SPLIT, plan
from omni_demo.targets import FACES, VOICES
from omni_grpo.data.rows.loading import load_examples
from omni_rewards import answer_score, parse_sections

REPOSITORY = Path(__file__).resolve().parents[2]
DATA_YAML = REPOSITORY / "recipes" / "configs" / "demo" / "data.yaml"
TASKS = ("agreement", "intent")
WITH_TARGET = ("sft", "base_text")

_BASE_MIXES = ("image+audio", "video", "image", "audio", "video+silence", "grey+audio")

# Every kind, every mix and every split, in 64 pixels.
SMALL = DemoDataConfig(
    splits=SPLITS,
    num_workers=1,
    frame_size_px=64,
    clips_per_identity=12,
    base_clips=42,
    perception_clips=6,
    base_text_agreement=8,
    base_text_told=4,
    base_text_face=6,
    base_text_voice=6,
    sft_agreement=8,
    sft_intent=12,
    sft_face=6,
    sft_voice=6,
    rl_agreement=8,
    rl_intent=4,
    rl_face=0,
    rl_voice=0,
    validation_agreement=8,
    validation_intent=4,
    test_agreement=8,
    test_intent=4,
    test_face=6,
    test_voice=6,
    rl_task_mixes={"video+audio": 0.34, "image+audio": 0.33, "text": 0.33},
    base_mixes=dict.fromkeys(("video+audio", *_BASE_MIXES), 1 / 7),
)


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict]]:
    """The rows of the shipped configuration; no clip is made for them."""
    config = load_config(DATA_YAML, {})
    return {split: plan(config, split)[0] for split in SPLITS}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> DemoDataConfig:
    """A small data set on disk."""
    config = replace(SMALL, output_dir=str(tmp_path_factory.mktemp("demo")))
    generate(config)
    return config


def _meta(rows: list[dict], kind: str) -> list[dict]:
    return [{**row["meta"], "solution": row["solution"]} for row in rows if row["meta"]["kind"] == kind]


def _tree(root: Path, below: str = "") -> dict[str, str]:
    files = sorted(path for path in (root / below).rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _decode(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, H, W, 3) and samples (S,) of an mp4."""
    with av.open(str(path)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    with av.open(str(path)) as container:
        return frames, np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])


# The design


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_exactly_balanced(rows, split):
    for kind in {row["meta"]["kind"] for row in rows[split]}:
        counts = Counter(meta["solution"] for meta in _meta(rows[split], kind))
        assert len(set(counts.values())) == 1, (split, kind, counts)
        assert len(counts) == {"agreement": 2, "intent": 4, "told": 4, "face": 6, "voice": 6}[kind]


# A mutant that draws the pairs that disagree at random, or that gives a mix half a block, fails here.
@pytest.mark.parametrize("split", [split for split in SPLITS if split != "base"])
@pytest.mark.parametrize("kind, best", [("agreement", 0.5), ("intent", 0.5)])
@pytest.mark.parametrize("channel", ["face", "voice"])
def test_one_channel_alone_cannot_predict(rows, split, kind, best, channel):
    answers: dict[tuple, Counter] = defaultdict(Counter)
    for meta in _meta(rows[split], kind):
        answers[meta["mix"], meta[channel]][meta["solution"]] += 1
    for where, counts in answers.items():
        expected = best if where[1] else 1 / len(counts)  # RL's rows that lack the channel tell nothing at all
        assert max(counts.values()) / counts.total() == expected, (where, counts)


def test_both_channels_together_tell_the_answer(rows):
    for kind in TASKS:
        answers = defaultdict(set)
        for meta in _meta(rows["test"], kind):
            answers[meta["face"], meta["voice"]].add(meta["solution"])
        assert all(len(found) == 1 for found in answers.values())
        assert len(answers) == {"agreement": 16, "intent": 4}[kind]


def test_words_tell_no_more_than_the_voice(rows):
    for split in ("sft", "rl", "test"):
        tones = defaultdict(set)
        for meta in (row["meta"] for row in rows[split] if row["meta"]["phrase"]):
            good = bool(words_of(meta["phrase"]) & {"great", "lovely", "superb", "perfect", "brilliant", "love"})
            bad = bool(words_of(meta["phrase"]) & {"bad", "poor", "stupid", "dreadful", "terrible", "hate"})
            tones[meta["voice"]].add((good, bad))
        assert tones.pop("warm") == {(True, False)}
        assert tones.pop("cold") == {(False, True)}
        assert set().union(*tones.values()) == {(False, False)}


def test_expressions_belong_to_one_class():
    names = [NEUTRAL_EXPRESSION, *(name for group in EXPRESSIONS.values() for name in group)]
    assert len(names) == len(set(names))
    assert set(EXPRESSIONS) == set(FACES)


# The splits


def test_splits_share_no_person(rows):
    people = {split: {row["meta"]["identity"] for row in rows[split]} - {None} for split in GROUP_OF_SPLIT}
    for a in people:
        for b in people:
            assert a == b or not people[a] & people[b], (a, b)


@pytest.mark.parametrize(
    "what",
    [
        lambda meta: meta["voice_name"] and meta["voice_name"].split("+")[1],  # a variant, whatever its accent
        lambda meta: meta["phrase"],
        lambda meta: meta["identity"] and meta["identity"].split("-")[:2],  # head and skin, whatever the shirt
    ],
    ids=["voice", "phrase", "look"],
)
def test_held_out_splits_are_new(rows, what):
    groups: dict[str, set] = defaultdict(set)
    for split, group in GROUP_OF_SPLIT.items():
        groups[group] |= {str(what(row["meta"])) for row in rows[split] if what(row["meta"])}
    assert not groups["training"] & groups["validation"]
    assert not groups["training"] & groups["test"]
    assert not groups["validation"] & groups["test"]
    assert all(groups.values())


@pytest.mark.parametrize("training", ["base", "rl"])
def test_every_word_of_test_is_said_in_training(rows, training):
    def said(split: str) -> set[str]:
        return set().union(*(words_of(row["meta"]["phrase"]) for row in rows[split] if row["meta"]["phrase"]))

    assert said("test") | said("validation") <= said(training)


def test_a_person_is_no_hint_at_the_answer(rows):
    """The clips of a person come from all over the design, not from one block of it."""
    answers = defaultdict(list)
    for meta in _meta(rows["rl"], "agreement"):
        if meta["identity"]:
            answers[meta["identity"]].append(meta["solution"])
    several = [found for found in answers.values() if len(found) > 1]
    assert len(several) > 100
    assert np.mean([len(set(found)) == 2 for found in several]) > 0.5


# The sentences


@pytest.mark.parametrize("split", WITH_TARGET)
def test_targets_have_three_sections_that_agree(rows, split):
    for row in rows[split]:
        sections = re.fullmatch(
            r"<context>([^<>]+)</context><think>([^<>]+)</think><answer>(\w+)</answer>", row["target"]
        )
        assert sections, row["target"]
        context, think, answer = sections.groups()
        assert answer == row["solution"]
        assert context == row["context"]
        assert len(re.findall(r"\w+", row["target"])) <= 60
        meta = row["meta"]
        both = meta["face"] and meta["voice"] and meta["mix"] != "video"
        if meta["kind"] == "agreement":
            assert bool(re.search(r"\bagree\b", think)) == bool(both), "a verdict follows from two sides alone"
            assert ("not agree" in think) == (bool(both) and answer == "no"), think
        else:
            assert think.rstrip(".").split()[-1] == answer, think
        shown = set(re.findall(r"\w+", context)) & {*FACES, *VOICES}
        assert shown == {meta["face"], None if meta["mix"] == "video" else meta["voice"]} - {None}


@pytest.mark.parametrize("split", WITH_TARGET)
def test_gold_earns_the_maximum(rows, split):
    for row in rows[split]:
        assert parse_sections(row["target"]).reason == "ok"
        assert answer_score(row["solution"], row["solution"], row["problem_type"]) == 1.0


def test_sentences_are_varied(rows):
    def shapes(texts: list[str]) -> set[str]:
        names = "|".join({*FACES, *VOICES, "praise", "taunt", "joke", "complain"})
        return {re.sub(rf"\b({names})\b", "_", text) for text in texts}

    for kind in TASKS:
        of_kind = [row for row in rows["sft"] if row["meta"]["kind"] == kind]
        assert len(shapes([row["context"] for row in of_kind])) >= 4
        for solution in {row["solution"] for row in of_kind} if kind == "agreement" else [None]:
            chosen = [row for row in of_kind if solution in (None, row["solution"])]
            assert len(shapes([row["target"].split("<think>")[1] for row in chosen])) >= 4


def test_only_the_splits_that_teach_carry_their_answers_in_full(rows):
    assert not any("target" in row for split in ("base", "rl", "validation", "test") for row in rows[split])
    assert not any("context" in row for row in rows["base"])
    assert all("context" in row for split in ("sft", "rl", "validation", "test") for row in rows[split])
    assert {row["meta"]["kind"] for row in rows["base"]} == {"face", "voice"}


def test_text_rows_state_both_sides(rows):
    stated = [row for row in rows["rl"] if row["meta"]["mix"] == "text"]
    assert stated
    for row in stated:
        assert row["media"] == []
        first = row["problem"].rsplit(". ", 1)[0]
        assert {row["meta"]["face"], row["meta"]["voice"]} <= set(re.findall(r"\w+", first))


# The files


def test_rows_load_with_all_their_media(made):
    root = Path(made.output_dir)
    mixes = set()
    for split in SPLITS:
        examples = load_examples(root / f"{split}.jsonl")
        assert len(examples) == len(plan(made, split)[0])
        mixes |= {example.meta["mix"] for example in examples}
    assert mixes == set(MIXES)
    assert "CC0" in (root / "LICENSES.md").read_text(encoding="utf-8")


def test_clips_decode_and_have_one_length(made):
    """One length for all: a clip as long as its speech would show the voice to a model that hears nothing."""
    lengths = set()
    for path in sorted(Path(made.output_dir).rglob("*.mp4")):
        with av.open(str(path)) as container:
            assert [stream.type for stream in container.streams] == ["video", "audio"]
            assert container.streams.audio[0].rate == 16_000
            assert container.streams.audio[0].channels == 1
            assert container.duration / av.time_base <= 3.05
            num_frames, num_samples = 0, 0
            for frame in container.decode():
                if isinstance(frame, av.VideoFrame):
                    assert frame.width == frame.height == 64
                    num_frames += 1
                else:
                    num_samples += frame.samples
        lengths.add((num_frames, num_samples))
    assert [num_frames for num_frames, _ in lengths] == [23], lengths


def test_a_channel_that_shows_nothing_is_digital_silence_or_plain_grey(made):
    """As evaluation blanks a channel: what the model meets there it has met before."""
    clips = {clip.mix: clip for clip in plan(made, "base")[1]}
    for mix, face, voice in (("video+silence", True, False), ("grey+audio", False, True), ("video+audio", True, True)):
        assert (clips[mix].face is not None, clips[mix].voice is not None) == (face, voice)
        frames, samples = _decode(Path(made.output_dir) / f"{clips[mix].stem}.mp4")
        assert bool(np.abs(samples).max() > 0.01) == voice
        assert bool(np.ptp(np.asarray(frames[-1])) > 3) == face
        asked = {row["meta"]["kind"] for row in plan(made, "base")[0] if row["meta"]["mix"] == mix}
        assert asked == {kind for kind, shown in (("face", face), ("voice", voice)) if shown}


def test_the_face_changes_once_and_the_speech_starts_soon(made):
    size = made.frame_size_px
    for clip in plan(made, "validation")[1][:4]:
        frames, samples = _decode(Path(made.output_dir) / f"{clip.stem}.mp4")
        drawn = {
            name: np.asarray(face_image(clip.identity, name, clip.background, size), dtype=float)
            for name in (NEUTRAL_EXPRESSION, clip.expression)
        }
        moves = [(x, y) for x in range(4, 13, 2) for y in range(4, 13, 2)]  # the sway, about a margin of 8

        def distance(frame: np.ndarray, picture: np.ndarray, moves: list = moves) -> float:
            return min(np.abs(frame - picture[y : y + size, x : x + size]).mean() for x, y in moves)

        shown = [min(drawn, key=lambda name, frame=frame: distance(frame, drawn[name])) for frame in frames]
        assert shown == [NEUTRAL_EXPRESSION] * 2 + [clip.expression] * 21  # from a quarter of a second on
        loud = np.flatnonzero(np.abs(samples) > 0.01) / 16_000
        assert 0.02 < loud[0] < 0.4
        assert loud[-1] < 2.9


def test_a_second_run_makes_nothing(made):
    root = Path(made.output_dir)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    summary = generate(made)
    assert summary.made == 0 < summary.clips
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_missing_clip_is_made_again_to_the_same_bytes(made):
    root = Path(made.output_dir)
    before = _tree(root)
    (root / "clips/rl").joinpath(sorted(p.name for p in (root / "clips/rl").iterdir())[-1]).unlink()
    assert generate(made).made == 1
    assert _tree(root) == before


# Fails when eSpeak NG speaks in its server instead of in a fork of it: its state then depends on the order.
def test_two_workers_make_the_same_bytes_as_one(made, tmp_path):
    config = replace(made, output_dir=str(tmp_path), splits=("sft",), num_workers=2)
    generate(config)
    assert _tree(tmp_path, "clips/sft") == _tree(Path(made.output_dir), "clips/sft")
    assert (tmp_path / "sft.jsonl").read_bytes() == (Path(made.output_dir) / "sft.jsonl").read_bytes()


def test_another_seed_makes_another_set_in_place(made, tmp_path):
    config = replace(made, output_dir=str(tmp_path), splits=("validation",))
    generate(config)
    first = _tree(tmp_path, "clips")
    summary = generate(replace(config, seed=8))
    second = _tree(tmp_path, "clips")
    assert summary.made == summary.clips == len(first)
    assert not set(first.values()) & set(second.values())


def test_files_of_others_are_not_touched(tmp_path):
    (tmp_path / "sft.jsonl").write_text("mine\n", encoding="utf-8")
    with pytest.raises(FileExistsError, match="output_dir"):
        generate(replace(SMALL, output_dir=str(tmp_path), splits=("sft",)))
    assert (tmp_path / "sft.jsonl").read_text(encoding="utf-8") == "mine\n"


def test_fingerprints_change_with_what_touches_a_split():
    base = fingerprint(SMALL, "rl")
    assert fingerprint(replace(SMALL, sft_face=18, output_dir="x", num_workers=3), "rl") == base
    for change in ({"rl_face": 6}, {"seed": 1}, {"video_crf": 30}, {"rl_task_mixes": {"text": 1.0}}):
        assert fingerprint(replace(SMALL, **change), "rl") != base
    assert fingerprint(replace(SMALL, base_text_face=0), "base_text") != fingerprint(SMALL, "base_text")
    assert fingerprint(replace(SMALL, base_text_face=0), "base") == fingerprint(SMALL, "base")


# The voices


def test_speech_does_not_depend_on_what_was_said_before():
    from omni_demo.voices import Speaker

    with Speaker() as speaker:
        first = speaker.speak("The cup is by the bed.", "en-us+f3", 180, 80, 60)
        speaker.speak("What a bad plan.", "gmw/en+Andy", 120, 20, 0)
        assert len(first) > 8_000
        assert np.array_equal(first, speaker.speak("The cup is by the bed.", "en-us+f3", 180, 80, 60))
        with pytest.raises(ValueError, match="no-such-voice"):
            speaker.speak("Hello.", "no-such-voice", 150, 50, 50)
        assert len(speaker.speak("Hello.", "en-us", 150, 50, 50)) > 2_000  # and it goes on


def test_every_voice_speaks():
    from omni_demo.voices import ACCENTS, VARIANTS, Speaker

    names = [name for group in VARIANTS.values() for name in group]
    assert len(names) == len(set(names))
    with Speaker() as speaker:
        for k, name in enumerate(names):
            said = speaker.speak("It is noon.", f"{ACCENTS[k % len(ACCENTS)]}+{name}", 200, 50, 50)
            assert np.abs(said).max() > 1_000, name


def test_manners_of_speaking_differ(made):
    from omni_demo.clips import speech
    from omni_demo.voices import VARIANTS, Speaker

    _, clips = plan(made, "test")
    heard: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    with Speaker() as speaker:
        for manner in VOICES:
            for variant in VARIANTS["test"]:
                spec = replace(
                    clips[0],
                    voice=manner,
                    voice_name=f"en-us+{variant}",
                    phrase="The bus comes at nine.",
                    seed=variant,
                )
                sound = speech(spec, made, speaker)
                frames = sound[: len(sound) // 160 * 160].reshape(-1, 160).std(axis=1)  # loudness, 100 a second
                spoken = np.flatnonzero(frames > 0.1 * frames.max())
                voiced = frames[spoken[0] : spoken[-1]]
                tremor = np.abs(np.fft.rfft(voiced - voiced.mean(), 200))[16:21].max() / voiced.sum()  # 8 to 10 Hz
                heard[manner].append((len(voiced) / 100, 20 * np.log10(np.sqrt(np.mean(voiced**2))), tremor))
    seconds, level, tremor = (dict(zip(heard, x, strict=True)) for x in np.median(list(heard.values()), axis=1).T)
    assert seconds["afraid"] < seconds["angry"] < seconds["warm"] < seconds["sad"]
    assert level["angry"] > level["happy"] + 3 > level["warm"] + 6 > level["sad"] + 9
    assert level["cold"] > level["warm"] + 3
    assert tremor["afraid"] == max(tremor.values())


# The configuration


def test_shipped_configuration_is_the_defaults():
    assert load_config(DATA_YAML, {}) == DemoDataConfig()


def test_options_override_the_file():
    config = load_config(DATA_YAML, parse_overrides(["--splits", "sft,test", "--seed=3", "--output-dir", "x"]))
    assert (config.splits, config.seed, config.output_dir) == (("sft", "test"), 3, "x")


@pytest.mark.parametrize(
    "overrides, named",
    [
        ({"sft_agrement": 8}, "sft_agrement"),
        ({"splits": "sft,train"}, "train"),
        ({"seed": "seven"}, "seed"),
        ({"num_workers": 0}, "num_workers"),
        ({"rl_face": -6}, "rl_face"),
        ({"frame_size_px": 63}, "frame_size_px"),
        ({"sft_intent_mixes": {"video+audio": 0.5}}, "sft_intent_mixes"),
        ({"rl_task_mixes": {"smell": 1.0}}, "smell"),
    ],
)
def test_mistakes_are_named(overrides, named):
    with pytest.raises(ValueError, match=named):
        load_config(DATA_YAML, overrides)


@pytest.mark.parametrize("change", [{"rl_agreement": 12}, {"rl_intent": 6}, {"rl_voice": 8}])
def test_counts_that_cannot_be_balanced_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        plan(replace(SMALL, **change), "rl")


def test_script_refuses_unknown_options_by_name():
    script = REPOSITORY / "recipes" / "make_demo_data.py"
    run = subprocess.run(
        [sys.executable, str(script), "--config", str(DATA_YAML), "--sedd", "3"], capture_output=True, text=True
    )
    assert run.returncode == 2
    assert "sedd" in run.stderr
    assert "Traceback" not in run.stderr
