# SPDX-License-Identifier: Apache-2.0
"""`--config file.yaml [--field value …]`: every mistake is named by its key, and help comes before torch."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from argparse import ArgumentError
from enum import Enum
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from trl import ModelConfig

from omni_grpo.config import DataArguments, EvalArguments, OmniGRPOConfig, OmniSFTConfig
from omni_grpo.data.media.settings import MediaSettings
from omni_grpo.run.command_line import CONFIGS, SOURCES, help_text, parse, with_default_config
from omni_grpo.run.scripts import load_object
from omni_grpo.sampling.arguments import SampleArguments

RECIPES = Path(__file__).parents[2] / "recipes"
CLASSES = {
    "grpo": (DataArguments, MediaSettings, OmniGRPOConfig, ModelConfig),
    "sft": (DataArguments, MediaSettings, OmniSFTConfig, ModelConfig),
    "eval": (DataArguments, MediaSettings, EvalArguments),
    "sample": (DataArguments, MediaSettings, SampleArguments),
}
CPU = ["--use_cpu", "true", "--bf16", "false"]
NEEDED = {
    "grpo": ["--output_dir", "run", *CPU],
    "sft": ["--output_dir", "run", *CPU],
    "eval": ["--output_dir", "run", "--models", "a=x", "b=y", "--test_file", "t.jsonl"],
    "sample": ["--output_dir", "run", "--model_name_or_path", "x", "--num_completions", "8"],
}


@pytest.fixture
def config(tmp_path):
    def write(text: str) -> list[str]:
        (tmp_path / "run.yaml").write_text(text)
        return ["--config", str(tmp_path / "run.yaml")]

    return write


@pytest.mark.parametrize("command", CLASSES)
def test_an_unknown_key_is_refused_with_the_nearest_there_is(command, config):
    with pytest.raises(ValueError, match=r"^train_fil: no such config key; did you mean 'train_file'\?$"):
        parse(CLASSES[command], [*config("train_fil: a.jsonl"), *NEEDED[command]])
    with pytest.raises(ValueError, match=r"^num_frame: no such config key; did you mean 'num_frames'\?$"):
        parse(CLASSES[command], ["--num_frame", "4", *NEEDED[command]])
    with pytest.raises(ValueError, match=r"^num_frame: no such config key"):
        parse(CLASSES[command], ["--num-frame=4", *NEEDED[command]])
    with pytest.raises(ValueError, match=r"^zzzz: no such config key; run with --help to see all fields$"):
        parse(CLASSES[command], [*config("zzzz: 1"), *NEEDED[command]])


def test_an_abbreviated_key_is_refused_not_guessed():
    """argparse would take `--learning` for `--learning_rate`."""
    with pytest.raises(ValueError, match=r"^learning_rat: no such config key; did you mean 'learning_rate'"):
        parse(CLASSES["grpo"], ["--learning_rat", "1e-5", *NEEDED["grpo"]])


def test_the_command_line_goes_over_the_file(config):
    argv = [*config("num_frames: 4\nlearning_rate: 1e-5\nreward_weights: [1.0, 0.5]\nfps: 1.0"), "--num_frames", "6"]
    _, media, args, _ = parse(CLASSES["grpo"], [*argv, "--max-audio-seconds=2.5", *NEEDED["grpo"]])
    assert (media.num_frames, media.fps, media.max_audio_seconds) == (6, 1.0, 2.5)
    assert (args.learning_rate, args.reward_weights) == (1e-5, [1.0, 0.5])


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (["--freeze_vision"], True),
        (["--freeze_vision", "true"], True),
        (["--freeze_vision", "false"], False),
        (["--freeze-vision=true"], True),
        ([], False),
    ],
)
def test_booleans(written, value):
    *_, args, _ = parse(CLASSES["grpo"], [*NEEDED["grpo"], *written])
    assert args.freeze_vision is value


def test_booleans_that_are_on_are_turned_off_by_no(config):
    *_, args, _ = parse(CLASSES["grpo"], NEEDED["grpo"])
    assert args.shuffle_dataset is True
    for written in (["--no_shuffle_dataset"], ["--no-shuffle-dataset"], ["--shuffle_dataset", "false"]):
        *_, args, _ = parse(CLASSES["grpo"], [*NEEDED["grpo"], *written])
        assert args.shuffle_dataset is False
    *_, args, _ = parse(CLASSES["grpo"], [*config("shuffle_dataset: false"), *NEEDED["grpo"]])
    assert args.shuffle_dataset is False
    with pytest.raises(ValueError, match=r"^no_such_thing: no such config key"):
        parse(CLASSES["grpo"], ["--no_such_thing", *NEEDED["grpo"]])


def test_a_missing_config_is_named_with_where_the_shipped_ones_are(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"--config: no file at /.*gone\.yaml; the shipped ones are in .*configs"
    ):
        parse(CLASSES["eval"], ["--config", str(tmp_path / "gone.yaml")])
    with pytest.raises(ValueError, match=r"--config: name a YAML file"):
        parse(CLASSES["eval"], ["--config"])


def test_a_config_that_is_a_list_is_refused(config):
    with pytest.raises(ValueError, match=r"--config: .*run\.yaml holds a list; write one `field: value` a line"):
        parse(CLASSES["eval"], config("- num_frames"))


def test_a_value_of_the_wrong_type_is_named_by_its_key(config, capsys):
    with pytest.raises(ArgumentError) as caught:
        parse(CLASSES["eval"], [*config("num_frames: four"), *NEEDED["eval"]])
    assert "--num_frames" in (error := str(caught.value)) and "invalid int value: 'four'" in error


REFUSED = {
    "weights": ("grpo", "reward_weights: [1.0]", r"reward_weights has 1 entries, reward_funcs has 2; give one weight"),
    "weights of steps": (
        "grpo",
        "reward_weight_schedule: {0: [1.0], 9: [0.5]}",
        r"reward_weight_schedule: 0: \[1.0\] has 1 entries, reward_funcs has 2; give one weight for each",
    ),
    "one checkpoint, rl": ("grpo", "save_total_limit: 1", r"save_total_limit: 1 .*; use 2 or more"),
    "one checkpoint, sft": ("sft", "save_total_limit: 1", r"save_total_limit: 1 .*; use 2 or more"),
    "packing": ("sft", "packing: true", r"packing.*not available with media; set both to false"),
    "padding_free": ("sft", "padding_free: true", r"padding_free: not available with media; set both to false"),
    "vllm server": (
        "grpo",
        "use_vllm: true\nvllm_mode: server",
        r"use_vllm: vllm_mode server: .*set `vllm_mode: colocate`",
    ),
    "vllm, towers in every pass": ("grpo", "use_vllm: true\nshare_media: off", r"use_vllm: .*set `share_media: auto`"),
    "vllm, a seed for all": (
        "grpo",
        "use_vllm: true\ngeneration_kwargs: {seed: 1}",
        r"generation_kwargs: seed: .*take it out",
    ),
    "vllm, a language of its own": (
        "grpo",
        "use_vllm: true\nvllm_structured_outputs_regex: '.*'",
        r"vllm_structured_outputs_regex: .*use `constrained_decoding`",
    ),
    "style": ("eval", "prompt_style: cot", r"prompt_style: 'cot' is unknown; one of context_think_answer"),
    # The parser checks choices on the command line alone; the file's would have trained on bare answers.
    "sft target": ("sft", "sft_target: targets", r"sft_target: 'targets' is unknown; one of target, solution"),
    "sampling": ("sft", "video_sampling: random", r"video_sampling.*'random'"),
    "odd frames": ("sft", "num_frames: 5", r"num_frames=5 must be a positive multiple of frame_multiple=2"),
    "variant": ("eval", "variants: [full, mute]", r"variants: \['mute'\] unknown; one or more of full, no_audio"),
    "no variant": ("eval", "variants: []", r"variants: .*one or more of full"),
    "ablated": ("eval", "ablated: [rl]", r"ablated: \['rl'\] are not in `models`"),
    "bare": ("eval", "bare: [c]", r"bare: \['c'\] are not in `models`"),
    "compare": ("eval", "compare: ['a:c']", r"compare: 'a:c' is not `a:b` of two names in `models` \(a, b\)"),
    "compare alone": ("eval", "compare: [a]", r"compare: 'a' is not `a:b`"),
}


@pytest.mark.parametrize(("command", "text", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_by_its_key(config, command, text, message):
    with pytest.raises((ValueError, NotImplementedError), match=message):
        parse(CLASSES[command], [*config(text), *NEEDED[command]])


@pytest.mark.parametrize("missing", ["models", "test_file", "output_dir"])
def test_evaluation_says_what_it_needs(config, missing):
    fields = {"models": "[a=x]", "test_file": "t.jsonl", "output_dir": "run"}
    text = "".join(f"{name}: {value}\n" for name, value in fields.items() if name != missing)
    with pytest.raises(ValueError, match=f"^{missing}: required"):
        parse(CLASSES["eval"], config(text))


@pytest.mark.parametrize("models", ["[runs/demo/rl]", "[rl=]", "[=runs/demo/rl]"])
def test_models_without_a_name_or_a_directory_are_refused(config, models):
    with pytest.raises(ValueError, match=r"models: .* is not `name=directory`"):
        parse(CLASSES["eval"], config(f"models: {models}\ntest_file: t.jsonl\noutput_dir: run"))


@pytest.mark.parametrize("path", ["omni_rewards.no_such_reward", "no_such_package.reward", "reward", ""])
def test_a_reward_that_cannot_be_imported_is_named_as_written(path):
    with pytest.raises(ValueError, match=rf"reward_funcs: cannot import '{path}' \("):
        load_object(path)


@pytest.mark.parametrize("default", ["demo/sft.yaml", "demo/rl.yaml", "demo/eval.yaml"])
def test_without_config_the_demos_is_announced_and_used(default, capsys):
    assert with_default_config(["--seed", "1"], default) == ["--config", str(CONFIGS / default), "--seed", "1"]
    assert capsys.readouterr().out == f"no --config given: running {CONFIGS / default}\n"
    assert (CONFIGS / default).is_file()


@pytest.mark.parametrize(
    ("argv", "led"),
    [
        (["--config", "a.yaml"], ["--config", "a.yaml"]),
        (["--seed", "1", "--config=a.yaml"], ["--seed", "1", "--config", "a.yaml"]),
        (["-h"], ["-h"]),
        (["--help"], ["--help"]),
    ],
)
def test_with_config_nothing_is_said(argv, led, capsys):
    assert with_default_config(argv, "demo/sft.yaml") == led
    assert capsys.readouterr().out == ""


def test_only_the_first_process_speaks(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    with_default_config([], "demo/sft.yaml")
    assert capsys.readouterr().out == ""


SCRIPTS = sorted(p.name for p in RECIPES.glob("*.py") if p.name != "smoke.py")
SHOWN = {
    "grpo_omni.py": [
        "video_sampling",
        "train_file",
        "prompt_cache_mb",
        "freeze_audio",
        "num_generations",
        "learning_rate",
    ],
    "sft_omni.py": ["video_sampling", "train_file", "validate_answers", "freeze_vision", "packing", "learning_rate"],
    "sample_omni.py": ["video_sampling", "num_completions", "top_p", "reward_settings"],
    "eval_omni.py": ["video_sampling", "models", "variants", "prompt_style", "max_audio_seconds"],
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_quick_and_imports_neither_torch_nor_trl(script, tmp_path):
    """Mutant: one top-level import in any module that a script imports before it has read its arguments."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(RECIPES / script), "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "200"},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # its own, however busy the machine
    assert done.returncode == 0, done.stderr[-2000:]
    assert seconds < 5
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "argparse" in imported or "omni_grpo" in imported
    assert imported.isdisjoint({"torch", "trl", "transformers"})
    for name in SHOWN.get(script, []):
        assert re.search(rf"--{name}\b.*\n? *\S", done.stdout), name
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", CLASSES)
def test_help_shows_every_field_that_can_be_given_with_its_default(command):
    """Mutant: help of a package that cannot be found shows nothing and fails at nothing."""
    text = help_text(command, "About.")
    shown = re.findall(r"^  --(\w+) \(", text, re.MULTILINE)
    assert len(shown) == len(set(shown))
    known = {f for cls in CLASSES[command] for f, x in cls.__dataclass_fields__.items() if x.init}
    assert set(shown) == known
    for package, _, name in SOURCES[command]:
        assert re.search(rf"^{package}\.{name}:\n(  --|$)", text, re.MULTILINE)
    assert "  --num_frames (int, default 8)\n      Frames of a clip" in text
    assert "default )" not in text
    told = re.findall(r"^  --(\w+) \(.*\n      \S", text, re.MULTILINE)
    ours = {
        n
        for cls in CLASSES[command]
        for c in cls.__mro__
        if "omni" in c.__module__
        for n in vars(c).get("__annotations__", ())
    }
    assert not (ours & known) - {*told}, "each field of ours says what it is, in its class's docstring"


def test_a_readme_word_that_yaml_takes_for_a_truth_value_is_the_word(config):
    """Mutant: `share_prompt: off` refused as False."""
    text = "share_prompt: off\nshare_media: off\neval_strategy: no\nsave_strategy: off\nlogging_strategy: no\nreport_to: off\n"
    *_, args, _ = parse(CLASSES["grpo"], [*config(text), *NEEDED["grpo"]])
    assert (args.share_prompt, args.share_media, args.report_to) == ("off", "off", [])
    assert {s.value for s in (args.eval_strategy, args.save_strategy, args.logging_strategy)} == {"no"}
    *_, args, _ = parse(CLASSES["grpo"], [*config("constrained_decoding: no"), *NEEDED["grpo"]])
    assert args.constrained_decoding == "none"
    *_, args, _ = parse(CLASSES["grpo"], [*config("share_prompt: off"), "--share_prompt", "verify", *NEEDED["grpo"]])
    assert args.share_prompt == "verify"


def test_every_field_of_words_takes_the_truth_value_that_means_one(config):
    """So that a field with `off`, `no` or `on` among its words that comes later is held to it."""
    for command, classes in CLASSES.items():
        for name, hint in [item for cls in classes for item in get_type_hints(cls).items()]:
            parts = get_args(hint) or (hint,)
            words = (
                get_args(hint)
                if get_origin(hint) is Literal
                else [w.value for p in parts if isinstance(p, type) and issubclass(p, Enum) for w in p]
            )
            for word in {"off", "no", "none"} & set(words):
                fields = parse(classes, [*config(f"{name}: off"), *NEEDED[command]])
                held = next(getattr(f, name) for f in fields if hasattr(f, name))
                assert getattr(held, "value", held) == word


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("share_prompt: on", r"^share_prompt: True is unknown; one of auto, off, verify"),
        ("share_prompt: never", r"^share_prompt: 'never' is unknown; one of auto, off, verify"),
        ("share_media: 3", r"^share_media: 3 is unknown; one of auto, off"),
        ("eval_strategy: sometimes", r"^eval_strategy: 'sometimes' is unknown; one of no, steps, epoch"),
        ("save_strategy: on", r"^save_strategy: True is unknown; one of no, steps, epoch, best"),
        ("lr_scheduler_type: off", r"^lr_scheduler_type: False is unknown; one of linear"),
        ("resume: off", r"^resume: False is unknown; one of auto, force, fresh"),
        ("sft_target: no", r"^sft_target: False is unknown; one of target"),
        ("long_audio: off", r"^long_audio: False is unknown; one of refuse, truncate"),
        ("run_name: off", r"^run_name: must be str | None, got False \(YAML reads off, no, on, yes"),
        ("num_frames: 4.5", r"^num_frames: must be int, got 4.5"),
        ("num_frames: yes", r"^num_frames: must be int, got True"),
        ("learning_rate: [1]", r"^learning_rate: must be float, got \[1\]"),
        ("reward_weights: 1", r"^reward_weights: must be .*, got 1"),
        ("bf16: 7", r"^bf16: must be bool.*, got 7"),
    ],
)
def test_a_wrong_value_in_yaml_names_its_field(config, text, message):
    """Mutant: upstream's own message, `'sometimes' is not a valid IntervalStrategy`."""
    with pytest.raises(ValueError, match=message):
        parse(CLASSES["grpo"], [*config(text), "--output_dir", "run", "--use_cpu", "true"])


def test_a_wrong_word_on_the_command_line_names_its_field_too(capsys):
    with pytest.raises(ValueError, match=r"^eval_strategy: 'off' is unknown; one of no, steps, epoch"):
        parse(CLASSES["grpo"], [*NEEDED["grpo"], "--eval_strategy", "off"])


@pytest.mark.parametrize(
    ("written", "value"), [("true", "true"), ("false", "false"), ("runs/x", "runs/x"), ("null", None)]
)
def test_where_to_resume_from_is_a_truth_value_or_a_folder(config, written, value):
    *_, args, _ = parse(CLASSES["grpo"], [*config(f"resume_from_checkpoint: {written}"), *NEEDED["grpo"]])
    assert args.resume_from_checkpoint == value
