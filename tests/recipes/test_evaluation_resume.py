# SPDX-License-Identifier: Apache-2.0
"""A killed evaluation loses no row and scores none twice, whatever it was doing and on however many processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import forked_scripts
from omni_grpo.data.rows.schema import Example
from omni_grpo.evaluation import evaluate as evaluation
from omni_grpo.evaluation import prediction_files
from omni_grpo.evaluation.evaluate import Share, predict
from omni_grpo.evaluation.prediction_files import finished, merge, part_file
from omni_grpo.rollout.answers import Completion

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = [
    Example(id=f"row{i}", problem="Wörter — agree?", problem_type="yes_no", solution="no" if i % 3 else "yes")
    for i in range(11)
]
IDS = [example.id for example in EXAMPLES]


class Killed(BaseException):
    """What stops a process here, past every `except`."""


def encoder(messages, name="", blank=()):
    return SimpleNamespace(name=name)


encoder.settings = SimpleNamespace(load_audio_from_video=False)
encoder.expect = lambda prompts, blank=(): None
encoder.processor = None


def generate(model, processor, embedder, rows, max_new_tokens, engine=None):
    """A text tells which rows were generated together, as rounding does in a real model."""
    together = "/".join(row.name for row in rows)
    return [Completion(f"<answer>no</answer> {row.name} of {together} ✓", 3, 0.5, False) for row in rows]


@pytest.fixture(scope="module", autouse=True)
def without_a_model():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "generate", generate)
        yield


def answer(folder: Path, processes: int) -> list[str]:
    """Run the evaluation on so many processes, one after another; returns the ids that were scored."""
    scored: list[str] = []

    def row(example, *arguments):
        scored.append(example.id)
        return made(example, *arguments)

    made = evaluation.prediction_row
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "prediction_row", row)
        for index in reversed(range(processes)):  # the first puts the parts together, so it comes last
            predict(
                None,
                None,
                encoder,
                EXAMPLES,
                "short",
                "full",
                folder / "predictions.jsonl",
                batch_size=3,
                share=Share(index, processes),
            )
    return scored


def content(folder: Path) -> bytes:
    assert [path.name for path in folder.iterdir()] == ["predictions.jsonl"]
    return (folder / "predictions.jsonl").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    answer(folder, 1)
    return content(folder)


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_any_number_of_processes_gives_the_file_of_one(whole, tmp_path, processes):
    """Mutants: shares of rows in place of batches, parts put together in the order of the processes."""
    answer(tmp_path, processes)
    assert content(tmp_path) == whole


@settings(max_examples=60)
@given(processes=st.tuples(st.integers(1, 3), st.integers(1, 3)), data=st.data())
def test_cut_at_any_byte_it_ends_in_the_same_file(whole, processes, data):
    """
    Every file of the first run is cut anywhere, in a character as well; the second has its own number of processes.

    Mutants: a torn line taken for a row, whole rows thrown away with it, a batch of which some rows are there
    generated without them, parts of processes that no longer exist forgotten.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with pytest.MonkeyPatch.context() as patch:  # killed before the parts are put together
            patch.setattr(evaluation, "merge", lambda file, ids: [])
            answer(folder, processes[0])
        kept: list[str] = []
        for path in sorted(folder.iterdir()):
            path.write_bytes(path.read_bytes()[: data.draw(st.integers(0, path.stat().st_size), label=path.name)])
            kept += [json.loads(line)["id"] for line in path.read_bytes().split(b"\n")[:-1]]
        scored = answer(folder, processes[1])
        assert sorted(kept + scored) == sorted(IDS), "lost, or scored twice"
        assert content(folder) == whole


@settings(max_examples=25)
@given(processes=st.integers(1, 3), fatal=st.integers(0, 6))
def test_killed_while_the_parts_are_put_together(whole, processes, fatal):
    """Before or after each rename and deletion. Mutant: parts deleted before the whole is on disk under a name."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder, steps = Path(name), iter(range(100))

        def mortal(act):
            def step(*arguments, **keywords):
                if next(steps) == fatal:
                    raise Killed
                act(*arguments, **keywords)
                if next(steps) == fatal:
                    raise Killed

            return step

        patch.setattr(prediction_files.os, "replace", mortal(os.replace))
        patch.setattr(prediction_files.Path, "unlink", mortal(Path.unlink))
        try:
            answer(folder, processes)
        except Killed:
            patch.undo()
            assert answer(folder, 2) == [], "all rows were written; none is scored again"
        patch.undo()
        (folder / "predictions.tmp").unlink(missing_ok=True)
        assert content(folder) == whole


def test_an_empty_folder_and_a_finished_one(tmp_path, whole):
    file = tmp_path / "predictions.jsonl"
    assert finished(file, part_file(file, 0, 1), IDS) == {}
    file.write_bytes(whole)
    assert answer(tmp_path, 3) == [] and content(tmp_path) == whole


def test_rows_of_another_test_file_are_refused(tmp_path, whole):
    file = tmp_path / "predictions.jsonl"
    file.write_bytes(whole)
    with pytest.raises(ValueError, match="'row10' is not among the questions"):
        finished(file, file, IDS[:-1])
    file.write_bytes(whole + whole.split(b"\n")[0] + b"\n")
    with pytest.raises(ValueError, match="'row0' is twice"):
        finished(file, file, IDS)
    file.write_bytes(b"\n".join(whole.split(b"\n")[1:]))
    with pytest.raises(ValueError, match="1 of 11 rows are missing, 'row0' first"):
        merge(file, IDS)


@pytest.fixture(scope="module")
def real(tiny, mixed_file, tmp_path_factory):
    """Command line of a real evaluation of eight rows in batches of three."""
    folder = tmp_path_factory.mktemp("real")

    def arguments(name: str) -> list[str]:
        fields = {
            "models": f"m={tiny}",
            "test_file": mixed_file,
            "output_dir": folder / name / "eval",
            "prompt_style": "short",
            "num_frames": 2,
            "min_pixels": 3136,
            "max_pixels": 3136,
            "batch_size": 3,
            "max_new_tokens": 5,
        }
        config = folder / f"{name}.yaml"
        config.write_text("".join(f"{k}: {[v] if k == 'models' else v}\n" for k, v in fields.items()))
        return ["--config", str(config)]

    def rows(name: str) -> list[dict]:
        file = folder / name / "eval" / "m" / "predictions.jsonl"
        lines = file.read_text(encoding="utf-8").split("\n")[:-1]
        return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]

    return SimpleNamespace(arguments=arguments, rows=rows, folder=folder)


def run_script(*arguments: str) -> subprocess.CompletedProcess:
    if arguments[0].endswith(".py"):
        return forked_scripts.run(arguments, env={**os.environ}, cwd=REPOSITORY)
    return subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, text=True)


def test_a_process_that_is_killed_goes_on_at_the_row(real):
    """The real script, model and media; signal 9 in the middle of a line."""
    import eval_omni

    died = run_script("tests/killed_evaluation.py", "eval_omni", *real.arguments("cut"))
    assert died.returncode == -signal.SIGKILL, died.stderr
    torn = (real.folder / "cut" / "eval" / "m" / "predictions.jsonl").read_bytes()
    assert torn.count(b"\n") == 4 and not torn.endswith(b"\n")
    with pytest.MonkeyPatch.context() as patch:
        from omni_grpo.rollout import answers as generation

        patch.setattr(evaluation, "generate", generation.generate)
        eval_omni.main(real.arguments("cut"))
        eval_omni.main(real.arguments("uncut"))
    assert real.rows("cut") == real.rows("uncut")
    resumed = (real.folder / "cut" / "eval" / "m" / "predictions.jsonl").read_bytes()
    assert resumed.startswith(torn[: torn.rindex(b"\n") + 1]), "what was written stays as it is"


@pytest.mark.distributed
def test_two_processes_give_the_rows_of_one(real):
    """Mutant: rows in the order in which the processes wrote them."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "recipes/eval_omni.py"]
    done = run_script(*launcher, *real.arguments("two"))
    assert done.returncode == 0, done.stderr
    alone = run_script("recipes/eval_omni.py", *real.arguments("alone"))
    assert alone.returncode == 0, alone.stderr
    assert real.rows("two") == real.rows("alone")
    assert json.loads((real.folder / "two" / "metrics.json").read_text())["stages"]["m"]["n"] == 8


@pytest.mark.distributed
def test_cut_on_two_processes_it_goes_on_on_one(real):
    """Mutant: `Stage.kept_rows` for an evaluation as well, which adds a field of training to its command."""
    import eval_omni

    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    assert run_script(*launcher, "tests/killed_evaluation.py", "eval_omni", *real.arguments("moved")).returncode == 1
    assert json.loads((real.folder / "moved" / "eval" / "stage.json").read_text())["processes"] == 2
    with pytest.MonkeyPatch.context() as patch:
        from omni_grpo.rollout import answers as generation

        patch.setattr(evaluation, "generate", generation.generate)
        eval_omni.main(real.arguments("moved"))
        eval_omni.main(real.arguments("stayed"))
    assert real.rows("moved") == real.rows("stayed")
