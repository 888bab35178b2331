# SPDX-License-Identifier: Apache-2.0
"""From values as YAML has them to dataclasses; a wrong name, type or value is refused with the place it stands at."""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from importlib import import_module
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def construct(cls: type, present: Mapping[str, Any], values: Mapping[str, Any], where: str) -> Any:
    """`cls` with the fields `present` as they are, and `values` over them, converted to what their annotations say."""
    if not is_dataclass(cls):
        return call(cls, values, [], where)
    known = {f.name: f for f in fields(cls) if f.init}
    refuse_unknown(values, known, where)
    hints = get_type_hints(cls)
    given = {name: _converted(value, hints[name], f"{where}.{name}") for name, value in values.items()}
    required = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    return call(cls, {**present, **given}, required, where)


def call(make: Callable[..., Any], values: Mapping[str, Any], required: Sequence[str], where: str) -> Any:
    """`make(**values)`; what it refuses is told with the place where it was written."""
    if missing := [name for name in required if name not in values]:
        raise ValueError(f"{where}: needs {', '.join(missing)}; write {'it' if len(missing) == 1 else 'them'} there")
    try:
        return make(**values)
    except (TypeError, ValueError, ImportError) as error:
        raise ValueError(f"{where}: {error}") from error


def word(value: Any, words: Sequence[Any], where: str) -> Any:
    """
    `value`, which must be one of `words`. YAML reads `off` and `no` as false, `on` and `yes` as true: they are taken for
    the word of that meaning, if there is one.

    >>> word(False, ("auto", "off"), "share_media")
    'off'
    """
    spelled = {True: ("on", "yes"), False: ("off", "no", "none")}[value] if isinstance(value, bool) else ()
    meant = [w for w in words if w in spelled]
    if value not in words and not meant:
        raise ValueError(f"{where}: {value!r} is unknown; one of {', '.join(map(str, words))}")
    return value if value in words else meant[0]


def field_value(value: Any, hint: Any, where: str) -> Any:
    """
    `value` of a field with the annotation `hint`, as YAML has it or, as text that is still to be read, the command line.

    Raises:
        `ValueError`: It cannot be; the message names the field.
    """
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    words = [w for o in options if isinstance(o, type) and issubclass(o, Enum) for w in o]
    words = words or [w for o in options if get_origin(o) is Literal and str not in options for w in get_args(o)]
    if words and not (value is None and type(None) in options):
        return word(value, [getattr(w, "value", w) for w in words], where)
    return value if isinstance(value, str) else _converted(value, hint, where)


def _converted(value: Any, hint: Any, where: str) -> Any:
    """`value`, as YAML has it, in the form that the annotation `hint` asks for."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        origin, inner = get_origin(option) or option, get_args(option)
        if isinstance(origin, type) and is_dataclass(origin):
            if isinstance(value, Mapping):
                return construct(origin, {}, as_mapping(value, where), where)
            if isinstance(value, str) and all(part.isidentifier() for part in value.split(".")):
                named = _constant(value, where)
                if isinstance(named, origin):
                    return named
        elif origin is Literal and (str in options or isinstance(value, bool) or value in inner):
            return word(value, inner, where)
        elif origin is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        elif origin is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        elif origin in (tuple, frozenset) and isinstance(value, (list, tuple)):
            element = inner[0] if len({*inner} - {...}) == 1 else Any
            return origin(_converted(item, element, where) for item in value)
        elif origin is Any or (isinstance(origin, type) and origin not in (int, float) and isinstance(value, origin)):
            return value
    asked = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
    note = " (YAML reads 1e-3 as text; write 1.0e-3)" if isinstance(value, str) and float in options else ""
    note = " (YAML reads off, no, on, yes as a truth value; quote the word)" if isinstance(value, bool) else note
    raise ValueError(f"{where}: must be {asked}, got {value!r}{note}")


def _constant(path: str, where: str) -> Any:
    """What a dotted path names, such as `omni_rewards.THINK_ANSWER`."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{where}: cannot import {path!r} ({error})") from error


def as_mapping(value: Any, where: str) -> dict[str, Any]:
    """`value` as a dictionary of settings, also from JSON as the command line has it; refused if it is none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not JSON ({error})") from error
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: write one `setting: value` a line, got {value!r}")
    return {str(name): setting for name, setting in value.items()}


def refuse_unknown(values: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Raises `ValueError` for a name that is not `known`, with the nearest that is."""
    for name in values:
        if name not in known:
            every = f"; known are {', '.join(known)}" if known else "; it has none"
            raise ValueError(f"{where}: no such setting {name!r}{nearest(name, known)}{every}")


def nearest(name: str, known: Collection[str]) -> str:
    """The end of an error message that says what may have been meant."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
