# SPDX-License-Identifier: Apache-2.0
"""Settings travel with the checkpoint: every script goes by what a model was trained with, and says what it changes."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, fields
from inspect import signature
from pathlib import Path

import pytest

import ask_omni
import eval_omni
import grpo_omni
import sft_omni
from omni_grpo.config import DataArguments
from omni_grpo.data.encoding.encoder import PromptEncoder
from omni_grpo.data.media.settings import MediaError, MediaSettings
from omni_grpo.data.rows.prompts import DEFAULT_STYLE
from omni_grpo.run.scripts import ENCODING, SETTINGS, as_trained, note_settings, trained_settings
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
    own |= {"escape_control_tokens": True}
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
    noted = {**asdict(MediaSettings(**MEDIA)), "prompt_style": "short_think_answer", "escape_control_tokens": True}
    assert trained_settings(str(trained)) == noted
    assert trained_settings(str(trained / "checkpoint-1")) == noted, "the run is still under way"
    assert trained_settings(str(trained.parent)) == {} == trained_settings(None)


# What of a run's data arguments changes no prompt: which rows there are, where things lie, what is refused, what SFT
# imitates, what a cut run does. A new field stands here or in ENCODING.
CHANGES_NO_PROMPT = {
    *("train_file", "validation_file", "train_split", "validation_split", "media_root", "media_roots", "sft_target"),
    *("max_prompt_length", "decode_cache", "decode_cache_mb", "resume", "preemption_seconds"),
}
OTHER = {
    "pixel_multiple": 56,
    "video_sampling": "fps",
    "long_audio": "truncate",
    "load_audio_from_video": True,
    "escape_control_tokens": True,
    "prompt_style": "short",
    "min_pixels": 100,
    "max_pixels": 10**6,
    "max_missing_share": 0.2,
}


def test_every_setting_of_an_encoding_travels(tmp_path):
    """All fields, the media's and the data's, and all that the encoder is given. Mutants: any of ENCODING left out."""
    assert {f.name for f in fields(DataArguments)} == CHANGES_NO_PROMPT | {*ENCODING}
    given = {"processor", "max_prompt_length", "cache_mb", "decode_cache"}  # the first is saved with the weights
    assert {*signature(PromptEncoder).parameters} == given | {"settings", "escape"}
    media = {f.name: OTHER.get(f.name, f.default and f.default * 2) for f in fields(MediaSettings)}
    chosen = {name: OTHER[name] for name in ENCODING}
    plain = DataArguments(), MediaSettings()
    assert not {*asdict(plain[1]).items()} & {*media.items()}
    assert not any(getattr(plain[0], name) == value for name, value in chosen.items())
    note_settings(str(tmp_path), DataArguments(**chosen), MediaSettings(**media))
    data, seen = as_trained(str(tmp_path), [], *plain)
    assert seen == MediaSettings(**media) and data == DataArguments(**chosen)


def test_control_tokens_are_text_wherever_a_model_that_was_trained_so_goes(trained, tiny, tmp_path):
    """In an evaluation, in RL, and when asked; a model that was not refuses them. Mutant: the fields of the script."""
    row = {"id": "r", "problem": "What is <|im_end|>?", "problem_type": "free-form", "solution": "an end"}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row | {"id": f"r{i}"}) + "\n" for i in range(2)))
    where = {"models": [f"sft={trained}"], "test_file": tmp_path / "rows.jsonl"}
    run(eval_omni.main, tmp_path, output_dir=tmp_path / "own/eval", max_new_tokens=4, **where)
    assert len((tmp_path / "own/eval/sft/predictions.jsonl").read_text().splitlines()) == 2
    with pytest.raises(MediaError, match=r"the special token '<\|im_end\|>'.*escape_control_tokens: true"):
        run(eval_omni.main, tmp_path, **where | {"models": [f"base={tiny}"]}, output_dir=tmp_path / "base/eval")
    small = {**SMALL_RUN, "max_steps": 1, "num_generations": 2, "per_device_train_batch_size": 2}
    where = {"model_name_or_path": trained, "output_dir": tmp_path / "rl", "train_file": tmp_path / "rows.jsonl"}
    rewards = ["omni_rewards.think_answer_format_reward"]
    run(grpo_omni.main, tmp_path, **small, **where, max_completion_length=4, reward_funcs=rewards)
    assert trained_settings(str(tmp_path / "rl"))["escape_control_tokens"] is True
    asked = ["--question", "What is <|im_end|>?", "--max_new_tokens", "4"]
    ask_omni.main(["--model", str(tmp_path / "rl"), *asked])
    with pytest.raises(MediaError, match="special token"):
        ask_omni.main(["--model", str(tiny), *asked])


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
