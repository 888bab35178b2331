# SPDX-License-Identifier: Apache-2.0
"""Every shipped YAML parses into its script's fields, and its header tells the truth about how to run it."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from trl import ModelConfig

from omni_demo.config import DemoDataConfig, load_config
from omni_demo.mini.anchor import AnchorConfig
from omni_grpo.config import DataArguments, OmniGRPOConfig, OmniSFTConfig
from omni_grpo.credit.advantages import SKILL_WEIGHTS
from omni_grpo.credit.section_masks import TAG
from omni_grpo.data.media.settings import MediaSettings
from omni_grpo.data.rows.adapters import LAYOUTS
from omni_grpo.data.rows.prompts import PROMPT_STYLES
from omni_grpo.data.rows.selection import taken_indices
from omni_grpo.evaluation.arguments import EvalArguments
from omni_grpo.run.command_line import parse
from omni_grpo.run.reward_settings import check_rewards, configured_rewards, read_settings
from omni_grpo.run.scripts import load_object
from omni_grpo.sampling.arguments import SampleArguments
from readme_tables import header

REPOSITORY = Path(__file__).parents[2]
CONFIGS = sorted(REPOSITORY.glob("recipes/configs/**/*.yaml"))
ACCELERATE = sorted(REPOSITORY.glob("accelerate_configs/*.yaml"))


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def written(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def script_of(path: Path) -> str:
    """Told by what is in the file, not by its name."""
    keys = written(path).keys()
    if "splits" in keys:
        return "make_demo_data"
    if "num_completions" in keys:
        return "sample_omni"
    if "tower_learning_rate" in keys:
        return "anchor_mini"
    return "grpo_omni" if "reward_funcs" in keys else "eval_omni" if keys & {"models", "benchmark"} else "sft_omni"


def parsed(path: Path) -> dict[str, Any]:
    """Every field of the config after parsing, as its script would see it on a machine without a GPU."""
    kinds = {"grpo_omni": OmniGRPOConfig, "sft_omni": OmniSFTConfig, "anchor_mini": AnchorConfig}
    config = kinds.get(script_of(path))
    argv = ["--config", str(path)]
    if script_of(path) == "sample_omni":
        objects = parse((DataArguments, MediaSettings, SampleArguments), argv)
    elif config is None:
        if "benchmark" in written(path):  # whose models are for the command line
            argv += ["--models", "name=DIR"]
        objects = parse((DataArguments, MediaSettings, EvalArguments), argv)
    else:
        classes = (DataArguments, MediaSettings, config, ModelConfig)
        objects = parse(classes, [*argv, "--use_cpu", "true", "--ddp_timeout", "1800"])
    return {name: value for o in objects for name, value in vars(o).items()}


@pytest.fixture(autouse=True)
def endpoint(monkeypatch):
    """As a user of a judge sets it."""
    monkeypatch.setenv("JUDGE_ENDPOINT", "http://judge.example:8000/v1")


def test_there_are_configs_of_every_kind():
    """The next tests are only as good as the list they run over."""
    scripts = {"make_demo_data", "anchor_mini", "sft_omni", "grpo_omni", "eval_omni", "sample_omni"}
    assert {script_of(p) for p in CONFIGS} == scripts
    assert len(CONFIGS) >= 10 and len(ACCELERATE) >= 6


@pytest.mark.parametrize("path", [p for p in CONFIGS if script_of(p) != "make_demo_data"], ids=named)
def test_a_config_parses_to_what_is_written(path):
    """Mutant: a key that is parsed away, or read as text."""
    fields = parsed(path)
    for name, value in written(path).items():
        if name not in (
            "ddp_timeout",
            "report_to",
            "eval_strategy",
            "save_strategy",
            "lr_scheduler_type",
            "sft_target",
        ):
            assert fields[name] == value, name
            assert type(fields[name]) is type(value), name


@pytest.mark.parametrize("path", [p for p in CONFIGS if script_of(p) == "make_demo_data"], ids=named)
def test_a_data_config_parses(path):
    config = load_config(path, {})
    assert isinstance(config, DemoDataConfig) and list(config.splits) == written(path)["splits"]


@pytest.mark.parametrize("path", [p for p in CONFIGS if script_of(p) == "grpo_omni"], ids=named)
def test_reward_paths_import_each_with_a_weight(path):
    fields = written(path)
    rewards = [load_object(name) for name in fields["reward_funcs"]]
    assert all(callable(reward) for reward in rewards)
    assert len({reward.__name__ for reward in rewards}) == len(rewards), "TRL would merge their metrics"
    assert len(fields["reward_weights"]) == len(rewards)


JUDGED = [p for p in CONFIGS if "JUDGE_ENDPOINT" in p.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", [p for p in CONFIGS if script_of(p) == "grpo_omni"], ids=named)
def test_the_rewards_are_built_as_the_file_sets_them(path, monkeypatch):
    """Mutants: a setting under another reward's name; an endpoint that is the variable's name itself."""
    fields = written(path)
    check_rewards(["--config", str(path)])
    rewards = configured_rewards(fields["reward_funcs"], read_settings(fields.get("reward_settings")))
    judges = {judge.endpoint for reward in rewards if (judge := getattr(reward, "judge", None)) is not None}
    assert judges == ({"http://judge.example:8000/v1"} if path in JUDGED else set())
    if path in JUDGED:
        assert {reward.__name__ for reward in rewards} >= {"context_reward", "reasoning_reward", "answer_reward"}
        monkeypatch.delenv("JUDGE_ENDPOINT")
        with pytest.raises(ValueError, match="export JUDGE_ENDPOINT=http://localhost:8000/v1"):
            check_rewards(["--config", str(path)])


def test_the_method_is_shipped():
    """Four rewards by the paper's credit, and by strict credit with the weights of the preset `skill`."""
    paper, strict = sorted(JUDGED)[-2:]
    assert [written(p)["credit_map"] for p in (paper, strict)] == ["paper", "strict"]
    names = [load_object(name).__name__ for name in written(strict)["reward_funcs"]]
    about = dict(zip(names, (TAG, "answer", "context", "think"), strict=True))
    weights = dict(zip(names, written(strict)["reward_weights"], strict=True))
    assert weights == {name: SKILL_WEIGHTS[section] for name, section in about.items()}
    assert written(strict)["reward_settings"]["omni_rewards.answer_reward"] == {"require_agreement": True}


@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_the_header_has_needs_command_and_result(path):
    parts = header(path)
    assert {"title", "Needs", "Command", "Result"} <= parts.keys()
    assert parts["title"].endswith(".") and all(parts.values())


@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_the_command_names_a_script_and_this_config(path):
    """`make` targets are expanded by make itself, which runs nothing (`-n`)."""
    command = re.split(r" {2,}|\n", header(path)["Command"])[0]
    if command.startswith("make "):
        done = subprocess.run(
            ["make", "--no-print-directory", "-n", *shlex.split(command)[1:]],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        [command] = [line for line in done.stdout.splitlines() if named(path) in line.split()][-1:]
    words = shlex.split(command)
    assert f"recipes/{script_of(path)}.py" in words
    assert words[words.index("--config") + 1] == named(path)
    for word in words:
        if word.endswith((".py", ".yaml")):
            assert (REPOSITORY / word).is_file(), word


@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_data_that_the_header_says_to_convert_is_what_is_trained_on(path):
    commands = re.findall(r"python recipes/convert_data\.py (.*)", header(path)["Needs"])
    files = str(written(path).get("train_file", "")).split(",")
    for words in map(shlex.split, commands):
        assert words[1] in files
        assert words[words.index("--layout") + 1] in LAYOUTS
        if "--take" in words:
            assert 0 < len(taken_indices(100, words[words.index("--take") + 1], seed=0)) < 100
    assert not commands or len(commands) == len(files)


@pytest.mark.parametrize("folder", ["demo", "qwen2_5_omni_7b"])
def test_the_controls_differ_from_what_they_control_in_what_they_say(folder):
    """Mutants: a control with its own rate, steps, rows or seed; a context section asked of one that has none."""
    configs = {p.stem: written(p) for p in CONFIGS if p.parent.name == "controls" and p.parent.parent.name == folder}
    rl = written(REPOSITORY / f"recipes/configs/{folder}" / ("rl.yaml" if folder == "demo" else "rl_context.yaml"))
    sft = written(REPOSITORY / f"recipes/configs/{folder}/sft.yaml")
    said = {
        "output_dir",
        "prompt_style",
        "sft_target",
        "reward_funcs",
        "reward_weights",
        "credit_map",
        "reward_settings",
    }
    for name, base, more in (
        ("answer_only_sft", sft, {"train_file", "max_steps", "eval_steps", "save_steps", "validation_max_new_tokens"}),
        ("no_context_sft", sft, set()),
        ("format_only_rl", rl, set()),
        ("uniform_grpo", rl, {"model_name_or_path"}),
        *([("two_rewards", rl, set())] if "two_rewards" in configs else ()),
    ):
        keys = configs[name].keys() | base.keys()
        assert {k for k in keys if configs[name].get(k) != base.get(k)} <= said | more, name
    answer, without, form, uniform = (
        configs[n] for n in ("answer_only_sft", "no_context_sft", "format_only_rl", "uniform_grpo")
    )
    sections = {n: PROMPT_STYLES[c["prompt_style"]].schema.names for n, c in configs.items()}
    assert sections["answer_only_sft"] == ("answer",) and answer["sft_target"] == "sections" == without["sft_target"]
    assert sections["no_context_sft"] == sections["uniform_grpo"] == ("think", "answer")
    assert uniform["model_name_or_path"] == without["output_dir"]
    assert form["reward_funcs"] == ["omni_rewards.section_format_reward"]
    assert form["model_name_or_path"] == sft["output_dir"] and form["prompt_style"] == rl["prompt_style"]
    assert uniform["credit_map"] == "uniform" and set(uniform["reward_funcs"]) == {
        "omni_rewards.answer_reward",
        "omni_rewards.think_answer_format_reward",
    }
    assert set(rl["train_file"].split(",")) <= set(answer["train_file"].split(",")), "as many gold answers as RL sees"


@pytest.mark.parametrize("path", [p for p in CONFIGS if "Evaluate" in header(p)], ids=named)
def test_the_command_that_evaluates_a_control_is_one(path):
    words = shlex.split(header(path)["Evaluate"])
    fields = parse((DataArguments, MediaSettings, EvalArguments), words[2:])
    assert fields[0].prompt_style == written(path)["prompt_style"]
    assert [m.partition("=")[2] for m in fields[2].models] == [written(path)["output_dir"]]


def test_every_model_comes_from_somewhere():
    """A path under `runs/` is what another config, or the Makefile, writes."""
    made = {written(p).get("output_dir") for p in CONFIGS}
    makefile = (REPOSITORY / "Makefile").read_text()
    for path in CONFIGS:
        fields = written(path)
        models = [m.partition("=")[2] for m in fields.get("models", [])] or [fields.get("model_name_or_path", "Qwen/")]
        for model in models:
            assert model.startswith(("Qwen/", "google/")) or model in made or f"--output_dir {model}\n" in makefile, (
                path,
                model,
            )


@pytest.mark.parametrize("path", ACCELERATE, ids=named)
def test_an_accelerate_config_loads_and_says_what_it_is_for(path):
    config = load_config_from_file(str(path))
    fields = written(path)
    assert config.num_processes == fields["num_processes"]
    assert config.to_dict().keys() >= fields.keys()
    assert path.read_text().startswith("# ") and header(path)["title"].endswith(".")


def test_every_file_that_the_makefile_names_is_there():
    targets = re.search(r"\.PHONY: (.*)", (REPOSITORY / "Makefile").read_text())[1].split()
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", *targets, "REBUILD=1"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    named_files = set(re.findall(r"(?:recipes|benchmarks|accelerate_configs)/[\w/]+\.(?:py|yaml)", done.stdout))
    assert "recipes/grpo_omni.py" in named_files
    assert [name for name in sorted(named_files) if not (REPOSITORY / name).is_file()] == []
