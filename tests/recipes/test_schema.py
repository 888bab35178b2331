# SPDX-License-Identifier: Apache-2.0
"""Every bad row is named by file, line, id and field, with the remedy; good rows come through unchanged."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import gold_answers
from omni_grpo.config import DataArguments
from omni_grpo.data.dataset import load_sources
from omni_grpo.data.rows.loading import load_examples
from omni_grpo.data.rows.schema import FIELDS, MAX_REPORTED, DataError, MediaItem, check_row, schema_table
from omni_rewards import CHOICE_TYPES, PROBLEM_TYPES, answer_score

GOOD = {"id": "a", "problem": "Is it loud?", "problem_type": "yes_no", "solution": "yes"}
GOLD = {kind: golds[0] for kind, (golds, _) in gold_answers.GOLD.items()} | {"emer_ov_mc": "A,B"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A media root with `clip.mp4` in it and `outside.mp4` beside it; contents are not looked at here."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "clip.mp4").write_bytes(b"x")
    (tmp_path / "outside.mp4").write_bytes(b"x")
    return root


def write_rows(file: Path, *rows) -> Path:
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def without(row: dict, *names: str) -> dict:
    return {name: value for name, value in row.items() if name not in names}


def media(path="clip.mp4", kind="video", **more) -> dict:
    return {**GOOD, "media": [{"type": kind, "path": path, **more}]}


# row -> the field that the message must name, and what it must say (the remedy last)
BAD = {
    "missing problem": (without(GOOD, "problem"), "problem", r"expected a non-empty string, got None"),
    "blank problem": ({**GOOD, "problem": "  "}, "problem", r"expected a non-empty string"),
    "id a number": ({**GOOD, "id": 7}, "id", r"expected a non-empty string, got 7"),
    "solution a list": ({**GOOD, "solution": ["yes"]}, "solution", r"expected a non-empty string"),
    "context empty": ({**GOOD, "context": ""}, "context", r"expected a non-empty string"),
    "target a number": ({**GOOD, "target": 3}, "target", r"expected a non-empty string"),
    "meta a list": ({**GOOD, "meta": [1]}, "meta", r"expected an object"),
    "unknown type": ({**GOOD, "problem_type": "yesno"}, "problem_type", r"'yesno' is unknown; one of .*yes_no"),
    # Mutant: `kind not in PROBLEM_TYPES` alone, which raises TypeError on a list.
    "type a list": ({**GOOD, "problem_type": ["yes_no"]}, "problem_type", r"is unknown; one of .*yes_no"),
    "no options": ({**GOOD, "problem_type": "multiple choice"}, "options", r"required .*; list what to choose from"),
    "options a text": ({**GOOD, "options": "A"}, "options", r"expected a list of non-empty strings, got 'A'"),
    "option empty": ({**GOOD, "options": ["A", ""]}, "options", r"expected a list of non-empty strings"),
    "unreadable gold": ({**GOOD, "solution": "maybe"}, "solution", r"neither yes nor no; correct it"),
    "gold no option": (
        {**GOOD, "problem_type": "multiple choice", "options": ["red", "blue"], "solution": "C"},
        "solution",
        r"'C' is not one of the options .*; correct it",
    ),
    "unknown field": ({**GOOD, "sollution": "x"}, "sollution", r"unknown fields .*; free data belongs in `meta`"),
    "media an object": ({**GOOD, "media": {}}, "media", r"expected a list of objects"),
    "media a text": ({**GOOD, "media": ["clip.mp4"]}, "media[0]", r"expected an object with `type` and `path`"),
    "unknown medium": (media(kind="gif"), "media[0].type", r"'gif' is not one of image, video, audio"),
    "unknown media key": (media(fps=2), "media[0]", r"unknown keys \['fps'\]; free data belongs in `meta`"),
    "no path": ({**GOOD, "media": [{"type": "video"}]}, "media[0].path", r"expected a path, got None"),
    "missing file": (media("gone.mp4"), "media[0].path", r"no file at .*gone\.mp4; fix the path or set `media_root`"),
    "a folder": (media("."), "media[0].path", r"no file at .*; fix the path"),
    "up and out": (media("../outside.mp4"), "media[0].path", r"leaves the media root .*; move the file below it"),
    "absolute": (media("/etc/hostname"), "media[0].path", r"leaves the media root .*; move the file below it"),
    "null byte": (media("a\0.mp4"), "media[0].path", r"cannot be a path .*; fix the path"),
    "too long": (media("a" * 5000), "media[0].path", r"cannot be a path .*; fix the path"),
    "image with sound": (media(kind="image", use_audio=True), "media[0].use_audio", r"only a video has a sound track"),
    "use_audio a word": (media(use_audio="yes"), "media[0].use_audio", r'expected true, false or "if_present"'),
    "use_audio a number": (media(use_audio=1), "media[0].use_audio", r'expected true, false or "if_present"'),
}


@pytest.mark.parametrize(("row", "field", "message"), BAD.values(), ids=BAD)
def test_a_bad_row_is_named_by_file_line_id_and_field_with_its_remedy(folder, row, field, message):
    file = write_rows(folder / "data.jsonl", {**GOOD, "id": "first"}, row, {**GOOD, "id": "last"})
    with pytest.raises(DataError) as error:
        load_examples(file)
    [line] = str(error.value).splitlines()[1:]
    assert line.startswith(f"{file}:2 (id {row.get('id')!r}): ")
    assert field in line and re.search(message, line), line


def test_a_link_out_of_the_root_is_refused(folder):
    os.symlink(folder.parent / "outside.mp4", folder / "link.mp4")
    with pytest.raises(DataError, match=r"data.jsonl:1 \(id 'a'\): media\[0\].path: 'link.mp4' leaves the media root"):
        load_examples(write_rows(folder / "data.jsonl", media("link.mp4")))


def remedied(error: DataError) -> list[str]:
    """The `media_roots` that a message tells to write, read as the YAML it is."""
    [remedy] = set(re.findall(r"`(media_roots: .*)`", str(error)))
    return yaml.safe_load(remedy)["media_roots"]


@pytest.mark.parametrize("through", ["file", "config"])
def test_the_links_of_a_hugging_face_cache_are_allowed_by_the_setting_that_the_message_names(tmp_path, through):
    """The remedy is applied as it is written. Mutants: the link's own folder named, the name without its ending kept."""
    repo = tmp_path / "datasets--me--films"
    clips = repo / "snapshots" / "0a1b" / "clips"
    (repo / "blobs").mkdir(parents=True)
    clips.mkdir(parents=True)
    for name in ("1", "2"):
        (repo / "blobs" / f"hash{name}").write_bytes(b"x")
        os.symlink(f"../../../blobs/hash{name}", clips / f"{name}.mp4")
    rows = [{**media(f"clips/{name}.mp4"), "id": name} for name in ("1", "2")]
    file = write_rows(repo / "snapshots" / "0a1b" / "data.jsonl", *rows)
    with pytest.raises(DataError, match=r"'clips/1\.mp4' leaves the media root .* leads to .*hash1; .*allow") as error:
        load_examples(file)
    roots = remedied(error.value)
    assert roots == [str(repo / "blobs")]
    if through == "config":
        roots = DataArguments(media_roots=roots[0]).media_roots  # one folder needs no brackets
        found = load_sources(str(file), media_roots=roots)
    else:
        found = load_examples(file, media_roots=roots)
    assert [Path(e.media[0].path) for e in found] == [clips / "1.mp4", clips / "2.mp4"]


@pytest.mark.parametrize("depth", ["clips", "clips/a/b"])
def test_a_media_folder_that_is_a_link_to_another_disk_needs_one_further_root(tmp_path, depth):
    """Mutant: the folder of each file named, which asks for as many roots as there are folders."""
    disk, data = tmp_path / "disk", tmp_path / "data"
    data.mkdir()
    (disk / depth).mkdir(parents=True)
    (disk / depth / "1.mp4").write_bytes(b"x")
    os.symlink(disk / "clips", data / "clips")
    file = write_rows(data / "data.jsonl", media(f"{depth}/1.mp4"))
    with pytest.raises(DataError) as error:
        load_examples(file)
    roots = remedied(error.value)
    assert roots == [str(disk / "clips")]
    [example] = load_examples(file, media_roots=roots)
    assert Path(example.media[0].path) == disk / depth / "1.mp4"


def test_a_further_root_allows_itself_alone(folder, tmp_path):
    """Mutants: any further root as leave for every path; `..` or an absolute path let through."""
    allowed, secret = tmp_path / "allowed", tmp_path / "allowed_not"
    for place in (allowed, secret):
        place.mkdir()
        (place / "x.mp4").write_bytes(b"x")
    os.symlink(allowed / "x.mp4", folder / "fine.mp4")
    os.symlink(secret / "x.mp4", folder / "secret.mp4")
    file = write_rows(folder / "a.jsonl", media("fine.mp4"))
    assert load_examples(file, media_roots=[str(allowed)])
    for path in ("secret.mp4", "../allowed_not/x.mp4", str(secret / "x.mp4"), "../outside.mp4"):
        file = write_rows(folder / "b.jsonl", media(path))
        with pytest.raises(DataError, match="leaves the media root") as error:
            load_examples(file, media_roots=[str(allowed)])
        assert load_examples(file, media_roots=remedied(error.value))


def test_links_within_the_root_are_fine(folder):
    os.symlink("clip.mp4", folder / "same.mp4")
    os.symlink(".", folder / "again")
    for path in ("same.mp4", "again/clip.mp4"):
        assert load_examples(write_rows(folder / "data.jsonl", media(path)))


def test_a_further_root_that_is_not_there_is_refused(folder):
    with pytest.raises(DataError, match=r"media_roots: no folder at .*gone; correct the path, or take it out"):
        load_examples(write_rows(folder / "data.jsonl", media()), media_roots=[str(folder / "gone")])


def test_links_in_a_circle_are_refused(folder):
    os.symlink(folder / "b.mp4", folder / "a.mp4")
    os.symlink(folder / "a.mp4", folder / "b.mp4")
    with pytest.raises(DataError, match=r"data.jsonl:1 \(id 'a'\): media\[0\].path: .*fix the path"):
        load_examples(write_rows(folder / "data.jsonl", media("a.mp4")))


def test_a_root_that_is_itself_a_link_holds_its_files(folder):
    os.symlink(folder, folder.parent / "alias")
    [example] = load_examples(write_rows(folder / "d.jsonl", media()), media_root=folder.parent / "alias")
    assert Path(example.media[0].path) == folder / "clip.mp4"


def test_every_bad_row_of_a_file_is_listed_broken_lines_too(folder):
    """Mutant: raising at the first line that is not JSON, or not UTF-8."""
    file = write_rows(folder / "data.jsonl", "{'id': 1}", GOOD, "[1, 2]", {**GOOD, "id": "b", "extra": 1}, "")
    file.write_bytes(file.read_bytes() + b'{"id": "\xff"}\n')
    with pytest.raises(DataError) as error:
        load_examples(file)
    head, *lines = str(error.value).splitlines()
    assert head == "4 problem(s) in the data:"
    assert [line.split(": ")[0] for line in lines] == [f"{file}:1", f"{file}:3", f"{file}:4 (id 'b')", f"{file}:6"]
    assert re.search(r"not JSON \(.*; write one object a line, in UTF-8", lines[0])
    assert re.search(r"expected a JSON object, got \[1, 2\]", lines[1])
    assert re.search(r"not JSON \('utf-8' codec", lines[3])


@pytest.mark.parametrize("kind", ["multiple choice", "emotion", "label"])
@pytest.mark.parametrize(
    "options",
    [
        ["A. happy", "B. sad"],
        ["A、happy", "B、sad"],
        ["A：happy", "B：sad"],
        ["A．happy", "B．sad"],
        ["A) happy", "B) sad"],
        ["(A) happy", "(B) sad"],
        ["1. happy", "2. sad"],
        ["（1）happy", "（2）sad"],
    ],
)
def test_options_that_bring_letters_or_numbers_take_every_gold_answer_that_names_one(tmp_path, options, kind):
    """Mutants: letters known after a full stop alone; numbers taken for text; labels compared with their letters on."""
    mark = "2" if "2" in options[1] else "B"
    golds = [mark, "sad", options[1], f"({mark})", f"{mark}. sad"]
    rows = [
        {**GOOD, "id": gold, "problem_type": kind, "options": options, "solution": gold}
        for gold in dict.fromkeys(golds)
    ]
    for example in load_examples(write_rows(tmp_path / "rows.jsonl", *rows)):
        for answer in (*golds, "The answer is sad" if kind == "multiple choice" else "Sad."):
            assert answer_score(answer, example.solution, kind, example.options) == 1.0, (answer, example.solution)
        for answer in (options[0], "happy", f"{mark}. happy", "1" if mark == "2" else "A"):
            assert answer_score(answer, example.solution, kind, example.options) == 0.0, (answer, example.solution)


def test_a_number_that_is_one_option_and_the_text_of_another_is_no_gold_answer(tmp_path):
    row = {**GOOD, "problem_type": "multiple choice", "options": ["1. 2", "2. 1"], "solution": "2"}
    with pytest.raises(DataError, match=r"rows\.jsonl:1 .*solution: .*not one of the options"):
        load_examples(write_rows(tmp_path / "rows.jsonl", row))
    [example] = load_examples(write_rows(tmp_path / "rows.jsonl", {**row, "solution": "B"}))  # the remedy
    assert answer_score("B. 1", "B", "multiple choice", example.options) == 1.0


def test_many_bad_rows_are_counted_and_the_first_twenty_written_out(folder):
    file = write_rows(folder / "data.jsonl", *({**GOOD, "id": f"r{i}", "problem": ""} for i in range(25)))
    with pytest.raises(DataError) as error:
        load_examples(file)
    lines = str(error.value).splitlines()
    assert lines[0] == "25 problem(s) in the data:" and lines[-1] == "… and 5 more"
    assert len(lines) == MAX_REPORTED + 2 and "'r19'" in lines[-2]


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_is_refused_by_name(folder, content):
    (folder / "data.jsonl").write_text(content)
    with pytest.raises(DataError, match=r"data\.jsonl: no rows.*; write one JSON object a line"):
        load_examples(folder / "data.jsonl")


def test_a_missing_file_is_named_with_the_field_to_look_at(folder):
    with pytest.raises(FileNotFoundError, match=r"no data file at /.*gone\.jsonl; check `train_file`"):
        load_examples(folder / "gone.jsonl")


def test_an_id_used_twice_is_refused_within_a_file_and_over_files(folder):
    """Mutant: ids forgotten between files."""
    one = write_rows(folder / "one.jsonl", GOOD, {**GOOD, "id": "b"})
    two = write_rows(folder / "two.jsonl", {**GOOD, "id": "c"}, {**GOOD, "id": "b"})
    twice = write_rows(folder / "twice.jsonl", GOOD, GOOD)
    with pytest.raises(DataError, match=rf"{twice}:2 \(id 'a'\): id: already used at {twice}:1; ids are unique"):
        load_examples(twice)
    with pytest.raises(DataError, match=rf"{two}:2 \(id 'b'\): id: already used at {one}:2; ids are unique"):
        load_sources(f"{one}, {two}")


def test_paths_are_relative_to_the_file_or_to_the_media_root(folder):
    elsewhere = folder.parent / "rows" / "data.jsonl"
    elsewhere.parent.mkdir()
    row = media("clip.mp4", use_audio="if_present")
    beside = load_examples(write_rows(folder / "data.jsonl", row))
    rooted = load_examples(write_rows(elsewhere, row), media_root=folder)
    assert beside == rooted
    assert beside[0].media == (MediaItem("video", str(folder / "clip.mp4"), "if_present"),)
    with pytest.raises(DataError, match="no file at"):
        load_examples(elsewhere)


def test_a_relative_media_root_gives_absolute_paths(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    [example] = load_examples(write_rows(folder / "data.jsonl", media()), media_root="root")
    assert example.media[0].path == str(folder / "clip.mp4")


TEXT = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)


@given(
    st.fixed_dictionaries(
        {"id": TEXT, "problem": TEXT, "problem_type": st.sampled_from(sorted(PROBLEM_TYPES))},
        optional={
            "context": TEXT,
            "target": TEXT,
            "meta": st.dictionaries(TEXT, st.integers() | TEXT),
            "media": st.lists(
                st.fixed_dictionaries(
                    {"type": st.just("video"), "path": st.sampled_from(["clip.mp4", "./clip.mp4"])},
                    optional={"use_audio": st.sampled_from([None, True, False, "if_present"])},
                ),
                max_size=3,
            ),
        },
    )
)
def test_good_rows_come_through_unchanged(tmp_path_factory, row):
    root = tmp_path_factory.mktemp("root")
    (root / "clip.mp4").write_bytes(b"x")
    row["solution"] = GOLD.get(row["problem_type"], "yes")
    if row["problem_type"] in CHOICE_TYPES:
        row["options"] = ["red", "blue"]
    assert check_row(row, root) == []
    [example] = load_examples(write_rows(root / "data.jsonl", row))
    for name in ("id", "problem", "problem_type", "solution", "context", "target"):
        assert getattr(example, name) == row.get(name)
    assert list(example.options or ()) == row.get("options", [])
    assert example.meta == row.get("meta", {})
    assert [(m.type, m.path, m.use_audio) for m in example.media] == [
        (m["type"], str(root / "clip.mp4"), m.get("use_audio") or False) for m in row.get("media", [])
    ]


@given(
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x), max_leaves=4), st.data()
)
def test_any_value_in_any_field_is_judged_never_a_crash(tmp_path_factory, value, data):
    """Whatever JSON holds, the answer is a list of problems; a row that passes loads."""
    row = {**media("gone.mp4"), data.draw(st.sampled_from([*FIELDS, "other"])): value}
    for problem in check_row(row, tmp_path_factory.getbasetemp()):
        assert re.match(r"(\w+(\[\d+\](\.\w+)?)?: |unknown fields )", problem)


def test_the_table_has_a_line_a_field():
    lines = schema_table().splitlines()
    assert [re.match(r"\| `(\w+)` \|", line)[1] for line in lines[2:]] == list(FIELDS)
    assert all(line.count(" | ") == 3 for line in lines[2:])
