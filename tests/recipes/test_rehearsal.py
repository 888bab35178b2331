# SPDX-License-Identifier: Apache-2.0
"""A rehearsal: real steps, of which nothing is left but what they took."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.run.measuring import Rehearsal, predicted, told
from omni_grpo.run.rehearsal import rehearsed
from omni_grpo.run.stages import read_fields
from script_runs import GRPO, GRPO_FIELDS, checkpoints, same_weights, start, write_config
from small_runs import SMALL_RUN, length_reward

SLOW = {"timeout": 1500}  # seconds: a busy machine is no failure


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def command(tiny, mixed_file):
    """A run that would evaluate, save, keep tables, features and decoded files at each step."""

    def write(folder: Path, **changes) -> tuple[str, str]:
        fields = {"max_steps": 6, "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "log_completions": True}
        fields |= {"freeze_vision": True, "freeze_audio": True, "save_total_limit": 3, "num_completions_to_print": 0}
        fields |= {"model_name_or_path": tiny, "train_file": str(mixed_file), "validation_file": str(mixed_file)}
        fields |= {"media_feature_cache": str(folder.parent / "features")}
        return write_config(folder, GRPO_FIELDS | fields, **changes)

    return write


@pytest.mark.xdist_group("processes")
def test_nothing_is_left_but_the_report_and_the_run_after_it_is_the_run_alone(command, tmp_path):
    """
    Mutants: the decode cache where the run's own is; the run's folder made, so that a run after it is another; a step
    too few for the four that share a generation.
    """
    run, alone = tmp_path / "a" / "run", tmp_path / "b" / "run"
    words = command(run)
    before = tree(tmp_path)
    said = start(GRPO, *words, "--rehearse", "3", **SLOW).stdout
    after = tree(tmp_path)
    report = json.loads(after.pop("a/run.rehearsal.json"))
    assert after == before and sorted(p.name for p in run.parent.iterdir()) == ["run.rehearsal.json", "run.yaml"]
    assert (report["steps"], report["steps_of_run"], len(report["seconds"]["steps"])) == (4, 6, 4)
    assert [entry["step"] for entry in report["logged"]] == [1, 2, 3, 4]
    assert "the whole run: 6 steps in " in said and str(run.with_name("run.rehearsal.json")) in said
    start(GRPO, *words, "--eval_strategy", "no", **SLOW)
    start(GRPO, *command(alone), "--eval_strategy", "no", **SLOW)
    assert same_weights(run, alone) and checkpoints(run) == checkpoints(alone) != []


@pytest.mark.xdist_group("processes")
def test_of_two_processes_one_report_is_left(command, tmp_path):
    """Mutant: each process its own folder, or its own report."""
    words = command(tmp_path / "run", per_device_train_batch_size=2)
    before = tree(tmp_path)
    said = start(GRPO, *words, "--rehearse=1", processes=2, **SLOW).stdout
    after = tree(tmp_path)
    report = json.loads(after.pop("run.rehearsal.json"))
    assert after == before and report["processes"] == 2 and said.count("rehearsal: ") == 1


@pytest.mark.distributed
@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("config", ["zero2", "zero3"])
def test_under_deepspeed_memory_is_of_a_processs_shards(command, tiny, tmp_path, monkeypatch, config):
    """Mutants: shards counted as wholes; gradients looked for after DeepSpeed has cleared them."""
    words = command(tmp_path / "run", per_device_train_batch_size=2, beta=0.1, learning_rate=1e-4)
    before = tree(tmp_path)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    start(GRPO, *words, "--rehearse", "3", accelerate=config, **SLOW)
    after = tree(tmp_path)
    report = json.loads(after.pop("run.rehearsal.json"))
    assert after == before and report["processes"] == 2 and report["steps"] == 4
    memory, model = report["memory"], load_model(tiny)
    trained = sum(
        p.nbytes for name, p in model.named_parameters() if not {"visual", "audio_tower"} & {*name.split(".")}
    )
    assert trained / 2 <= memory["gradients"] < 0.55 * trained  # shards are filled up to one length
    assert memory["optimizer"] == (3 if config == "zero2" else 2) * memory["gradients"] + 8  # a master, two moments
    assert memory["weights"] == memory["reference"]
    assert (memory["weights"] >= sum(p.nbytes for p in model.parameters())) == (config == "zero2")


@pytest.fixture
def make(tiny, settings, mixed, tmp_path):
    def trainer(**changes) -> OmniGRPOTrainer:
        fields = {**SMALL_RUN, "output_dir": str(tmp_path / "run"), "per_device_train_batch_size": 4, "max_steps": 12}
        fields |= {"num_generations": 2, "max_completion_length": 4, "steps_per_generation": 2, "num_iterations": 2}
        args = OmniGRPOConfig(**fields | changes)
        return OmniGRPOTrainer(
            load_model(tiny),
            [length_reward],
            args,
            mixed,
            mixed,
            encoder=PromptEncoder(load_processor(tiny), settings),
        )

    return trainer


def counted(trainer: OmniGRPOTrainer) -> list[int]:
    """Of a trainer, the work in one figure: ten for a sampled batch, one for a loss."""
    work, sample, loss = [0], trainer._generate_single_turn, trainer._compute_loss

    def sampling(*args, **kwargs):
        work[0] += 10
        return sample(*args, **kwargs)

    def scoring(*args, **kwargs):
        work[0] += 1
        return loss(*args, **kwargs)

    trainer._generate_single_turn, trainer._compute_loss = sampling, scoring
    return work


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_time_that_is_foretold_is_the_time_of_the_whole_run(make, accumulation):
    """
    By the work done, not by the clock. Mutant: seconds a step times steps, where one step in four (or two) samples.
    """
    asked = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    trainer = make(gradient_accumulation_steps=accumulation, **asked)
    work = counted(trainer)
    rehearsal = Rehearsal(trainer, 3, 0.0, lambda: work[0])
    trainer.add_callback(rehearsal)
    trainer.train()
    report = rehearsal.report()
    assert report["steps"] == 4 == trainer.state.global_step
    assert not any("eval_loss" in entry for entry in trainer.state.log_history)
    assert not list(Path(trainer.args.output_dir).glob("checkpoint-*"))
    whole = make(gradient_accumulation_steps=accumulation)
    done = counted(whole)
    whole.train()
    assert report["steps_of_run"] == whole.state.global_step == 12
    assert report["seconds"]["run"] == done[0]


def test_each_part_of_the_memory_is_what_its_tensors_take(make):
    """Mutants: a tied weight counted twice; gradients after they were cleared; a batch's features looked for after it."""
    trainer = make(freeze_vision=True, freeze_audio=True, agreement="off", causal_probe_steps=0)
    rehearsal = Rehearsal(trainer, 1, 0.0)
    trainer.add_callback(rehearsal)
    trainer.train()
    report, model = rehearsal.report(), trainer.model
    memory = report["memory"]
    assert memory["weights"] == sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    trained = [p for p in model.parameters() if p in trainer.optimizer.state]
    assert memory["gradients"] == sum(p.nbytes for p in trained) > 0
    assert memory["optimizer"] == 2 * memory["gradients"] + 4 * len(trained)  # two moments, and a count of steps
    width, rows = model.config.text_config.hidden_size, [row for b in trainer._buffered_inputs for row in b["rows"]]
    shown = sum(row.prompt.counts[modality] for row in rows for modality in row.prompt.features)
    assert memory["features"] == 4 * width * shown > 0  # each row has its own
    parts = sum(size for name, size in memory.items() if name not in ("peak", "of"))
    assert memory["reference"] == 0 < memory["program"] and memory["peak"] == parts < memory["of"]
    assert report["agreement"] == {} and any("not measured" in line for line in told(report))


def test_towers_that_train_leave_no_features_and_a_reference_is_counted(make):
    trainer = make(beta=0.1)
    rehearsal = Rehearsal(trainer, 1, 0.0)
    trainer.add_callback(rehearsal)
    trainer.train()
    memory = rehearsal.report()["memory"]
    assert memory["features"] == 0 and memory["reference"] == memory["weights"]


def test_what_is_agreed_is_told_at_its_worst(make):
    """Mutant: of the probe, which is to move the scores, the most."""
    trainer = make(agreement="off", causal_probe_steps=0)
    rehearsal = Rehearsal(trainer, 3, 0.0)
    trainer.add_callback(rehearsal)
    values, log = iter([0.01, 0.03, 0.02, 0.02]), trainer.log

    def metered(logs, *args):
        if "loss" in logs:
            names = ("agreement/max", "agreement/causal_probe", "agreement/section/context")
            logs |= dict.fromkeys(names, next(values))
        log(logs, *args)

    trainer.log = metered
    trainer.train()
    report = rehearsal.report()
    assert report["agreement"]["agreement/max"] == 0.03 and report["agreement"]["agreement/causal_probe"] == 0.01
    assert [line for line in told(report) if line.endswith("at worst: max 0.03, causal_probe 0.01")]


def test_the_replies_of_a_judge_go_with_the_rest_and_recorded_ones_are_read_where_they_are(tmp_path):
    judges = {
        "a.b": {"judge": {"cache_dir": "kept", "model": "m"}},
        "c.d": {"judge": {"cache_dir": "kept", "replay": True}},
    }
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"output_dir": str(tmp_path / "run"), "reward_settings": judges, "rehearse": 2}))
    fields = read_fields(rehearsed(["--config", str(config)]))
    folder = tmp_path / "run.rehearsal"
    judge, recorded = (values["judge"] for values in json.loads(fields["reward_settings"]).values())
    assert judge == {"cache_dir": str(folder / "judged"), "model": "m"} and recorded["cache_dir"] == "kept"
    assert fields["output_dir"] == str(folder) and fields["decode_cache"] == str(folder / "decode_cache")
    assert fields["report_to"] == "none" and "media_feature_cache" not in fields


def test_what_was_killed_goes_and_what_is_someone_elses_stays(tmp_path):
    """Mutant: any folder of that name deleted."""
    folder, words = tmp_path / "run.rehearsal", ["--output_dir", str(tmp_path / "run"), "--rehearse", "3"]
    folder.mkdir()
    (folder / "stage.json").write_text("{}")
    assert read_fields(rehearsed(words))["output_dir"] == str(folder) and not folder.exists()
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"run\.rehearsal is no rehearsal's"):
        rehearsed(words)
    assert (folder / "notes.txt").exists()
    assert rehearsed(words[:2]) == words[:2]
    with pytest.raises(ValueError, match="rehearse: must be at least 1"):
        OmniGRPOConfig(output_dir="x", rehearse=0, bf16=False)


def test_a_run_of_fewer_steps_than_are_rehearsed():
    assert predicted([4.0, 2.0], 1, 2) == 6.0 and predicted([4.0], 2, 1) == 4.0
