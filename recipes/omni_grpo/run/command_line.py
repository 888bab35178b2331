# SPDX-License-Identifier: Apache-2.0
"""`--config file.yaml [--field value …]`: parsing that names its mistakes, and a `--help` that does not import torch."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints

from omni_grpo.run.construct import field_value
from omni_grpo.run.scripts import announce
from omni_grpo.run.stages import read_fields

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

_OURS = [("omni_grpo", "config.py", "DataArguments"), ("omni_grpo", "data/media/settings.py", "MediaSettings")]
_MODEL = [("trl", "trainer/model_config.py", "ModelConfig")]
_BASE = [("trl", "trainer/base_config.py", "_BaseConfig"), ("transformers", "training_args.py", "TrainingArguments")]
_TOWERS = ("omni_grpo", "config.py", "TowerArguments")
_CREDIT = ("omni_grpo", "credit/arguments.py", "CreditArguments")
_GROUNDING = ("omni_grpo", "experimental/arguments.py", "GroundingArguments")
_SHARING = ("omni_grpo", "scoring/arguments.py", "SharingArguments")
_AGREEMENT = ("omni_grpo", "scoring/arguments.py", "AgreementArguments")
# Command -> where its fields are written down: package, file, class.
SOURCES: dict[str, list[tuple[str, str, str]]] = {
    "grpo": [
        *_OURS,
        ("omni_grpo", "config.py", "OmniGRPOConfig"),
        _SHARING,
        _AGREEMENT,
        _CREDIT,
        _GROUNDING,
        _TOWERS,
        *_MODEL,
        ("trl", "trainer/grpo_config.py", "GRPOConfig"),
        *_BASE,
    ],
    "sft": [
        *_OURS,
        ("omni_grpo", "config.py", "OmniSFTConfig"),
        _TOWERS,
        *_MODEL,
        ("trl", "trainer/sft_config.py", "SFTConfig"),
        *_BASE,
    ],
    "eval": [*_OURS, ("omni_grpo", "evaluation/arguments.py", "EvalArguments")],
    "sample": [*_OURS, ("omni_grpo", "sampling/arguments.py", "SampleArguments")],
}

# Text fields for which YAML's truth values stand, false first.
TEXT_OF = {"report_to": ("none", "all"), "resume_from_checkpoint": ("false", "true")}

# "    name (`type`): text" or the text below it, in the `Args:` of a docstring.
_DESCRIPTION = re.compile(r"^ {4}(\w+)(?: \(.*\))?:\s+(\S.*(?:\n {8,}.+)*)", re.MULTILINE)


def with_default_config(argv: Sequence[str], default: str) -> list[str]:
    """`argv` as it is if it names a config or asks for help, else led by the demo's config, said aloud."""
    if any(arg == "--config" or arg.startswith("--config=") or arg in ("-h", "--help") for arg in argv):
        return [part for arg in argv for part in (arg.split("=", 1) if arg.startswith("--config=") else [arg])]
    announce(f"no --config given: running {CONFIGS / default}")
    return ["--config", str(CONFIGS / default), *argv]


def _documented_fields(package: str, file: str, name: str) -> Iterator[tuple[str, str, str, str]]:
    """Field, type, default and help text of a dataclass, read from its source."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return
    tree = ast.parse((Path(spec.origin).parent / file).read_text(encoding="utf-8"))
    for node in tree.body:
        if not (isinstance(node, ast.ClassDef) and node.name == name):
            continue
        described = dict(_DESCRIPTION.findall(ast.get_docstring(node) or ""))
        for item in node.body:
            if not (isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)):
                continue
            default, text = ast.unparse(item.value) if item.value else "required", described.get(item.target.id, "")
            text = " ".join(text.split())
            if isinstance(item.value, ast.Call):
                keywords = {k.arg: k.value for k in item.value.keywords}
                default = _default(keywords)
                if isinstance(metadata := keywords.get("metadata"), ast.Dict):
                    pairs = zip(metadata.keys, metadata.values, strict=True)
                    text = next((_literal(v) for k, v in pairs if k is not None and ast.unparse(k) == "'help'"), "")
            yield item.target.id, ast.unparse(item.annotation), default, text


def _default(keywords: dict[str | None, ast.expr]) -> str:
    """The default that a `field(...)` gives, as it is written."""
    factory = keywords.get("default_factory")
    if isinstance(factory, ast.Lambda):
        return ast.unparse(factory.body)
    if factory is not None:
        return {"list": "[]", "dict": "{}"}.get(ast.unparse(factory), f"{ast.unparse(factory)}()")
    return ast.unparse(keywords["default"]) if "default" in keywords else "required"


def _literal(node: ast.expr) -> str:
    try:
        return " ".join(str(ast.literal_eval(node)).split())
    except ValueError:  # an f-string or a name: show it as written
        return ast.unparse(node)


def help_text(command: str, description: str) -> str:
    """Every field that `command` takes, grouped by the class it comes from; the first class to name a field wins."""
    lines = [
        description.strip(),
        "",
        "usage: --config FILE.yaml [--field value …] [--debug: tracebacks of mistakes, too]",
        "",
    ]
    shown: set[str] = set()
    for package, file, name in SOURCES[command]:
        entries = [e for e in _documented_fields(package, file, name) if e[0] not in shown]
        shown.update(e[0] for e in entries)
        lines += [f"{package}.{name}:"]
        for field_name, annotation, default, text in entries:
            lines.append(f"  --{field_name} ({annotation}, default {default})")
            lines += [f"      {text}"] if text else []
        lines.append("")
    return "\n".join(lines)


def parse(classes: Sequence[Any], argv: Sequence[str]) -> tuple[Any, ...]:
    """
    Build the dataclasses from YAML and command line.

    Raises:
        `FileNotFoundError`: The config file is not there.
        `ValueError`: A key that no class has, with the nearest that exists; or a value that a class refuses.
        `ArgumentError`: A value on the command line that is not of its field's type.
    """
    from trl import TrlParser

    known = {f.name for cls in classes for f in fields(cls) if f.init}
    hints = {name: hint for cls in classes for name, hint in get_type_hints(cls).items()}
    words: list[str] = []
    for name, value in read_fields(argv).items():
        if name != "env" and name not in known and name.removeprefix("no_") not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "run with --help to see all fields"
            raise ValueError(f"{name}: no such config key; {hint}")
        if name in hints:
            is_text = name in TEXT_OF and isinstance(value, bool)
            meant = TEXT_OF[name][value] if is_text else field_value(value, hints[name], name)
            words += [f"--{name}", meant] if isinstance(meant, str) and meant != value else []
    parser: Any = TrlParser(classes, exit_on_error=False)  # or it would print the usage of three hundred fields
    parsed = parser.parse_args_and_config(args=[*argv, *words])
    for args in parsed:
        if hasattr(args, "check_weights"):  # a trainer in Python has its rewards from elsewhere
            args.check_weights(len(args.reward_funcs))
    return parsed
