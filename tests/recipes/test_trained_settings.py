# SPDX-License-Identifier: Apache-2.0
"""Settings travel with the checkpoint: every script goes by what a model was trained with, and says what it changes."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

import ask_omni
import eval_omni
import grpo_omni
import sft_omni
from omni_grpo.config import DataArguments
from omni_grpo.data.media.settings import MediaSettings
from omni_grpo.data.rows.prompts import DEFAULT_STYLE
from omni_grpo.run.scripts import SETTINGS, as_trained, note_settings, trained_settings
from small_runs import SMALL_RUN

MEDIA = {"num_frames": 2, "min_pixels": 56 * 56, "max_pixels": 56 * 56, "max_audio_seconds": 3.0}


def words(**fields) -> list[str]:
    values = {n: " ".join(v) if isinstance(v, list) else str(v) for n, v in fields.items()}
    return [part for name, value in values.items() for part in (f"--{name}", *value.split(" "))]


def run(main, tmp_path: Path, **fields) -> None:
    """An entry script on a config without any field that is not named here."""
    (tmp_path / "empty.yaml").write_text("{}")
    main(["--config", str(tmp_path / "empty.yaml"), *words(**fields)])


@pytest.fixture(scope="module")
def trained(tiny, mixed_file, tmp_path_factory) -> Path:
    """What `sft_omni.py` writes with settings that are not the defaults, a checkpoint on the way among it."""
    folder = tmp_path_factory.mktemp("trained")
    fields = {**SMALL_RUN, "save_strategy": "steps", "save_steps": 1, "max_steps": 2, "learning_rate": 0.0, **MEDIA}
    own = {"prompt_style": "short_think_answer", "sft_target": "sections", "per_device_train_batch_size": 2}
    where = {"model_name_or_path": tiny, "output_dir": folder / "sft", "train_file": mixed_file}
    run(sft_omni.main, folder, **fields, **own, **where)
    return folder / "sft"


@pytest.fixture
def evaluated(mixed_file, tmp_path):
    def build(models: list[str], **fields) -> dict:
        out = {"output_dir": tmp_path / "run/eval", "decode_cache_mb": 0, "max_new_tokens": 4}
        run(eval_omni.main, tmp_path, models=models, test_file=mixed_file, **out, **fields)
        return json.loads((tmp_path / "run/metrics.json").read_text())["stages"]

    return build


def test_training_notes_how_prompts_were_made(trained):
    noted = {**asdict(MediaSettings(**MEDIA)), "prompt_style": "short_think_answer"}
    assert trained_settings(str(trained)) == noted
    assert trained_settings(str(trained / "checkpoint-1")) == noted, "the run is still under way"
    assert trained_settings(str(trained.parent)) == {} == trained_settings(None)


def test_the_hub_has_them_too(tmp_path, monkeypatch):
    """A cached snapshot of a hub model, offline; a name that nobody knows is for loading to report."""
    from huggingface_hub import constants

    snapshot = tmp_path / "models--someone--omni" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text("a" * 40)
    note_settings(str(snapshot), DataArguments(prompt_style="short"), MediaSettings(num_frames=4))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert trained_settings("someone/omni")["num_frames"] == 4
    assert trained_settings("nobody/knows") == {}


def test_evaluation_goes_by_each_models_own_settings(trained, tiny, evaluated, tmp_path, capsys):
    """Mutants: the defaults for all; the first model's for all; prompts encoded for one model given to the other."""
    stages = evaluated([f"sft={trained}", f"base={tiny}", f"cut={trained / 'checkpoint-1'}"], max_audio_seconds=9.0)
    assert stages["sft"]["prompt_style"] == stages["cut"]["prompt_style"] == "short_think_answer"
    assert stages["base"]["prompt_style"] == DEFAULT_STYLE
    fitted = {"max_audio_seconds": 9.0, "pixel_multiple": 28}  # the model's own multiple
    assert stages["sft"]["media"] == asdict(MediaSettings(**{**MEDIA, **fitted}))
    assert stages["base"]["media"] == asdict(MediaSettings(**fitted))
    said = [line for line in capsys.readouterr().out.splitlines() if "trained with other settings" in line]
    assert len(said) == 2 and said[0].startswith(str(trained)) and "max_audio_seconds 3.0 (here 9.0)" in said[0]
    assert "num_frames" not in said[0]
    rows = [json.loads(line) for line in (tmp_path / "run/eval/sft/predictions.jsonl").read_text().splitlines()]
    assert list(rows[0]["sections"]) == ["think", "answer"]


def test_what_a_run_sets_holds_and_what_is_equal_is_not_told(trained, capsys):
    data, media = DataArguments(prompt_style="short"), MediaSettings(num_frames=2, load_audio_from_video=False)
    argv = ["--prompt_style", "short", "--num_frames", "2", "--no_load_audio_from_video"]
    data, media = as_trained(str(trained), argv, data, media)
    assert data.prompt_style == "short"
    assert media == MediaSettings(**MEDIA)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("which this run overrides: prompt_style short_think_answer (here short)")


def test_a_flag_that_is_switched_off_is_set(tmp_path, capsys):
    """Mutant: `--no_load_audio_from_video` is taken for a field that nobody set."""
    note_settings(str(tmp_path), DataArguments(), MediaSettings(load_audio_from_video=True))
    _, media = as_trained(str(tmp_path), ["--no_load_audio_from_video"], DataArguments(), MediaSettings())
    assert media.load_audio_from_video is False and "True (here False)" in capsys.readouterr().out
    _, media = as_trained(str(tmp_path), [], DataArguments(), MediaSettings())
    assert media.load_audio_from_video is True


def test_rl_goes_on_with_the_settings_of_the_cold_start(trained, mixed_file, tmp_path, capsys):
    """And its rewards are held to that style, which no field of this run names. Mutant: the check goes by the default."""
    fields = {**SMALL_RUN, "max_steps": 1, "num_generations": 2, "per_device_train_batch_size": 2}
    where = {"model_name_or_path": trained, "output_dir": tmp_path / "rl", "train_file": mixed_file}
    rewards = ["omni_rewards.think_answer_format_reward", "omni_rewards.answer_reward"]
    run(grpo_omni.main, tmp_path, **fields, **where, max_completion_length=4, reward_funcs=rewards)
    assert trained_settings(str(tmp_path / "rl")) == trained_settings(str(trained))
    log = (tmp_path / "rl/log.jsonl").read_text()
    assert "rewards/think_answer_format_reward/mean" in log and "credit/share/context" not in log
    assert "overrides" not in capsys.readouterr().out


def test_asking_goes_by_them_and_says_what_is_changed(trained, clips, tmp_path, capsys):
    ask = ["--image", str(clips / "image0.png"), "--question", "What?", "--max_new_tokens", "4"]
    for model in (trained, trained / "checkpoint-1"):
        ask_omni.main(["--model", str(model), *ask])
        assert "not in the sections think, answer:" in capsys.readouterr().err
    ask_omni.main(["--model", str(trained), "--prompt_style", "short_answer", *ask])
    told = capsys.readouterr().err
    assert "was trained with prompt_style short_think_answer (here short_answer)" in told
    copy = shutil.copytree(trained, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoint-*", SETTINGS))
    ask_omni.main(["--model", str(copy), *ask])
    assert "context, think, answer" in capsys.readouterr().err
