# SPDX-License-Identifier: Apache-2.0
"""Rewards set from a run's YAML: what is written arrives, and every mistake is met at start with its name."""

from __future__ import annotations

import dataclasses
import doctest
import functools
import pickle
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import yaml

import omni_rewards
from omni_grpo.config import OmniGRPOConfig
from omni_grpo.run import reward_settings
from omni_grpo.run.reward_settings import DEFAULT_REWARDS, check_rewards, configured_rewards, read_settings
from omni_rewards import SUMMARY_CAPTION_REASONING_CONCLUSION, THINK_ANSWER, Judge, SectionFormatReward

RECIPES = Path(__file__).parents[2] / "recipes"
FORMAT = "omni_rewards.section_format_reward"
CLASS = "omni_rewards.SectionFormatReward"
OVERLONG = "trl.rewards.get_soft_overlong_punishment"
HERE = "reward_settings_of_a_user"


@dataclass(frozen=True)
class Inner:
    endpoint: str
    patience: float = 1.0


@dataclass(frozen=True)
class Whole:
    """A reward that needs a part which cannot be guessed, as a judged one does."""

    inner: Inner
    levels: tuple[int, ...] = ()
    names: frozenset[str] = frozenset()
    mode: Literal["fast", "slow"] = "fast"
    strict: bool = True
    share: float | None = None
    __name__ = "whole"

    def __post_init__(self):
        if self.share is not None and not 0 <= self.share <= 1:
            raise ValueError(f"share must be in [0, 1], got {self.share}")

    def __call__(self, completions, **kwargs):
        return [float(len(self.levels)) for _ in completions]


def whole(completions, **kwargs):
    raise AssertionError("its dataclass needs settings")


def twice(completions, factor=1.0, **kwargs):
    return [2 * factor for _ in completions]


def constant(completions, **kwargs):
    return [0.5 for _ in completions]


READY = Whole(Inner("http://localhost:1/v1"))


@pytest.fixture(autouse=True)
def module(monkeypatch):
    """This file under a name that can be imported by path."""
    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])


def one(path, settings=None):
    [reward] = configured_rewards([path], {path: settings} if settings is not None else None)
    return reward


def test_the_examples_in_docstrings_hold():
    failed, tried = doctest.testmod(reward_settings)
    assert failed == 0 < tried


def test_the_default_is_the_configs():
    field = OmniGRPOConfig.__dataclass_fields__["reward_funcs"]
    assert field.default_factory() == DEFAULT_REWARDS


def test_without_settings_the_reward_is_what_the_path_names():
    assert one(FORMAT) is omni_rewards.section_format_reward
    assert one(FORMAT, {}) is omni_rewards.section_format_reward
    assert one(CLASS) == SectionFormatReward()


@pytest.mark.parametrize("path", [FORMAT, CLASS])
def test_settings_of_a_function_are_the_fields_of_its_dataclass(path):
    reward = one(path, {"min_characters": 9, "schema": {"names": ["think", "answer"]}})
    assert reward == SectionFormatReward(schema=THINK_ANSWER, min_characters=9)
    assert pickle.loads(pickle.dumps(reward)) == reward


@pytest.mark.parametrize("name", [n for n in omni_rewards.__all__ if n.endswith("_reward")])
def test_every_reward_of_the_library_has_a_dataclass_to_be_set_by(name):
    """One that has none cannot be set from YAML."""
    cls = getattr(omni_rewards, "".join(part.capitalize() for part in name.split("_")))
    field = next(f for f in dataclasses.fields(cls) if isinstance(f.default, (int, float, str)))
    needed = {"judge": {"endpoint": "http://localhost:8000/v1", "model": "m"}} if name == "reasoning_reward" else {}
    reward = one(f"omni_rewards.{name}", {field.name: field.default, **needed})
    assert type(reward) is cls and reward == cls(**needed)
    assert reward.__name__ == name and pickle.loads(pickle.dumps(reward)) == reward


JUDGED = ["answer_reward", "context_reward", "reasoning_reward"]


@pytest.mark.parametrize("name", [*JUDGED, "AsyncAnswerReward", "AsyncContextReward", "AsyncReasoningReward"])
def test_a_judge_is_set_by_its_settings_and_refused_without_endpoint(name):
    path = f"omni_rewards.{name}"
    judge = {"endpoint": "http://localhost:8000/v1", "model": "m", "budget_s": 9, "extra_body": {"top_k": 1}}
    assert one(path, {"judge": judge}).judge == Judge(
        "http://localhost:8000/v1", "m", budget_s=9.0, extra_body={"top_k": 1}
    )
    for broken, message in (
        ({"model": "m"}, "judge: needs endpoint; write it there"),
        ({**judge, "endpont": "x"}, "judge: no such setting 'endpont'; did you mean 'endpoint'"),
        ({**judge, "endpoint": ""}, "judge: a judge needs `endpoint`"),
        ({**judge, "endpoint": "localhost:8000"}, "judge: .*endpoint"),
        ("http://localhost:8000/v1", "judge"),
    ):
        with pytest.raises(ValueError, match=rf"reward_settings: {path}\.{message}"):
            one(path, {"judge": broken})


def test_a_constant_is_named_by_its_path():
    reward = one(FORMAT, {"schema": "omni_rewards.SUMMARY_CAPTION_REASONING_CONCLUSION"})
    assert reward.schema is SUMMARY_CAPTION_REASONING_CONCLUSION


def test_values_arrive_in_the_type_that_the_field_has():
    reward = one(
        f"{HERE}.whole",
        {
            "inner": {"endpoint": "http://x", "patience": 2},
            "levels": [1, 2],
            "names": ["a"],
            "mode": "slow",
            "share": 1,
        },
    )
    assert reward == Whole(Inner("http://x", 2.0), (1, 2), frozenset("a"), "slow", share=1.0)
    assert type(reward.share) is type(reward.inner.patience) is float


def test_an_instance_keeps_what_is_not_set():
    reward = one(f"{HERE}.READY", {"levels": [3]})
    assert reward == Whole(Inner("http://localhost:1/v1"), (3,))


def test_plain_functions_take_keyword_parameters(monkeypatch):
    """And keep the sections that they are about. Mutant: `functools.partial` alone, which hides them."""
    monkeypatch.setattr(twice, "sections", ("think",), raising=False)
    reward = one(f"{HERE}.twice", {"factor": 3.0})
    assert isinstance(reward, functools.partial) and reward(["a"]) == [6.0] and reward.sections == ("think",)
    assert one(f"{HERE}.twice") is twice


def test_rewards_of_trl_by_path():
    """A function that makes rewards is called with its settings; a reward is taken as it is."""
    import trl.rewards

    reward = one(OVERLONG, {"max_completion_len": 10, "soft_punish_cache": 5})
    assert reward(completion_ids=[[1] * 5, [1] * 10, [1] * 11]) == [0.0, -1.0, -1.0]
    assert one("trl.rewards.get_repetition_penalty_reward")(completion_ids=[[1] * 9]) < [0.0]
    assert one("trl.rewards.think_format_reward") is trl.rewards.think_format_reward


REFUSED = {
    "unknown reward": ("omni_rewards.section_fromat_reward", None, r"cannot import 'omni_rewards.section_fromat_reward'.*did you mean 'section_format_reward'\?"),
    "unknown module": ("omni_reward.x", None, r"reward_funcs: cannot import 'omni_reward.x'"),
    "no reward": ("omni_rewards.THINK_ANSWER", None, r"omni_rewards.THINK_ANSWER is a SectionSchema, not a reward"),
    "unknown key": (FORMAT, {"min_character": 3}, r"section_format_reward: no such setting 'min_character'; did you mean 'min_characters'\?; known are schema"),
    "unknown key inside": (f"{HERE}.whole", {"inner": {"endpont": "x"}}, r"whole\.inner: no such setting 'endpont'; did you mean 'endpoint'\?"),
    "missing": (f"{HERE}.whole", None, r"reward_settings: \w+\.whole: needs inner; write it there"),
    "missing inside": (f"{HERE}.whole", {"inner": {"patience": 1.0}}, r"whole\.inner: needs endpoint; write it there"),
    "text for a number": (f"{HERE}.whole", {"inner": {"endpoint": "x", "patience": "1e-3"}}, r"whole\.inner\.patience: must be float, got '1e-3' \(YAML reads 1e-3 as text; write 1.0e-3\)"),
    "number for a flag": (f"{HERE}.READY", {"strict": 1}, r"READY\.strict: must be bool, got 1"),
    "flag for a number": (FORMAT, {"min_characters": True}, r"min_characters: must be int, got True"),
    "fraction for a count": (FORMAT, {"min_characters": 1.5}, r"min_characters: must be int, got 1.5"),
    "list item": (f"{HERE}.READY", {"levels": [1, "two"]}, r"READY\.levels: must be int, got 'two'"),
    "choice": (f"{HERE}.READY", {"mode": "medium"}, r"READY\.mode: must be Literal\['fast', 'slow'\], got 'medium'"),
    "value": (f"{HERE}.READY", {"share": 2.0}, r"READY: share must be in \[0, 1\], got 2.0"),
    "value of ours": (FORMAT, {"min_characters": 0}, r"section_format_reward: min_characters and max_characters must be"),
    "constant": (FORMAT, {"schema": "omni_rewards.NO_SUCH"}, r"schema: cannot import 'omni_rewards.NO_SUCH'"),
    "constant of another type": (FORMAT, {"schema": "omni_rewards.PROBLEM_TYPES"}, r"schema: must be SectionSchema"),
    "no settings to set": (f"{HERE}.constant", {"x": 1}, r"constant: no such setting 'x'; it has none"),
    "what TRL gives": (f"{HERE}.twice", {"completions": []}, r"twice: no such setting 'completions'"),
    "no judge": ("omni_rewards.reasoning_reward", None, r"reward_settings: omni_rewards.reasoning_reward: .* needs a judge"),
    "no judge, other settings": ("omni_rewards.AsyncReasoningReward", {"rubric": "Grade it."}, r"AsyncReasoningReward: .* needs a judge"),
    "maker without what it needs": (OVERLONG, {"soft_punish_cache": 5}, r"get_soft_overlong_punishment: needs max_completion_len"),
    "maker refuses": ("trl.rewards.get_repetition_penalty_reward", {"max_penalty": 1.0}, r"max_penalty 1.0 should not be positive"),
}  # fmt: skip


@pytest.mark.parametrize(("path", "settings", "message"), REFUSED.values(), ids=REFUSED)
def test_mistakes_are_refused_by_name_with_the_remedy(path, settings, message):
    with pytest.raises(ValueError, match=message):
        one(path, settings)


def test_settings_of_a_reward_that_does_not_run_are_refused():
    with pytest.raises(ValueError, match=rf"reward_settings: '{CLASS}' is not in reward_funcs"):
        configured_rewards([FORMAT], {CLASS: {}})


def test_two_rewards_of_one_name_are_refused():
    """TRL logs by name: their means would be averaged into one curve."""
    with pytest.raises(ValueError, match="both named 'section_format_reward'"):
        configured_rewards([FORMAT, CLASS])
    apart = {CLASS: {"schema": "omni_rewards.THINK_ANSWER"}}
    assert [r.__name__ for r in configured_rewards([FORMAT, CLASS], apart)] == [
        "section_format_reward",
        "think_answer_format_reward",
    ]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{", r"reward_settings: not JSON"),
        ([FORMAT], r"reward_settings: write one `setting: value` a line"),
        ({FORMAT: 3}, rf"reward_settings: {FORMAT}: write one"),
    ],
)
def test_settings_that_are_no_map_are_refused(written, message):
    with pytest.raises(ValueError, match=message):
        read_settings(written)


@pytest.fixture
def run(tmp_path):
    """The entry script, up to the first thing that it refuses."""

    def start(text, *arguments):
        (tmp_path / "run.yaml").write_text(text + f"\noutput_dir: {tmp_path / 'out'}\n")
        command = [
            sys.executable,
            "-X",
            "importtime",
            str(RECIPES / "grpo_omni.py"),
            "--config",
            "run.yaml",
            *arguments,
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
        said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
        return said[-1], imported, (tmp_path / "out").exists()

    return start


YAML = f"reward_funcs: [{FORMAT}]\nreward_settings:\n  {FORMAT}: {{min_charcters: 3}}"


def test_a_run_is_refused_before_torch_is_imported_and_before_its_folder_is_made(run):
    """`accelerate launch` starts the same file with the same arguments."""
    message, imported, touched = run(YAML)
    assert message.startswith(f"reward_settings: {FORMAT}: no such setting 'min_charcters'; did you mean")
    assert "omni_rewards.sections" in imported and imported.isdisjoint({"torch", "trl", "transformers"})
    assert not touched


def test_settings_reach_the_configuration_from_yaml_and_from_the_command_line(tmp_path):
    from trl import ModelConfig

    from omni_grpo.run.command_line import parse

    file = tmp_path / "run.yaml"
    file.write_text(f"reward_funcs: [{FORMAT}]\nreward_settings:\n  {FORMAT}: {{min_characters: 3}}")
    cpu = ["--output_dir", "run", "--use_cpu", "true", "--bf16", "false"]
    for argv, least in (([], 3), (["--reward_settings", f'{{"{FORMAT}": {{"min_characters": 4}}}}'], 4)):
        args, _ = parse((OmniGRPOConfig, ModelConfig), ["--config", str(file), *cpu, *argv])
        assert args.reward_settings == {FORMAT: {"min_characters": least}}
        [reward] = configured_rewards(args.reward_funcs, args.reward_settings)
        assert reward.min_characters == least
        check_rewards(["--config", str(file), *argv])


def test_the_settings_that_the_page_on_rewards_shows_are_accepted():
    page = (RECIPES.parent / "docs/rewards.md").read_text(encoding="utf-8")
    [shown] = [
        yaml.safe_load(block)
        for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
        if "reward_settings" in block
    ]
    rewards = configured_rewards(shown["reward_funcs"], read_settings(shown["reward_settings"]))
    assert [r.__name__ for r in rewards] == ["answer_reward", "reasoning_reward", "soft_overlong_punishment_reward"]
    assert shown["reward_settings"].keys() == set(shown["reward_funcs"])
