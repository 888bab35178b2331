# SPDX-License-Identifier: Apache-2.0
"""A stage is run when its output is not there or its inputs changed, and never destroys another run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler
from transformers import TrainingArguments
from trl.trainer.utils import RepeatSampler

from omni_grpo.run.resuming import _DEFAULTS, HARMLESS, changed_rows, keep_rows
from omni_grpo.run.scripts import begin, claim
from omni_grpo.run.stages import RECORD, Stage, fingerprint, read_fields

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
    assert "omni_grpo.run.stages" in imported and imported.isdisjoint({"torch", "trl", "transformers"})


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


FOLDER_CHANGES = {
    "content": lambda f: (f / "data/train.jsonl").write_text('{"id": "b"}\n'),
    "below": lambda f: (f / "data/parts/1/train-1.csv").write_text("id\nb\n"),
    "new": lambda f: (f / "data/parts/train-2.jsonl").write_text("{}\n"),
    "gone": lambda f: (f / "data/parts/1/train-1.csv").unlink(),
    "renamed": lambda f: (f / "data/train.jsonl").rename(f / "data/test.jsonl"),
    "linked": lambda f: (f / "elsewhere/train.jsonl").write_text("[]"),
    "no row": lambda f: (f / "data/README.md").write_text("---\nconfigs: []\n---\n"),
}
NO_CHANGES = {
    "touched": lambda f: os.utime(f / "data/train.jsonl", (1, 1)),
    "hidden": lambda f: (f / "data/.DS_Store").write_text("x"),
    "the cache": lambda f: (f / "data/decode_cache/x.npy").write_text("x"),
    "the run": lambda f: (f / "data/run/log.jsonl").write_text("{}\n"),
    "another stage": lambda f: (f / "data/sft/checkpoint-1/x.json").write_text("{}\n"),
}


@pytest.mark.parametrize("field", ["train_file", "validation_file", "test_file"])
@pytest.mark.parametrize("split", ["", "[train]"])
@pytest.mark.parametrize("change", [*FOLDER_CHANGES, *NO_CHANGES])
def test_what_a_data_folder_holds_is_an_input(tmp_path, field, split, change):
    """
    All below it that is not the runs' own. Mutants: the files of the folder itself alone; a model's endings for data;
    names without contents; a split behind the name taken for a part of it; links to folders left out; the run's own
    files, the cache, hidden ones counted.
    """
    for name in ("data/train.jsonl", "data/parts/1/train-1.csv", "elsewhere/train.jsonl", "data/decode_cache/y.npy"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"id": "a"}\n')
    (tmp_path / "data/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/sft/checkpoint-1").mkdir(parents=True)
    (tmp_path / "data/sft" / RECORD).write_text("{}")
    argv = [f"--{field}", f"{tmp_path}/data{split}", "--output_dir", f"{tmp_path}/data/run"]
    assert run(argv) is not None and run(argv) is None
    {**FOLDER_CHANGES, **NO_CHANGES}[change](tmp_path)
    stage = claim(argv)
    assert (stage is None) == (change in NO_CHANGES)
    assert stage is None or stage.changes() == {field: "its contents"}


@pytest.mark.parametrize("value", ["", ",", "[train]", "a=", "name"])
def test_nothing_is_read_where_nothing_is_named(tmp_path, monkeypatch, value):
    """Mutant: no path at all taken for the working directory."""
    monkeypatch.chdir(tmp_path)
    fields = {"train_file": value, "models": [f"{value}="]}
    before = fingerprint(fields)
    (tmp_path / "x.json").write_text("{}")
    assert fingerprint(fields) == before


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


def cut(argv, checkpoint: bool = True, processes: int = 1) -> Stage:
    """A run that was killed after it had logged a step and, unless told otherwise, saved a checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", str(processes))
        begin(stage := claim(list(argv)))
    (stage.folder / "log.jsonl").write_text("{}\n")
    if checkpoint:
        (stage.folder / "checkpoint-5").mkdir()
        (stage.folder / "checkpoint-5" / "COMPLETE").touch()
    return stage


HARMLESS_CHANGES = {
    "logging_steps": "7",
    "logging_first_step": "true",
    "log_completions": "true",
    "report_to": "wandb",
    "run_name": "second",
    "save_steps": "3",
    "save_total_limit": "4",
    "eval_strategy": "steps",
    "eval_steps": "9",
    "per_device_eval_batch_size": "2",
    "disable_tqdm": "true",
    "dataloader_num_workers": "2",
    "sampling_threads": "1",
    "decode_cache": "elsewhere",
    "decode_cache_mb": "0",
    "prompt_cache_mb": "1",
    "media_feature_cache": "features",
    "share_prompt": "off",
    "share_media": "off",
    "gradient_checkpointing": "true",
    "activation_checkpointing": "true",
    "push_to_hub": "false",
    "ddp_timeout": "100",
    "wandb_media_files": "0",
}
# Each would make another run of it.
CHANGES = {
    "learning_rate": "2e-5",
    "seed": "1",
    "data_seed": "1",
    "beta": "0.1",
    "num_generations": "4",
    "reward_funcs": "omni_rewards.answer_reward",
    "reward_weights": "0.5",
    "credit_map": "strict",
    "temperature": "0.5",
    "max_completion_length": "5",
    "max_steps": "9",
    "num_train_epochs": "9",
    "prompt_style": "short",
    "num_frames": "4",
    "max_prompt_length": "3",
    "freeze_vision": "true",
    "use_peft": "true",
    "lora_r": "4",
    "dtype": "float32",
    "warmup_steps": "3",
    "gradient_accumulation_steps": "2",
    "steps_per_generation": "2",
    "generation_batch_size": "32",
    "dataloader_drop_last": "true",
    "load_best_model_at_end": "true",
    "train_sampling_strategy": "sequential",
    "context_gain_weight": "1",
    "constrained_decoding": "strict",
    "max_train_seconds": "3",
}


@pytest.mark.parametrize("name", HARMLESS_CHANGES)
def test_a_cut_run_goes_on_whatever_harmless_field_changed(argv, tmp_path, name):
    """Mutant: `eval` taken out of the harmless ones."""
    stage = cut(argv)
    begin(again := claim([*argv, f"--{name}", HARMLESS_CHANGES[name]]))
    assert (again.folder / "checkpoint-5").is_dir() and not list(tmp_path.glob("run.2*"))
    stage.finish()
    assert claim([*argv, f"--{name}", HARMLESS_CHANGES[name]]) is None  # and makes no finished run another


@pytest.mark.parametrize("name", CHANGES)
def test_a_cut_run_whose_field_changed_is_refused_by_name_and_stays(argv, tmp_path, name):
    """Mutant: setting it aside, as if somebody had asked for that."""
    cut(argv)
    changed = [*argv, f"--{name}", CHANGES[name]]
    named = {"gradient_accumulation_steps": "rows a step", "steps_per_generation": "rows a generation"}
    with pytest.raises(
        ValueError, match=rf"run: the run that was cut there .*{named.get(name, name)}: .* → .*{CHANGES[name]}"
    ):
        begin(claim(list(changed)))
    assert (tmp_path / "run" / "checkpoint-5").is_dir() and not list(tmp_path.glob("run.2*"))


def test_every_harmless_pattern_is_of_a_field_there_is():
    """Mutant: a field that upstream renamed, and whose new name is refused."""
    from trl import ModelConfig

    from omni_grpo.config import DataArguments, EvalArguments, OmniGRPOConfig, OmniSFTConfig
    from omni_grpo.data.media.settings import MediaSettings

    classes = (DataArguments, MediaSettings, OmniGRPOConfig, OmniSFTConfig, EvalArguments, ModelConfig)
    known = {f.name for cls in classes for f in fields(cls)}
    assert {*HARMLESS_CHANGES, *CHANGES} <= known
    assert not {name for name in CHANGES if HARMLESS.fullmatch(name)}
    args = TrainingArguments(output_dir="x", use_cpu=True)
    assert {name: getattr(args, name) for name in _DEFAULTS} == _DEFAULTS


REMEDIES = {
    "put back": ([], "checkpoint-5"),
    "`resume: force`": (["--learning_rate", "2e-5", "--resume", "force"], "checkpoint-5"),
    "`resume: fresh`": (["--learning_rate", "2e-5", "--resume", "fresh"], None),
    "another output_dir": (["--learning_rate", "2e-5", "--output_dir", "OTHER"], None),
}


@pytest.mark.parametrize("remedy", REMEDIES)
def test_each_way_out_that_the_refusal_names_is_one(argv, tmp_path, remedy):
    cut(argv)
    with pytest.raises(ValueError) as refused:
        begin(claim([*argv, "--learning_rate", "2e-5"]))
    assert all(way in str(refused.value) for way in ("Put them back", *list(REMEDIES)[1:]))
    words, left = REMEDIES[remedy]
    begin(stage := claim([*argv, *(str(tmp_path / "other") if w == "OTHER" else w for w in words)]))
    assert (stage.folder / "checkpoint-5").is_dir() == (left is not None)
    asides = list(tmp_path.glob("run.2*"))
    assert len(asides) == (remedy == "`resume: fresh`") and all((a / "checkpoint-5").is_dir() for a in asides)
    stage.finish()
    kept = [w for w in words if w not in ("--resume", "force", "fresh")]
    assert claim([*argv, *(str(tmp_path / "other") if w == "OTHER" else w for w in kept)]) is None


def test_a_cut_run_with_another_file_behind_a_field_is_refused_by_that_field(argv, tmp_path):
    """Mutant: comparing names of files alone."""
    cut(argv)
    (tmp_path / "train.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(ValueError, match="train_file: its contents"):
        begin(claim(argv))


def test_a_value_may_be_written_another_way(argv, tmp_path):
    """Mutant: comparing what is written as text, where the command line's `1e-5` is not YAML's 1.0e-05."""
    cut([*argv, "--bf16", "true", "--reward_funcs", "a"])
    text = (tmp_path / "run.yaml").read_text() + "bf16: true\nreward_funcs: [a]\n"
    (tmp_path / "run.yaml").write_text(text)
    begin(claim([*argv, "--learning_rate", "0.00001"]))
    assert not list(tmp_path.glob("run.2*"))


def test_a_run_cut_before_its_first_checkpoint_leaves_nothing_to_refuse_for(argv, tmp_path):
    """With steps in its log it is set aside; one that met a bad row keeps its folder, and what it has read of the rows."""
    begin(claim(argv))
    (tmp_path / "run" / "preflight").write_text("read")
    begin(claim([*argv, "--learning_rate", "2e-5"]))
    assert (tmp_path / "run" / "preflight").is_file() and not list(tmp_path.glob("run.2*"))
    cut([*argv, "--learning_rate", "2e-5"], checkpoint=False)
    begin(claim([*argv, "--learning_rate", "3e-5"]))
    assert len(list(tmp_path.glob("run.2*"))) == 1
    (tmp_path / "run" / "checkpoint-5").mkdir()
    (tmp_path / "run" / "checkpoint-5" / "COMPLETE").touch()
    begin(claim([*argv, "--learning_rate", "3e-5"]))  # the record is of the new fields


@pytest.mark.parametrize("done", [True, False])
def test_a_record_of_before_fields_were_kept(argv, tmp_path, done):
    """Equal inputs go on or are done, as before; others are set aside or, with a checkpoint to lose, refused."""
    stage = cut(argv)
    path = tmp_path / "run" / RECORD
    path.write_text(json.dumps({"fingerprint": stage.fingerprint, "done": done}))
    if done:
        assert claim(argv) is None
        begin(claim([*argv, "--seed", "1"]))
        assert len(list(tmp_path.glob("run.2*"))) == 1
    else:
        with pytest.raises(ValueError, match="some field: which is not known, as an earlier version"):
            begin(claim([*argv, "--seed", "1"]))
        begin(claim([*argv, "--seed", "1", "--resume", "force"]))
        begin(claim([*argv, "--seed", "1"]))
        assert (tmp_path / "run" / "checkpoint-5").is_dir()


def test_a_finished_run_is_done_on_any_number_of_processes_until_fresh_is_asked_for(argv, tmp_path, monkeypatch):
    run(argv)
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert claim(list(argv)) is None
    for words in (["--resume", "fresh"], ["--resume_from_checkpoint", "false"]):
        begin(claim([*argv, *words]))
        Stage.of(argv).finish()
    assert len(list(tmp_path.glob("run.2*"))) == 2


def test_a_named_checkpoint_sets_newer_ones_of_its_run_aside(argv, tmp_path):
    """Mutant: leaving them, where the limit on checkpoints would delete what this run writes before them."""
    cut(argv)
    for _ in range(2):
        (tmp_path / "run" / "checkpoint-10").mkdir()
        begin(claim([*argv, "--resume_from_checkpoint", f"{tmp_path}/run/checkpoint-5"]))
    names = {path.name for path in (tmp_path / "run").glob("*checkpoint-*")}
    assert names == {"checkpoint-5", "superseded-checkpoint-10", "superseded-checkpoint-10-2"}


def test_a_checkpoint_of_another_folder_is_held_to_its_own_run(argv, tmp_path):
    cut(argv)
    words = ["--output_dir", f"{tmp_path}/second", "--resume_from_checkpoint", f"{tmp_path}/run/checkpoint-5"]
    with pytest.raises(ValueError, match=r"learning_rate: 1e-05 → '2e-5'"):
        begin(claim([*argv, *words, "--learning_rate", "2e-5"]))
    begin(claim([*argv, *words]))
    assert (tmp_path / "run" / "checkpoint-5").is_dir() and (tmp_path / "second" / RECORD).is_file()


@pytest.mark.parametrize(
    ("was", "then", "processes", "now", "kept"),
    [
        (2, {}, 1, {}, {"gradient_accumulation_steps": "4"}),
        (1, {}, 2, {}, {"gradient_accumulation_steps": "1"}),
        (1, {}, 1, {"per_device_train_batch_size": 1}, {"gradient_accumulation_steps": "4"}),
        (1, {}, 1, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}, {}),
        (
            2,
            {"steps_per_generation": 4},
            1,
            {"steps_per_generation": 4},
            {"gradient_accumulation_steps": "4", "steps_per_generation": "8"},
        ),
        (1, {}, 3, {}, None),
        (1, {}, 8, {}, None),
        (1, {}, 2, {"gradient_accumulation_steps": 4}, None),
        (1, {"train_sampling_strategy": "group_by_length"}, 2, {"train_sampling_strategy": "group_by_length"}, None),
        (2, {"dataloader_drop_last": True}, 1, {"dataloader_drop_last": True}, None),
    ],
)
def test_a_cut_run_keeps_its_rows_a_step_or_is_refused(
    argv, tmp_path, monkeypatch, capsys, was, then, processes, now, kept
):
    """Mutant: resuming as written, where a step of two processes' rows becomes one of half as many."""
    sizes = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}

    def write(changes):
        return [*argv, *(part for name, value in {**sizes, **changes}.items() for part in (f"--{name}", str(value)))]

    cut(write(then), processes=was)
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    words = write(now)
    before = len(words)
    stage = claim(words)
    if kept is None:
        with pytest.raises(ValueError, match=r"rows a step: \d+ → \d+ .*product is \d+|processes: \d → \d"):
            begin(stage)
        begin(claim([*write(now), "--resume", "force"]))
        return
    begin(stage)
    assert dict(zip([w[2:] for w in words[before::2]], words[before + 1 :: 2], strict=True)) == kept
    assert ("as many rows as before" in capsys.readouterr().out) == bool(kept)


@given(
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(2, 40)
)
def test_every_step_has_its_rows_on_any_processes_that_divide(was, processes, per_device, accumulation, repeats, rows):
    """The rows that TRL's sampler and Accelerate's shards deal to each step, before and after. Mutant: `was` forgotten."""
    then = {"per_device_train_batch_size": per_device, "gradient_accumulation_steps": accumulation}
    now = {**then, **keep_rows(then, was, then, processes)}
    if changed_rows(then, was, now, processes):
        assert was * per_device * accumulation % (processes * per_device)
        return
    assert rows_of_steps(now, processes, repeats, rows) == rows_of_steps(then, was, repeats, rows)


def rows_of_steps(written: dict[str, int], processes: int, repeats: int, rows: int) -> list[list[int]]:
    """What all processes together train on, step by step."""
    per_device, accumulation = written.values()
    size = processes * per_device * accumulation
    samplers = [RepeatSampler(range(rows), 1, size, repeats * accumulation, seed=0) for _ in range(processes)]
    batches = [BatchSampler(sampler, per_device * accumulation, drop_last=False) for sampler in samplers]
    shards = [list(BatchSamplerShard(dealt, processes, rank)) for rank, dealt in enumerate(batches)]
    generations = [[row for part in parts for row in part] for parts in zip(*shards, strict=True)]
    return [
        sorted(rows) for rows in generations[::accumulation]
    ]  # one batch of a shard is dealt to so many micro-steps
