# SPDX-License-Identifier: Apache-2.0
"""A run is a chain of stages; one whose output is there and whose inputs have not changed is not run again.

Standard library and PyYAML alone, so that a finished stage answers in a moment, before torch is imported.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from omni_grpo.model.run_record import RECORD as RECORD
from omni_grpo.run.resuming import changed_fields, changed_rows, keep_rows
from omni_grpo.run.run_lock import release

# Fields whose value names files that the stage reads.
MODELS, DATA = ("model_name_or_path", "models"), ("train_file", "validation_file", "test_file")
RESUME = ("auto", "force", "fresh")
WORK = ("checkpoint-*/COMPLETE", "*/predictions*.jsonl", "samples*.jsonl")  # what a cut run can go on from
HASHED_BELOW = 64 * 2**20  # larger files count by size and time


def config_path(argv: Sequence[str]) -> Path | None:
    """
    The file that `--config` names; `None` without one.

    Raises:
        `FileNotFoundError`: It is not there.
        `ValueError`: `--config` is the last word.
    """
    if "--config" not in argv:
        return None
    rest = argv[list(argv).index("--config") + 1 :]
    if not rest:
        raise ValueError("--config: name a YAML file behind it")
    if not Path(rest[0]).is_file():
        raise FileNotFoundError(
            f"--config: no file at {Path(rest[0]).resolve()}; the shipped ones are in recipes/configs"
        )
    return Path(rest[0])


class _EachOnce(yaml.SafeLoader):
    """YAML of which every field is written once; the last one would go for all."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for name, _ in node.value:
            if str(name.value) in seen:
                raise yaml.MarkedYAMLError(None, None, f"{name.value} is written twice; take one out", name.start_mark)
            seen.add(str(name.value))
        return super().construct_mapping(node, deep)


def read_fields(argv: Sequence[str]) -> dict[str, Any]:
    """
    Values of a `--config file.yaml [--field value …]` command line, overrides applied, before any parser is built.

    >>> read_fields(["--learning_rate", "1e-5", "--bf16"])
    {'learning_rate': '1e-5', 'bf16': 'true'}
    """
    fields: dict[str, Any] = {}
    argv = [part for arg in argv for part in (arg.split("=", 1) if arg.startswith("--") else [arg])]
    if (path := config_path(argv)) is not None:
        try:
            with path.open(encoding="utf-8") as file:  # which mistakes in it name
                written = yaml.load(file, _EachOnce) or {}
        except UnicodeDecodeError as error:
            raise ValueError(f"--config: {path} is not in UTF-8 ({error}); save it so") from error
        if not isinstance(written, dict):
            raise ValueError(f"--config: {path} holds a {type(written).__name__}; write one `field: value` a line")
        fields.update({str(name): value for name, value in written.items()})
    name = None
    values: list[str] = []
    for arg in [*argv, "--"]:
        if not arg.startswith("--"):
            values.append(arg)
            continue
        if name is not None and name != "config":
            fields[name] = "true" if not values else values[0] if len(values) == 1 else values
        name, values = arg[2:].replace("-", "_"), []
    for name in ("output_dir", "model_name_or_path", *DATA):
        if not isinstance(value := fields.get(name) or "", str):
            raise ValueError(
                f"{name}: must be one text, got {value!r}; put it in quotes, commas between several files"
            )
    return fields


def _free(path: Path) -> Path:
    """`path`, or with a number behind it where there is one already."""
    numbered = (path.with_name(f"{path.name}-{count}") for count in itertools.count(2))
    return next(p for p in itertools.chain([path], numbered) if not p.exists())


def _step(checkpoint: Path) -> int:
    last = checkpoint.name.rpartition("-")[2]
    return int(last) if last.isdigit() else 0


def _files(field: str, path: Path) -> Iterator[Path]:
    """The files that a field's path stands for: of a model its own folder's, of data all below, but for what runs wrote."""
    if not path.is_dir():
        yield path
    elif field in MODELS:
        kept = (".json", ".safetensors", ".jinja", ".bin")
        yield from sorted(p for p in path.glob("*") if p.suffix in kept and p.name != RECORD and p.is_file())
    else:
        for folder, folders, names in os.walk(path, followlinks=True):
            own = RECORD in names  # a stage's
            folders[:] = [f for f in sorted(folders) if not (own or f.startswith(".") or f == "decode_cache")]
            found = (Path(folder, name) for name in sorted(names) if not (own or name.startswith(".")))
            yield from (file for file in found if file.is_file())


def input_files(fields: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    """Each file that a field names, also in a `folder[split]`: the field, and the file's name with what it holds."""
    found = []
    for name in (*MODELS, *DATA):
        value = fields.get(name) or ""
        for entry in map(str, value) if isinstance(value, list) else str(value).split(","):
            text = entry.partition("=")[2] if name == "models" else entry.strip()
            there = [Path(t) for t in (text, text.partition("[")[0]) if t and Path(t).exists()]
            for file in (file for path in there[:1] for file in _files(name, path)):
                stat, place = file.stat(), file.relative_to(there[0]) if there[0].is_dir() else file.name
                is_large = stat.st_size >= HASHED_BELOW
                held = f"{stat.st_size} {stat.st_mtime_ns}".encode() if is_large else file.read_bytes()
                found.append((name, str(place).encode() + (held if is_large else hashlib.sha256(held).digest())))
    return found


def contents(inputs: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    """A digest of what each field's files hold."""
    digests: dict[str, Any] = {}
    for name, part in inputs:
        digests.setdefault(name, hashlib.sha256()).update(part)
    return {name: digest.hexdigest() for name, digest in digests.items()}


def fingerprint(fields: Mapping[str, Any], inputs: Iterable[tuple[str, bytes]] | None = None) -> str:
    """Changes with any field and with the content of any file, model or data folder that the fields name."""
    digest = hashlib.sha256(json.dumps(dict(fields), sort_keys=True, default=str).encode())
    for _, part in input_files(fields) if inputs is None else inputs:
        digest.update(part)
    return digest.hexdigest()


@dataclass
class Stage:
    """
    One stage's folder and what it is made from.

    Args:
        folder (`Path`): The stage's `output_dir`.
        fingerprint (`str`): Of its inputs, see [`fingerprint`].
        fields (`Mapping`): Its fields as they are written.
        contents (`Mapping`): Digests of its inputs, see [`contents`].
        record (`Mapping`): What the last run in the folder wrote there; empty if there was none.
        processes (`int`): How many this launch has.
    """

    folder: Path
    fingerprint: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    contents: Mapping[str, str] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    processes: int = field(default_factory=lambda: int(os.environ.get("WORLD_SIZE", "1")))

    @classmethod
    def of(cls, argv: Sequence[str]) -> Stage:
        """The stage that a command line describes."""
        fields = read_fields(argv)
        if not fields.get("output_dir"):
            raise ValueError("output_dir: not given; name a folder for this run")
        if (folder := Path(fields["output_dir"])).exists() and not folder.is_dir():
            raise ValueError(f"output_dir: {folder} is a file; name a folder")
        own, named = (
            Path(fields["output_dir"], RECORD),
            Path(str(fields.get("resume_from_checkpoint"))).with_name(RECORD),
        )
        record = json.loads(own.read_text()) if own.is_file() else {}
        if not record and named.is_file():  # a checkpoint of another folder: it is that run that goes on
            record = json.loads(named.read_text()) | {"done": False}
        inputs = input_files(fields)
        return cls(own.parent, fingerprint(fields, inputs), fields, contents(inputs), record)

    @property
    def mode(self) -> str:
        """`auto`, `force` or `fresh`: the field `resume`; `resume_from_checkpoint: false` is `fresh`, too."""
        from_start = str(self.fields.get("resume_from_checkpoint")).lower() == "false"
        return "fresh" if from_start else str(self.fields.get("resume") or "auto")

    def is_done(self) -> bool:
        """The stage ran to its end from these very inputs."""
        return self.record.get("done") is True and self.mode != "fresh" and not self.changes()

    def changes(self) -> dict[str, str]:
        """What differs, by field, from the run that the folder holds, so far as it changes that run."""
        record = self.record
        if not record or ("fields" not in record and record["fingerprint"] == self.fingerprint):
            return {}
        if "fields" not in record:
            return {"some field": "which is not known, as an earlier version of this project wrote its record"}
        found = changed_fields(record["fields"], self.fields)
        names = sorted({*record["contents"], *self.contents} - {*found})
        found |= {n: "its contents" for n in names if record["contents"].get(n) != self.contents.get(n)}
        processes = record["processes"] if record["done"] else self.processes
        if self.fields.keys().isdisjoint(("models", "num_completions")):  # evaluation and sampling have no steps
            now = {**self.fields, **self.kept_rows()}
            found |= changed_rows(record["fields"], record["processes"], now, processes)
        return found

    def kept_rows(self) -> dict[str, int]:
        """Fields to set, for a cut run that goes on, so that a step has the rows that it had; see [`keep_rows`]."""
        record = self.record
        if "fields" not in record or record["done"] or self.mode != "auto" or not self._has_work(WORK[:1]):
            return {}
        return keep_rows(record["fields"], record["processes"], self.fields, self.processes)

    def _has_work(self, marks: Sequence[str] = WORK) -> bool:
        """Something that a run could go on from."""
        if Path(str(self.fields.get("resume_from_checkpoint"))).is_dir():
            return True
        return any(path for mark in marks for path in self.folder.glob(mark))

    def check(self) -> None:
        """
        Raises `ValueError` where a cut run has work to go on from and fields that change it differ; with the fields and
        with what can be done.
        """
        changes = self.changes() if self.mode == "auto" and not self.record.get("done") and self._has_work() else {}
        if changes:
            raise ValueError(
                f"{self.folder}: the run that was cut there had other values: "
                + "; ".join(f"{name}: {change}" for name, change in changes.items())
                + ". Put them back to go on with it, or write `resume: force` to go on with the new ones, `resume: "
                "fresh` to set it aside and begin anew, or another output_dir"
            )

    def begin(self) -> Path | None:
        """
        Claim the folder. What a cut run of the same inputs left is kept, to be resumed. A run of other inputs that is
        finished, or has steps but no checkpoint, is set aside, never deleted; so is any run with `resume: fresh`.

        Returns:
            `Path` or `None`: Where the other run was moved to.

        Raises:
            `ValueError`: As [`check`].
        """
        self.check()
        moved, other = None, bool(self.changes()) and self.mode != "force"
        trained = self.record.get("done") or (self.folder / "log.jsonl").exists()
        if (self.folder / RECORD).exists() and (self.mode == "fresh" or (other and trained)):
            moved = self.folder.rename(
                _free(self.folder.with_name(f"{self.folder.name}.{time.strftime('%Y%m%d-%H%M%S')}"))
            )
        if moved or self.changes():
            self.record = {}
        named = Path(str(self.fields.get("resume_from_checkpoint")))
        for newer in self.folder.glob("checkpoint-*") if named.parent.resolve() == self.folder.resolve() else ():
            if _step(newer) > _step(named):  # or it would be taken for a checkpoint of this run, and outlive its own
                newer.rename(_free(self.folder / f"superseded-{newer.name}"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write({"done": False, "command": shlex.join(sys.argv)})
        return moved

    def finish(self, **facts: Any) -> None:
        """Mark the stage done, and let go of its folder; `facts` (seconds, metrics) are kept beside its fields."""
        self._write({"done": True, **facts})
        release(self.folder)

    def _write(self, facts: Mapping[str, Any]) -> None:
        """`facts` beside what the run was begun with, to which it is held however often it goes on."""
        begun = {name: self.record.get(name, getattr(self, name)) for name in ("fields", "contents", "processes")}
        self.record = {"fingerprint": self.fingerprint, **begun, **facts}
        path = self.folder / RECORD
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(self.record, indent=1, default=str))
        os.replace(draft, path)
