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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni_grpo.run_record import RECORD as RECORD

# Fields whose value names files that the stage reads.
INPUT_FIELDS = ("model_name_or_path", "models", "train_file", "validation_file", "test_file")
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


def read_fields(argv: Sequence[str]) -> dict[str, Any]:
    """
    Values of a `--config file.yaml [--field value …]` command line, overrides applied, before any parser is built.

    >>> read_fields(["--learning_rate", "1e-5", "--bf16"])
    {'learning_rate': '1e-5', 'bf16': 'true'}
    """
    fields: dict[str, Any] = {}
    argv = [part for arg in argv for part in (arg.split("=", 1) if arg.startswith("--") else [arg])]
    if (path := config_path(argv)) is not None:
        import yaml

        written = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if not isinstance(written, dict):
            raise ValueError(f"--config: {path} holds a {type(written).__name__}; write one `field: value` a line")
        fields.update(written)
    name = None
    values: list[str] = []
    for arg in [*argv, "--"]:
        if not arg.startswith("--"):
            values.append(arg)
            continue
        if name is not None and name != "config":
            fields[name] = "true" if not values else values[0] if len(values) == 1 else values
        name, values = arg[2:].replace("-", "_"), []
    return fields


def _hash_path(digest: Any, path: Path) -> None:
    files = sorted(p for p in path.glob("*") if p.is_file() and p.name != RECORD) if path.is_dir() else [path]
    for file in files:
        if path.is_dir() and file.suffix not in (".json", ".safetensors", ".jinja", ".bin"):
            continue
        stat = file.stat()
        digest.update(file.name.encode())
        if stat.st_size < HASHED_BELOW:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        else:
            digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())


def fingerprint(fields: Mapping[str, Any]) -> str:
    """Changes with any field and with the content of any file or model directory that the fields name."""
    digest = hashlib.sha256(json.dumps(dict(fields), sort_keys=True, default=str).encode())
    for name in INPUT_FIELDS:
        value = fields.get(name) or []
        for entry in value.split(",") if isinstance(value, str) else value:
            path = Path(entry.partition("=")[2] if name == "models" else entry.strip())
            if path.exists():
                _hash_path(digest, path)
    return digest.hexdigest()


@dataclass
class Stage:
    """
    One stage's folder and what it was made from.

    Args:
        folder (`Path`): The stage's `output_dir`.
        fingerprint (`str`): Of its inputs, see [`fingerprint`].
    """

    folder: Path
    fingerprint: str

    @classmethod
    def of(cls, argv: Sequence[str]) -> Stage:
        """The stage that a command line describes."""
        fields = read_fields(argv)
        if not fields.get("output_dir"):
            raise ValueError("output_dir: not given; name a folder for this run")
        return cls(Path(fields["output_dir"]), fingerprint(fields))

    def _record(self) -> dict[str, Any]:
        path = self.folder / RECORD
        return json.loads(path.read_text()) if path.is_file() else {}

    def is_done(self) -> bool:
        """The stage ran to its end from these very inputs."""
        record = self._record()
        return record.get("fingerprint") == self.fingerprint and record.get("done") is True

    def begin(self) -> Path | None:
        """
        Claim the folder. A folder that holds another run (other inputs) is set aside, never deleted; what an
        interrupted run of the same inputs left is kept, to be resumed.

        Returns:
            `Path` or `None`: Where the other run was moved to.
        """
        moved = None
        if (record := self._record()) and record.get("fingerprint") != self.fingerprint:
            moved = stamped = self.folder.with_name(f"{self.folder.name}.{time.strftime('%Y%m%d-%H%M%S')}")
            for count in itertools.count(2):  # two in one second
                if not moved.exists():
                    break
                moved = stamped.with_name(f"{stamped.name}-{count}")
            self.folder.rename(moved)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write({"fingerprint": self.fingerprint, "done": False, "command": shlex.join(sys.argv)})
        return moved

    def finish(self, **facts: Any) -> None:
        """Mark the stage done; `facts` (seconds, metrics) are kept beside the fingerprint."""
        self._write({"fingerprint": self.fingerprint, "done": True, **facts})

    def _write(self, record: Mapping[str, Any]) -> None:
        path = self.folder / RECORD
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(record, indent=1))
        os.replace(draft, path)
