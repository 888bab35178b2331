# SPDX-License-Identifier: Apache-2.0
"""The same rows from every kind of file, in every encoding and from every split; what cannot be read is refused by name."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from pathlib import Path

import pytest
from datasets import Audio, Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st

from omni_grpo.config import DataArguments
from omni_grpo.data.dataset import load_sources
from omni_grpo.data.rows.conversion import convert
from omni_grpo.data.rows.loading import load_examples
from omni_grpo.data.rows.schema import DataError
from omni_grpo.evaluation.arguments import EvalArguments
from omni_grpo.evaluation.benchmarks.records import read_json

ROWS = [
    {"id": "a", "problem": "Is it loud?", "problem_type": "yes_no", "solution": "yes", "context": 'A "bang", 很响.'},
    {
        "id": "b",
        "problem": "Which?",
        "problem_type": "multiple choice",
        "solution": "42",
        "options": ["41", "42"],
        "media": [{"type": "image", "path": "a.png"}, {"type": "video", "path": "a.mp4", "use_audio": True}],
    },
    {"id": "7", "problem": "How many?", "problem_type": "numerical", "solution": "042", "meta": {"by": "me"}},
]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Where the files lie; media are not looked at here."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for name in ("a.png", "a.mp4"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def lines(rows=ROWS) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(rows=ROWS) -> Dataset:
    names = dict.fromkeys(name for row in rows for name in row)
    return Dataset.from_list([dict.fromkeys(names) | row for row in rows])


def cells(rows=ROWS, delimiter=",") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), delimiter=delimiter)
    writer.writeheader()
    writer.writerows({k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows)
    return text.getvalue().encode()


BOM, ARRAY = b"\xef\xbb\xbf", json.dumps(ROWS, indent=2, ensure_ascii=False).encode()
FILES = {
    "rows.jsonl": lines(),
    "bom.jsonl": BOM + lines(),
    "two_boms.jsonl": BOM + lines(ROWS[:1]) + BOM + lines(ROWS[1:]),  # two files put together
    "windows.jsonl": lines().replace(b"\n", b"\r\n"),
    "powershell.jsonl": lines().decode().encode("utf-16"),
    "rows.ndjson": lines(),
    "rows.txt": lines(),
    "no_ending": lines(),
    "lines.json": lines(),
    "array.json": ARRAY,
    "bom_array.json": BOM + b"\n" + ARRAY,
    "powershell.json": ARRAY.decode().encode("utf-16"),
    "array.jsonl": ARRAY,
    "one_line.jsonl": json.dumps(ROWS).encode(),
    "rows.jsonl.gz": gzip.compress(BOM + lines()),
    "ROWS.JSON.GZ": gzip.compress(ARRAY),
    "rows.csv": cells(),
    "bom.csv": BOM + cells(),
    "rows.tsv": cells(delimiter="\t"),
    "rows.csv.gz": gzip.compress(cells()),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_holds_the_same_rows_whatever_its_form(folder, name):
    """Mutants: UTF-8 without its mark, lines alone, CSV cells as numbers (`042`), or JSON in a cell left a text."""
    (folder / name).write_bytes(FILES[name])
    (folder / "plain.jsonl").write_bytes(lines())
    assert load_examples(folder / name) == load_examples(folder / "plain.jsonl")
    assert load_sources(f"{folder / name}") == load_examples(folder / name, split="test")


def test_parquet_and_arrow_hold_the_same_rows(folder):
    (folder / "plain.jsonl").write_bytes(lines())
    table().to_parquet(folder / "rows.parquet")
    table().save_to_disk(folder / "saved")
    [arrow] = (folder / "saved").glob("*.arrow")
    arrow.rename(folder / "rows.arrow")
    for name in ("rows.parquet", "rows.arrow"):
        assert load_examples(folder / name) == load_examples(folder / "plain.jsonl")


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip), min_size=1, max_size=3))
def test_any_text_survives_any_form(tmp_path_factory, texts):
    root = tmp_path_factory.mktemp("rows")
    rows = [{**ROWS[0], "id": str(i), "problem": text.replace("\r", " ")} for i, text in enumerate(texts)]
    wanted = [row["problem"] for row in rows]
    for name, content in {
        "a.jsonl": BOM + lines(rows),
        "a.json": json.dumps(rows, indent=1).encode(),
        "u.jsonl": lines(rows).decode().encode("utf-16"),
        "a.csv": cells(rows),
    }.items():
        (root / name).write_bytes(content)
        if "\0" not in "".join(wanted) or not name.endswith("csv"):
            assert [e.problem for e in load_examples(root / name)] == wanted, name


# name -> content, what the one message says
BROKEN = {
    "cut.json": (ARRAY[:-40], r"cut\.json: not a JSON array \(.*; write one object a line"),
    "cut.jsonl.gz": (
        gzip.compress(lines())[:-20],
        r"cut\.jsonl\.gz: cannot be read as \.gz \(.*; get or write it again",
    ),
    "plain.jsonl.gz": (lines(), r"plain\.jsonl\.gz: cannot be read as \.gz \(.*; get or write it again"),
    "cut.parquet": (b"PAR1 and so on", r"cut\.parquet: cannot be read as \.parquet \(.*; get or write it again"),
    "no.arrow": (b"ARROW1 and so on", r"no\.arrow: cannot be read as \.arrow \(.*; get or write it again"),
    "rows.xlsx": (b"PK\x03\x04 ...", r"rows\.xlsx: \.xlsx is not read; write the rows as one of \.jsonl, .*\.parquet"),
    "rows.jsonl.xz": (b"\xfd7zXZ", r"rows\.jsonl\.xz: \.xz is not read"),
    "rows.pkl": (b"\x80\x04", r"rows\.pkl: \.pkl is not read"),
    "wide.csv": (b"id,problem\na,b,c\n", r"wide\.csv:2: more cells than the header has \(\['c'\]\); put quotes"),
    "latin.csv": ("id,problem\na,été\n".encode("latin-1"), r"latin\.csv: not CSV in UTF-8 \(.*; write it anew"),
    "cells.csv": (b"id,options\na,[yes\n", r"cells\.csv:2: options, .*: not JSON \(.*; write a list or object into"),
    "quote.csv": (b'id,problem\na,"b\n', r"quote\.csv: not CSV in UTF-8 \(.*; write it anew"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_refused_once_by_name_with_the_remedy(folder, name):
    """Mutant: Parquet or a broken array told line by line as no JSON."""
    content, message = BROKEN[name]
    (folder / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        load_examples(folder / name)
    assert re.search(message, str(error.value)) and len(str(error.value).splitlines()) <= 2


def test_embedded_sounds_are_refused_by_column(folder):
    """`datasets` would need another package to decode them, and the model would not hear them."""
    rows = Dataset.from_list([{**ROWS[0], "voice": {"path": None, "bytes": b"RIFF"}}]).cast_column("voice", Audio())
    rows.to_parquet(folder / "rows.parquet")
    with pytest.raises(
        DataError, match=r"rows\.parquet: column 'voice' embeds sounds or films; write files and name them in `media`"
    ):
        load_examples(folder / "rows.parquet")


@pytest.fixture(params=["folder", "saved"])
def splits(folder, request) -> str:
    """A data set with three splits of one row each: a folder of files, and what `save_to_disk` writes."""
    whole = {name: [{**ROWS[0], "id": name}] for name in ("train", "validation", "test")}
    if request.param == "saved":
        DatasetDict({name: Dataset.from_list(rows) for name, rows in whole.items()}).save_to_disk(folder / "set")
    for name, rows in whole.items():
        (folder / "set").mkdir(exist_ok=True)
        if request.param == "folder":
            (folder / "set" / f"{name}.jsonl").write_bytes(lines(rows))
    return str(folder / "set")


def ids(examples) -> list[str]:
    return [example.id for example in examples]


def test_each_field_reads_its_own_split(splits):
    """Mutant: `test_file` and `validation_file` read from `train`, as they were."""
    data, test = DataArguments(), EvalArguments(models=["a=b"], test_file=splits, output_dir="x")
    assert (data.train_split, data.validation_split, test.test_split) == ("train", "validation", "test")
    for split in (data.train_split, data.validation_split, test.test_split):
        assert ids(load_sources(splits, split=split)) == ids(load_examples(splits, split=split)) == [split]


def test_a_split_is_named_behind_the_data_set_and_wins_over_the_field(splits):
    assert ids(load_sources(f"{splits}[test], {splits}, {splits}[validation]")) == ["test", "train", "validation"]


@pytest.mark.parametrize("how", ["field", "name"])
def test_an_absent_split_lists_those_there_are_and_one_of_them_is_read(splits, how):
    with pytest.raises(DataError, match=r"set\[dev\]: .*train.*validation.*test.*Name a split as `.*set\[split\]`"):
        load_examples(splits, split="dev") if how == "field" else load_examples(f"{splits}[dev]", split="test")
    assert ids(load_examples(f"{splits}[validation]")) == ["validation"]  # the remedy


def test_a_file_has_no_split_and_a_name_with_brackets_is_a_name(folder):
    (folder / "rows.jsonl").write_bytes(lines())
    (folder / "rows[test]").write_bytes(lines())
    for source, split in ((f"{folder}/rows.jsonl[test]", "train"), (f"{folder}/rows.jsonl", "dev")):
        with pytest.raises(DataError, match=r"a file has no split '(test|dev)'; name the file of that split alone"):
            load_examples(source, split=split)
    assert load_examples(folder / "rows[test]") == load_examples(folder / "rows.jsonl")


@pytest.mark.parametrize("name", ["gone.parquet", "gone.json.gz", "gone.csv"])
def test_a_missing_file_is_no_data_set(folder, name):
    with pytest.raises(FileNotFoundError, match=rf"no data file at /.*{name}; check `train_file`, .*`test_file`"):
        load_examples(folder / name)


def test_published_files_may_begin_with_a_mark_too(folder):
    record = {
        "video": "a.mp4",
        "conversations": [{"from": "human", "value": "<video>Which?"}, {"from": "gpt", "value": "sad"}],
    }
    (folder / "released.json").write_bytes(BOM + json.dumps([record]).encode())
    assert convert(folder / "released.json", folder / "rows.jsonl", "r1_omni") == 1
    assert read_json(folder / "released.json", list) == [record]
