# SPDX-License-Identifier: Apache-2.0
"""Each benchmark's released layout, to the exact figures of a perfect and of a known wrong file of predictions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from omni_grpo.data.rows.prompts import PROMPT_STYLES
from omni_grpo.data.rows.schema import DataError
from omni_grpo.evaluation.arguments import EvalArguments
from omni_grpo.evaluation.benchmarks import READERS, load_benchmark
from omni_grpo.evaluation.prediction_rows import prediction_row
from omni_grpo.evaluation.scoring import summarise
from omni_grpo.rollout.answers import Completion
from omni_grpo.run.stages import read_fields

REPOSITORY = Path(__file__).parents[2]
FIXTURES = REPOSITORY / "tests" / "fixtures"
RAVDESS = ["01-01-05-01-01-01-07", "01-01-06-02-02-01-08", "01-02-02-01-01-02-07", "02-01-05-01-01-01-07"]
# Annotations, and the clips that they name.
RELEASED = {
    "intentbench": ("qa.json", ["letter_trimmed-out", "joke_trimmed-out", "samplenew3_00012", "011-03-09"]),
    "daily_omni": ("qa.json", ["kEttLe00001/kEttLe00001_video", "maTch000002/maTch000002_video"]),
    "worldsense": ("worldsense_qa.json", ["aBcDeFgH", "zYxWvUtS"]),
    "mafw": ("test.txt", ["00151", "00152", "00153", "00154"]),
    "dfew": ("set_1.csv", ["part_1/7", "part_2/01605", "part_11/16372"]),
    "ravdess": (".", [f"Actor_{name[-2:]}/{name}" for name in RAVDESS]),
}
each_benchmark = pytest.mark.parametrize("name", READERS)


def protocol_of(name: str):
    fields = read_fields(["--config", str(REPOSITORY / f"recipes/configs/benchmarks/{name}.yaml")])
    known = {k: v for k, v in fields.items() if k in EvalArguments.__dataclass_fields__}
    return EvalArguments(**known, models=["m=m"]).protocol(), PROMPT_STYLES[fields["prompt_style"]].schema


@pytest.fixture
def load(tmp_path):
    """Loads a fixture with empty files for its clips."""

    def load(name: str, annotations: Path | None = None):
        file, clips = RELEASED[name]
        for clip in clips:
            path = tmp_path / name / f"{clip}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        source = annotations or (tmp_path / name if name == "ravdess" else FIXTURES / name / file)
        return load_benchmark(name, source, tmp_path / name)

    return load


def scored(name: str, examples, answers) -> dict:
    """Metrics of completions that give `answers`; `None` gives none, in an otherwise whole completion."""
    protocol, schema = protocol_of(name)
    rows = []
    for example, answer in zip(examples, answers, strict=True):
        body = "".join(f"<{section}>Something.</{section}>" for section in schema.names[:-1])
        text = body + (f"<answer>{answer}</answer>" if answer is not None else example.solution)
        rows.append(prediction_row(example, Completion(text, 9, 0.1, False), schema, "full", False, protocol.answers))
    return summarise(rows, protocol=protocol)


def test_every_protocol_has_a_reader_and_every_reader_a_protocol():
    files = (REPOSITORY / "recipes/configs/benchmarks").glob("*.yaml")
    assert {path.stem for path in files} == set(READERS) == set(RELEASED)


@each_benchmark
def test_a_perfect_file_scores_one_everywhere(name, load):
    examples = load(name)
    metrics = scored(name, examples, [example.solution for example in examples])
    assert {figures["accuracy"] for figures in metrics["groups"].values()} == {1.0}
    assert metrics["format_rate"] == 1.0
    if metrics.get("out_of_vocabulary") is not None:
        assert {figures["uar"] for figures in metrics["groups"].values()} == {1.0}
        assert metrics["out_of_vocabulary"] == {} and metrics["unanswered"] == 0


@each_benchmark
def test_a_missing_answer_is_a_miss_even_where_the_gold_stands_beside(name, load):
    """HumanOmniV2's script takes the last row's text then. Mutant: whole completions read as answers."""
    examples = load(name)
    metrics = scored(name, examples, [example.solution for example in examples[:-1]] + [None])
    assert metrics["groups"]["all"]["accuracy"] == (len(examples) - 1) / len(examples)
    assert metrics["answers"] == {"right": len(examples) - 1, "no_answer": 1}


def accuracies(metrics: dict) -> dict[str, float]:
    return {name: figures["accuracy"] for name, figures in metrics["groups"].items()}


def test_intentbench_by_type_with_plain_f1_for_emotion_sets(load):
    """Mutants: F1 corrected for chance (0.5 for one of two here), accuracy of whole sets (0)."""
    examples = load("intentbench")
    assert [e.problem_type for e in examples] == ["multiple choice", "multiple choice", "emer_ov_mc", "judge"]
    assert examples[2].context == "The man drums his fingers. His voice is flat." and examples[2].target is None
    metrics = scored("intentbench", examples, ["B", "A", "B", "No, the person is honest."])
    assert accuracies(metrics) == {
        "question_type: deception": 0.0,
        "question_type: emotion": pytest.approx(2 / 3),
        "question_type: how": 0.0,
        "question_type: why": 1.0,
        "source: EMER": pytest.approx(2 / 3),
        "source: MDPE": 0.0,
        "source: Socialiq": 0.5,
        "all": pytest.approx((1 + 2 / 3) / 4),
    }
    chance = {name: metrics["groups"][name]["chance"] for name in ("question_type: why", "question_type: deception")}
    assert chance == {"question_type: why": 0.25, "question_type: deception": 0.5}
    assert metrics["perception"]["context_recall"]["n"] == 1  # the emotion question has a reference context


def test_daily_omni_by_task_and_length(load):
    metrics = scored("daily_omni", load("daily_omni"), ["A. A whistle that ends", "b", "D"])
    assert accuracies(metrics) == {
        "task: AV Event Alignment": 1.0,
        "task: Event Sequence": 0.0,
        "task: Reasoning": 1.0,
        "duration: 30s": 1.0,
        "duration: 60s": 0.5,
        "all": pytest.approx(2 / 3),
    }


def test_worldsense_by_domain_task_and_every_kind_of_sound(load):
    examples = load("worldsense")
    assert [e.id for e in examples] == ["aBcDeFgH-task0", "aBcDeFgH-task1", "zYxWvUtS-task0"]
    found = accuracies(scored("worldsense", examples, ["C", "B", "D"]))
    assert found["domain: Music"] == found["audio: Speech"] == found["audio: Music"] == found["duration: <1min"] == 0.5
    assert found["domain: Games"] == found["task: Spatial Relation"] == found["task_domain: Understanding"] == 1.0
    assert found["task: Causal Reasoning"] == 0.0


def test_mafw_counts_classes_alike_and_shows_words_outside_of_the_labels(load):
    """Gold anger, happiness, helplessness, anger. Mutants: UAR over predicted classes, words outside left out."""
    metrics = scored("mafw", load("mafw"), ["furious", "wistful", None, "fear"])
    everything = metrics["groups"]["all"]
    assert (everything["war"], everything["uar"]) == (0.25, pytest.approx(0.5 / 3))
    assert (metrics["out_of_vocabulary"], metrics["unanswered"]) == ({"wistful": 1}, 1)
    assert everything["chance"] == pytest.approx(1 / 11) and everything["majority"] == 0.5


def test_mafw_reads_the_labels_with_captions_too(load):
    captioned = load("mafw", FIXTURES / "mafw" / "single_label.txt")
    assert [(e.id, e.solution) for e in captioned] == [("00151", "anger"), ("00152", "happiness")]


def test_dfew_finds_clips_by_number_and_reads_numbers_as_labels(load):
    examples = load("dfew")
    assert [(e.id, e.solution) for e in examples] == [
        ("part_1/7", "happy"),
        ("part_2/01605", "fear"),
        ("part_11/16372", "neutral"),
    ]
    metrics = scored("dfew", examples, ["Happiness.", "sadness", "neutral"])
    assert metrics["groups"]["all"]["war"] == metrics["groups"]["all"]["uar"] == pytest.approx(2 / 3)


def test_ravdess_is_read_from_its_names(load):
    examples = load("ravdess")
    told = [(e.solution, e.meta["channel"], e.meta["intensity"], e.meta["actor"]) for e in examples]
    assert told == [
        ("angry", "speech", "normal", 7),
        ("calm", "song", "normal", 7),
        ("fearful", "speech", "strong", 8),
    ]
    metrics = scored("ravdess", examples, ["angry", "neutral", "afraid"])
    assert metrics["groups"]["channel: song"]["accuracy"] == 0.0, "calm is not neutral"
    assert metrics["groups"]["channel: speech"]["uar"] == 1.0


@pytest.mark.parametrize(
    ("name", "broken", "message"),
    [
        ("intentbench", '[{"problem": "Why?", "problem_type": "judge"}]', "record 0.*data_type must be video"),
        ("intentbench", "{}", "JSON list"),
        ("daily_omni", '[{"Question": "Why?", "video_id": "x", "Answer": "A"}]', "record 0: Choice must be a list"),
        ("worldsense", '{"aBcDeFgH": {"domain": "Music"}}', "aBcDeFgH: there is no task0"),
        ("worldsense", '{"aBcDeFgH": {"task0": {"question": " "}}}', "aBcDeFgH task0: question must be a text"),
        ("mafw", "00151.mp4\n", "line 1: expected a clip and its label"),
        ("mafw", "00151.mp4 gleeful\n", "not one of the labels"),
        ("mafw", "99999.mp4 anger\n", "no file at"),
        ("mafw", "", "no record"),
        ("dfew", "video_name,label\n7,8\n", "line 2: expected video_name and a label from 1 to 7"),
        ("dfew", "video_name,label\n5,1\n", "line 2: clip 5 must be below .* once, there is none"),
    ],
)
def test_what_is_not_in_the_layout_is_named(name, broken, message, load, tmp_path):
    file = tmp_path / f"broken.{RELEASED[name][0].rpartition('.')[2]}"
    file.write_text(broken, encoding="utf-8")
    with pytest.raises(DataError, match=f"(?s){message}"):
        load(name, file)


def test_a_clip_that_is_there_twice_is_not_guessed(load, tmp_path):
    (tmp_path / "dfew" / "again").mkdir(parents=True)
    (tmp_path / "dfew" / "again" / "00007.mp4").touch()
    with pytest.raises(DataError, match=re.escape("there is again/00007.mp4, part_1/7.mp4")):
        load("dfew")


def test_a_foreign_name_among_ravdess_is_refused(load, tmp_path):
    (tmp_path / "ravdess").mkdir()
    (tmp_path / "ravdess" / "holiday.mp4").touch()
    with pytest.raises(DataError, match="not a name of RAVDESS"):
        load("ravdess")


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="download dfew there"):
        load_benchmark("dfew", tmp_path / "set_1.csv")
    with pytest.raises(ValueError, match="'intent' is unknown; one of intentbench"):
        load_benchmark("intent", tmp_path)


def test_fixtures_have_the_fields_that_the_protocols_report_by(load):
    """Mutant: a key of `group_by` that no reader writes; its groups would be missing without a word."""
    for name in READERS:
        protocol, _ = protocol_of(name)
        for example in load(name):
            assert all(example.meta.get(key) for key in protocol.group_by), json.dumps(dict(example.meta))
