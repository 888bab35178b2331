# SPDX-License-Identifier: Apache-2.0
import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_grpo.data.rows.adapters import from_humanomniv2, from_r1_omni
from omni_grpo.data.rows.conversion import convert
from omni_grpo.data.rows.schema import check_row
from omni_grpo.data.rows.selection import taken_indices
from omni_rewards import answer_score, parse_sections

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
HUMANOMNIV2 = json.loads((FIXTURES / "humanomniv2.json").read_text(encoding="utf-8"))
R1_OMNI = json.loads((FIXTURES / "r1_omni.json").read_text(encoding="utf-8"))


def changed(record: dict, **fields) -> dict:
    """A copy with fields replaced; `...` removes one."""
    record = copy.deepcopy(record) | fields
    return {name: value for name, value in record.items() if value is not ...}


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_emer_record_keeps_type_options_target_and_emotion_words() -> None:
    record = HUMANOMNIV2[0]
    assert from_humanomniv2(record, 0) == {
        "id": "counter_0031-0",
        "problem": record["problem"],
        "problem_type": "emer_ov_mc",
        "options": record["options"],
        "solution": "B,E",
        "context": "A man drums his fingers and says flatly: take your time.",
        "target": record["solution"],
        "media": [{"type": "video", "path": "emer/counter_0031.mp4", "use_audio": "if_present"}],
        "meta": {"clean_list": ["irritation", "impatience"]},
    }


def test_judge_record_is_kept_as_judge_without_options() -> None:
    row = from_humanomniv2(HUMANOMNIV2[2], 2)
    assert (row["problem_type"], row["solution"], "options" in row) == ("judge", "No", False)


def test_answer_only_record_has_no_target_and_no_context() -> None:
    row = from_humanomniv2(HUMANOMNIV2[3], 3)
    assert {"target", "context", "meta"}.isdisjoint(row)
    assert row["media"] == [{"type": "image", "path": "rooms/plan_7.png"}]


def test_image_with_sound_becomes_two_items_image_first() -> None:
    row = from_humanomniv2(HUMANOMNIV2[4], 4)
    assert row["media"] == [
        {"type": "image", "path": "pairs/kitchen.jpg"},
        {"type": "audio", "path": "pairs/kitchen.wav"},
    ]
    assert row["target"] == HUMANOMNIV2[4]["solution"]
    assert "context" not in row


def test_r1_omni_cold_start_and_label_records() -> None:
    cold_start, label = (from_r1_omni(record, index) for index, record in enumerate(R1_OMNI))
    assert cold_start["target"] == R1_OMNI[0]["conversations"][1]["value"]
    assert label == {
        "id": "1042-1",
        "problem": "Which emotion is most obvious in this video?",
        "problem_type": "label",
        "solution": "surprise",
        "media": [{"type": "video", "path": "dfew/1042.mp4", "use_audio": "if_present"}],
    }


def test_r1_omni_question_without_the_audio_mark_is_silent() -> None:
    record = copy.deepcopy(R1_OMNI[1])
    record["conversations"][0]["value"] = "<video>\nWhich emotion is most obvious?"
    assert from_r1_omni(record, 0)["media"][0]["use_audio"] is False


@pytest.mark.parametrize("layout", ["humanomniv2", "r1_omni"])
def test_converted_rows_follow_the_schema_and_gold_earns_the_maximum(tmp_path: Path, layout: str) -> None:
    rows_file = tmp_path / "rows.jsonl"
    count = convert(FIXTURES / f"{layout}.json", rows_file, layout)
    rows = read_jsonl(rows_file)
    assert count == len(rows) == len({row["id"] for row in rows})
    for row in rows:
        for item in row["media"]:
            (tmp_path / item["path"]).parent.mkdir(exist_ok=True)
            (tmp_path / item["path"]).touch()
        assert check_row(row, tmp_path) == []
        assert answer_score(row["solution"], row["solution"], row["problem_type"], row.get("options")) == 1.0
        if "target" in row:
            assert parse_sections(row["target"]).texts["answer"].strip() == row["solution"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"answer": "C"}, r"'C' disagrees with the solution's answer 'A'"),
        ({"solution": "A"}, "not well formed"),
        ({"solution": HUMANOMNIV2[1]["solution"] + "<answer>B</answer>"}, "repeated_section"),
        ({"solution": HUMANOMNIV2[1]["solution"].replace("</think>", "")}, "not well formed"),
        ({"solution": ...}, "solution must be a text"),
        ({"problem": " "}, "problem must be a text"),
        ({"problem_type": "riddle"}, "unknown problem_type 'riddle'"),
        ({"options": []}, "options"),
        ({"options": [1, 2]}, "options must be a list of texts"),
        ({"options": ["A. She is proud"], "answer": ..., "solution": "<answer>B</answer>"}, "not one of the options"),
        ({"data_type": "hologram"}, "data_type must be video or image"),
        ({"video": "social/other.mp4"}, "differ"),
        ({"path": "/mnt/girl_12.mp4", "video": ...}, "relative to the media root"),
        ({"path": "../girl_12.mp4", "video": ...}, "relative to the media root"),
        ({"path": {"image": "a.png"}, "video": ...}, "must name image and audio"),
        ({"path": ..., "video": ...}, "path of a media file"),
    ],
)
def test_a_bad_humanomniv2_record_is_named(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"record 17.*{message}"):
        from_humanomniv2(changed(HUMANOMNIV2[1], **fields), 17)


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([], "one human turn and one gpt turn"),
        (["hello"], "one human turn and one gpt turn"),
        ([{"from": "gpt", "value": "sad"}, {"from": "human", "value": "<video>"}], "one human turn and one gpt turn"),
        ([{"from": "human", "value": "Which emotion?"}, {"from": "gpt", "value": "sad"}], "<video> mark"),
        (
            [{"from": "human", "value": "<video>?"}, {"from": "gpt", "value": "<think>x</think> sad"}],
            "not well formed",
        ),
        ([{"from": "human", "value": "<video>?"}, {"from": "gpt"}], "value must be a text"),
        ([{"from": "human", "value": "<video>?"}, {"from": "gpt", "value": "?!"}], "holds no word"),
    ],
)
def test_a_bad_r1_omni_record_is_named(turns: list, message: str) -> None:
    with pytest.raises(ValueError, match=f"record 5.*{message}"):
        from_r1_omni({"video": "a.mp4", "conversations": turns}, 5)


@pytest.mark.parametrize(("answer", "agrees"), [("E, B", True), ("B,E.", True), ("B", False), ("B,E,F", False)])
def test_answer_field_agrees_as_the_problem_type_reads_it(answer: str, agrees: bool) -> None:
    record = changed(HUMANOMNIV2[0], answer=answer)
    if agrees:
        assert from_humanomniv2(record, 0)["solution"] == "B,E"
    else:
        with pytest.raises(ValueError, match="disagrees"):
            from_humanomniv2(record, 0)


def test_every_bad_record_is_listed_and_nothing_is_written(tmp_path: Path) -> None:
    source, rows_file = tmp_path / "records.json", tmp_path / "rows.jsonl"
    source.write_text(json.dumps([changed(HUMANOMNIV2[1], answer="C"), HUMANOMNIV2[1], 3]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"2 bad record(?s:.*)record 0(?s:.*)record 2"):
        convert(source, rows_file, "humanomniv2")
    assert not rows_file.exists()


def test_skip_bad_leaves_records_out_and_logs_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, rows_file = tmp_path / "records.json", tmp_path / "rows.jsonl"
    source.write_text(json.dumps([changed(HUMANOMNIV2[1], answer="C"), HUMANOMNIV2[1]]), encoding="utf-8")
    assert convert(source, rows_file, "humanomniv2", skip_bad=True) == 1
    assert [row["id"] for row in read_jsonl(rows_file)] == ["girl_12-1"]
    assert "record 0 (social/girl_12.mp4)" in caplog.text


def test_ids_do_not_depend_on_what_is_taken(tmp_path: Path) -> None:
    """Else the same example would have two ids in the SFT and the RL file, and overlap could not be seen."""
    source = FIXTURES / "humanomniv2.json"
    ids: dict[str, list[str]] = {}
    for take in ("first:100%", "first:40%", "end:60%", "random:2"):
        convert(source, tmp_path / "rows.jsonl", "humanomniv2", take=take, seed=1)
        ids[take] = [row["id"] for row in read_jsonl(tmp_path / "rows.jsonl")]
    assert ids["first:40%"] + ids["end:60%"] == ids["first:100%"]
    assert set(ids["random:2"]) < set(ids["first:100%"])


def test_path_prefix_makes_absolute_paths_relative(tmp_path: Path) -> None:
    source, rows_file = tmp_path / "records.json", tmp_path / "rows.jsonl"
    source.write_text(json.dumps([changed(R1_OMNI[1], video="/mnt/data/dfew/1.mp4")]), encoding="utf-8")
    convert(source, rows_file, "r1_omni", path_prefix="/mnt/data")
    assert read_jsonl(rows_file)[0]["media"][0]["path"] == "dfew/1.mp4"
    with pytest.raises(ValueError, match="relative to the media root"):
        convert(source, rows_file, "r1_omni", path_prefix="/home")


def test_unknown_layout_and_files_that_are_no_list_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown layout 'emer'; known are humanomniv2, r1_omni"):
        convert(FIXTURES / "r1_omni.json", tmp_path / "rows.jsonl", "emer")
    (tmp_path / "object.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="must hold a JSON list"):
        convert(tmp_path / "object.json", tmp_path / "rows.jsonl", "r1_omni")


@given(st.integers(1, 500), st.integers(1, 99))
def test_first_and_end_shares_split_a_file(num_records: int, share: int) -> None:
    """Rounding both up, as published, puts one record into the SFT and the RL part."""
    first = taken_indices(num_records, f"first:{share}%")
    rest = taken_indices(num_records, f"end:{100 - share}%") if len(first) < num_records else []
    assert first + rest == list(range(num_records))


@given(st.integers(1, 300), st.integers(1, 100), st.integers())
def test_random_is_seeded_distinct_and_in_file_order(num_records: int, share: int, seed: int) -> None:
    taken = taken_indices(num_records, f"random:{share}%", seed)
    assert taken == taken_indices(num_records, f"random:{share}%", seed) == sorted(set(taken))
    assert len(taken) == len(taken_indices(num_records, f"first:{share}%"))


def test_another_seed_takes_other_records() -> None:
    assert taken_indices(100, "random:50", 0) != taken_indices(100, "random:50", 1)


@pytest.mark.parametrize(
    "take",
    ["start:50%", "first", "first:", "first:x", "first:-1", "first:0", "first:101%", "end:11", "end:5%", "first:1.5%"],
)
def test_unknown_or_empty_selection_is_refused(take: str) -> None:
    """The published reader takes `start:50%` as the whole file, SFT part included."""
    with pytest.raises(ValueError, match="take"):
        taken_indices(10, take)


def test_script_converts_and_reports_bad_data_without_a_traceback(tmp_path: Path) -> None:
    command = [
        sys.executable,
        ROOT / "recipes" / "convert_data.py",
        FIXTURES / "r1_omni.json",
        tmp_path / "rows.jsonl",
    ]
    run = subprocess.run(
        [*command, "--layout", "r1_omni", "--take", "end:1"], capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith("1 rows written")
    failed = subprocess.run([*command, "--layout", "humanomniv2"], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "record 0" in failed.stderr
    assert "Traceback" not in failed.stderr
