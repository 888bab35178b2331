# SPDX-License-Identifier: Apache-2.0
"""
Rewards by dotted path, set from a run's YAML; every mistake is met at start, by name, before torch is imported.

    reward_funcs: [omni_rewards.answer_reward, omni_rewards.reasoning_reward, trl.rewards.get_soft_overlong_punishment]
    reward_settings:
      omni_rewards.reasoning_reward: {judge: {endpoint: http://localhost:8000/v1, model: Qwen/Qwen2.5-72B-Instruct}}
      trl.rewards.get_soft_overlong_punishment: {max_completion_len: 1024, soft_punish_cache: 128}
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from importlib import import_module
from typing import Any

from omni_grpo.data.rows.prompts import DEFAULT_STYLE, PROMPT_STYLES
from omni_grpo.run.construct import as_mapping, call, construct, nearest, refuse_unknown
from omni_grpo.run.scripts import load_object, trained_settings
from omni_grpo.run.stages import read_fields
from omni_rewards import CONTEXT_THINK_ANSWER, SectionSchema

# OmniGRPOConfig's own default; a test holds the two together.
DEFAULT_REWARDS = ["omni_rewards.section_format_reward", "omni_rewards.answer_reward"]
# What TRL passes to every reward: a parameter of these names is no setting.
GIVEN_BY_TRL = {
    "prompts",
    "completions",
    "completion_ids",
    "trainer_state",
    "log_extra",
    "log_metric",
    "environments",
}


def check_rewards(argv: Sequence[str]) -> None:
    """Build the rewards that a command line describes, for the mistakes in it; raises as [`configured_rewards`]."""
    written = read_fields(argv)
    paths = written.get("reward_funcs") or DEFAULT_REWARDS
    trained = trained_settings(written.get("model_name_or_path"))
    style = PROMPT_STYLES.get({"prompt_style": DEFAULT_STYLE, **trained, **written}["prompt_style"])
    schema, sections = style and style.schema, written.get("section_schema")  # the configuration refuses a wrong style
    if schema and sections and ([sections] if isinstance(sections, str) else sections) != list(schema.names):
        raise ValueError(
            f"section_schema: {sections} are not the sections of this run's prompt_style, {', '.join(schema.names)}; "
            "leave section_schema out, or choose the prompt_style that has them"
        )
    settings = read_settings(written.get("reward_settings"))
    configured_rewards([paths] if isinstance(paths, str) else list(map(str, paths)), settings, schema)


def read_settings(written: Mapping[str, Any] | str | None) -> dict[str, dict[str, Any]]:
    """
    `reward_settings` as a YAML file has it, or as JSON from the command line.

    Raises:
        `ValueError`: It does not map each reward to its settings.

    >>> read_settings('{"omni_rewards.answer_reward": {}}')
    {'omni_rewards.answer_reward': {}}
    """
    settings: dict[str, dict[str, Any]] = {}
    for path, values in as_mapping(written or {}, "reward_settings").items():
        settings[path] = as_mapping(values or {}, f"reward_settings: {path}")
    return settings


def configured_rewards(
    paths: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    schema: SectionSchema | None = None,
) -> list[Callable[..., Any]]:
    """
    The reward at each dotted path, with its settings.

    A path leads to a reward function, to a dataclass of rewards, or to a function that makes rewards (TRL's
    `trl.rewards.get_…`). The settings of `omni_rewards.answer_reward` are the fields of `AnswerReward`, the dataclass
    of that name beside it; those of a function without one are its own keyword parameters.

    Args:
        paths (`Sequence[str]`): Dotted paths, `reward_funcs`.
        settings (`Mapping[str, Mapping[str, Any]]`, *optional*): Keyword settings by path, `reward_settings`.
        schema ([`~omni_rewards.SectionSchema`], *optional*): The run's sections, see [`in_sections`].

    Returns:
        `list[Callable]`: One reward a path, in TRL's calling form.

    Raises:
        `ValueError`: An unknown reward or setting, a setting of the wrong type or value, one that is missing (a judge
            without endpoint), settings of a reward that does not run, or two rewards of one name. The message has the
            path and what to write instead.

    >>> [reward] = configured_rewards(
    ...     ["omni_rewards.section_format_reward"], {"omni_rewards.section_format_reward": {"min_characters": 20}}
    ... )
    >>> reward.min_characters
    20
    """
    settings = settings or {}
    for path in settings:
        if path not in paths:
            raise ValueError(f"reward_settings: {path!r} is not in reward_funcs{nearest(path, paths)}")
    rewards = [_build(path, settings.get(path) or {}) for path in paths]
    if schema is not None:
        chosen = ["schema" in (settings.get(path) or {}) for path in paths]
        rewards = [in_sections(reward, schema, own) for reward, own in zip(rewards, chosen, strict=True)]
    bare = [reward.func if isinstance(reward, functools.partial) else reward for reward in rewards]
    names = [getattr(reward, "__name__", type(reward).__name__) for reward in bare]
    for path, name in zip(paths, names, strict=True):
        if names.count(name) > 1:
            raise ValueError(f"reward_funcs: {path} and another reward are both named {name!r}; TRL would merge them")
    return rewards


def in_sections(reward: Any, schema: SectionSchema, is_chosen: bool = False) -> Any:
    """
    A reward of `omni_rewards` reading the run's sections; any other as it is.

    Args:
        reward (`Callable`): A reward function, or an instance of a dataclass of rewards.
        schema ([`~omni_rewards.SectionSchema`]): The sections that the run's prompt style asks for.
        is_chosen (`bool`, defaults to `False`): Its own were asked for, also where they are its default.

    Raises:
        `ValueError`: It reads other sections, or needs one that the run does not have.
    """
    is_ours = inspect.isfunction(reward) and reward.__module__.startswith("omni_rewards.")
    settable = _settable(f"{reward.__module__}.", reward) if is_ours else None
    own: Any = settable() if settable else reward
    if not (type(own).__module__.startswith("omni_rewards.") and hasattr(own, "schema")):
        return reward
    if getattr(own, "require_agreement", False) and len(schema.names) < 2:
        fault = "`require_agreement` compares the answer with the reasoning"
    elif own.schema != schema and (is_chosen or own.schema != CONTEXT_THINK_ANSWER):
        fault = f"it reads {', '.join(own.schema.names)}"
    else:
        try:
            return reward if own.schema == schema else replace(own, schema=schema)
        except ValueError as error:
            fault = str(error)
    raise ValueError(
        f"reward_funcs: {own.__name__}: {fault}; this run's sections are {', '.join(schema.names)}. Choose a prompt_style "
        "that has what it needs (in Python a section_schema), or take it out: omni_rewards.section_format_reward, and "
        "every reward without `schema` in its reward_settings, goes by the style"
    )


def _build(path: str, values: Mapping[str, Any]) -> Callable[..., Any]:
    found, where = _load(path), f"reward_settings: {path}"
    if is_dataclass(found) and not isinstance(found, type):  # an instance, such as a reward of the user's own
        return construct(type(found), {f.name: getattr(found, f.name) for f in fields(found) if f.init}, values, where)
    if isinstance(found, type):
        return construct(found, {}, values, where)
    if settable := _settable(path, found):
        made = construct(settable, {}, values, where)  # also without settings: it may need some
        return made if values else found
    parameters = inspect.signature(found).parameters
    makes_rewards = not {"completions", "completion_ids"} & parameters.keys() and not any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
    )
    known = [
        name
        for name, parameter in parameters.items()
        if name not in GIVEN_BY_TRL and (makes_rewards or parameter.default is not parameter.empty)
    ]
    refuse_unknown(values, known, where)
    if not makes_rewards:
        made = functools.partial(found, **values)
        made.__dict__["sections"] = getattr(found, "sections", None)  # credit asks for them
        return made if values else found
    required = [name for name in known if parameters[name].default is inspect.Parameter.empty]
    return call(found, values, required, where)


def _load(path: str) -> Any:
    try:
        found = load_object(path)
    except ValueError as error:
        module = sys.modules.get(path.rpartition(".")[0])
        names = [name for name in getattr(module, "__all__", dir(module)) if "reward" in name.lower()]
        raise ValueError(f"{error}{nearest(path.rpartition('.')[2], names)}") from error
    if not callable(found):
        raise ValueError(f"reward_funcs: {path} is a {type(found).__name__}, not a reward")
    return found


def _settable(path: str, function: Callable[..., Any]) -> type | None:
    """`AnswerReward` for `answer_reward`: the dataclass of that name in the function's module or beside the path."""
    name = "".join(part.capitalize() for part in getattr(function, "__name__", "").split("_"))
    for module in (function.__module__, path.rpartition(".")[0]):
        found = getattr(import_module(module), name, None)
        if isinstance(found, type) and is_dataclass(found):
            return found
    return None
