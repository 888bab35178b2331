# SPDX-License-Identifier: Apache-2.0
"""A stage is run when its output is not there or its inputs changed, and never destroys another run."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from omni_grpo.launch.scripts import begin, claim
from omni_grpo.launch.stages import RECORD, Stage, fingerprint, read_fields

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def argv(tmp_path):
    """A command line whose data file and model directory are there."""
    (tmp_path / "train.jsonl").write_text("{}\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "model" / "config.json").write_text("{}")
    fields = {
        "output_dir": str(tmp_path / "run"),
        "train_file": str(tmp_path / "train.jsonl"),
        "model_name_or_path": str(tmp_path / "model"),
        "learning_rate": 1e-5,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(fields))
    return ["--config", str(tmp_path / "run.yaml")]


def run(argv) -> Stage | None:
    """What an entry script does, without the training."""
    if (stage := claim(argv)) is not None:
        begin(stage)
        (stage.folder / "weights").write_text(str(argv))
        stage.finish(steps=3)
    return stage


def test_a_finished_stage_is_not_run_again_until_its_inputs_change(argv, tmp_path, capsys):
    assert run(argv) is not None
    assert run(argv) is None
    assert f"{tmp_path / 'run'}: done already, inputs unchanged" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / RECORD).read_text())["steps"] == 3


@pytest.mark.parametrize("change", ["field", "data", "weights", "model config", "new model file"])
def test_a_changed_input_runs_the_stage_and_sets_the_other_run_aside(argv, tmp_path, capsys, change):
    """Mutants: deleting the old run; hashing names but not contents."""
    run(argv)
    if change == "data":
        (tmp_path / "train.jsonl").write_text('{"id": "a"}\n')
    elif change == "weights":
        (tmp_path / "model" / "model.safetensors").write_bytes(b"weightz")
    elif change == "model config":
        (tmp_path / "model" / "config.json").write_text('{"a": 1}')
    elif change == "new model file":
        (tmp_path / "model" / "adapter.safetensors").write_bytes(b"lora")
    assert run([*argv, "--learning_rate", "2e-5"] if change == "field" else argv) is not None
    [aside] = tmp_path.glob("run.2*")
    assert (aside / "weights").is_file() and (aside / RECORD).is_file()
    assert f"{tmp_path / 'run'} held a run of other inputs; it is now {aside}" in capsys.readouterr().out


def test_what_is_no_input_changes_nothing(argv, tmp_path):
    before = Stage.of(argv).fingerprint
    (tmp_path / "model" / "notes.txt").write_text("x")
    (tmp_path / "model" / RECORD).write_text('{"seconds": 3}')
    (tmp_path / "other.jsonl").write_text("x")
    assert Stage.of(argv).fingerprint == before


def test_runs_set_aside_in_one_second_keep_apart(argv, tmp_path):
    """Mutant: one name a second, where the third rename fails on a folder that is not empty."""
    for rate in ("1e-5", "2e-5", "3e-5", "4e-5"):
        run([*argv, "--learning_rate", rate])
    asides = list(tmp_path.glob("run.2*"))
    assert len(asides) == 3
    assert len({(a / "weights").read_text() for a in asides} | {(tmp_path / "run" / "weights").read_text()}) == 4


def test_an_interrupted_stage_goes_on_in_its_folder(argv, tmp_path):
    begin(claim(argv))
    (tmp_path / "run" / "checkpoint-5").mkdir()
    again = claim(argv)
    assert again is not None and not again.is_done()
    begin(again)
    assert (tmp_path / "run" / "checkpoint-5").is_dir() and not list(tmp_path.glob("run.2*"))
    again.finish()
    assert claim(argv) is None


def test_asking_touches_nothing(argv, tmp_path):
    """Mutant: claiming the folder before the fields were parsed."""
    run(argv)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    assert claim([*argv, "--learning_rte", "1"]) is not None
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("script", ["sft_omni", "grpo_omni", "eval_omni"])
def test_a_mistyped_field_leaves_a_finished_run_where_it_is(argv, tmp_path, script):
    run(argv)
    with pytest.raises(ValueError, match="no such config key"):
        import_module(script).main(["--zzz", "1", *argv])
    assert claim(argv) is None and not list(tmp_path.glob("run.2*"))


def test_a_finished_stage_answers_before_torch_is_imported(argv):
    run(argv)
    command = [sys.executable, "-X", "importtime", str(RECIPES / "sft_omni.py"), *argv]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "done already, inputs unchanged" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "omni_grpo.launch.stages" in imported and imported.isdisjoint({"torch", "trl", "transformers"})


def test_only_the_first_process_writes(argv, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    begin(claim(argv))
    assert not (tmp_path / "run").exists()


def test_a_stage_without_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"output_dir: not given; name a folder for this run"):
        claim(["--learning_rate", "1"])


def test_models_and_lists_of_files_are_inputs_each(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("1")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.safetensors").write_bytes(b"1")
    fields = {
        "train_file": f"{tmp_path}/a.jsonl, {tmp_path}/b.jsonl",
        "models": [f"base={tmp_path}/m", "hub=some/name"],
    }
    seen = {fingerprint(fields)}
    (tmp_path / "b.jsonl").write_text("2")
    seen.add(fingerprint(fields))
    (tmp_path / "m" / "model.safetensors").write_bytes(b"2")
    seen.add(fingerprint(fields))
    assert len(seen) == 3


def test_an_equals_sign_in_a_data_files_name_is_part_of_it(tmp_path):
    file = tmp_path / "fold=1" / "train.jsonl"
    file.parent.mkdir()
    file.write_text("1")
    before = fingerprint({"train_file": str(file)})
    file.write_text("2")
    assert fingerprint({"train_file": str(file)}) != before


@pytest.mark.parametrize(
    "written",
    [["--output_dir", "b"], ["--output-dir", "b"], ["--output_dir=b"], ["--output-dir=b"]],
)
def test_the_command_line_goes_over_the_file_however_it_is_spelt(argv, written):
    """Mutant: a folder given as `--output-dir` is not seen, and the run of the file's folder is set aside."""
    assert Stage.of([*argv, *written]).folder == Path("b")


NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda name: name != "config")
VALUES = st.from_regex(r"[a-zA-Z0-9./=,:-][a-zA-Z0-9./=,: -]{0,8}", fullmatch=True).filter(
    lambda v: not v.startswith("--")
)


@given(st.dictionaries(NAMES, st.lists(VALUES, max_size=3), max_size=5))
def test_fields_are_read_as_they_are_written(fields):
    argv = [part for name, values in fields.items() for part in (f"--{name}", *values)]
    expected = {n: "true" if not v else v[0] if len(v) == 1 else v for n, v in fields.items()}
    assert read_fields(argv) == expected
    joined = [f"--{name}={values[0]}" for name, values in fields.items() if len(values) == 1]
    assert read_fields(joined) == {n: v[0] for n, v in fields.items() if len(v) == 1}
