# SPDX-License-Identifier: Apache-2.0
"""One run a folder: a lock beside `output_dir` that says who works there, where and since when."""

from __future__ import annotations

import atexit
import fcntl
import getpass
import json
import os
import socket
import time
from pathlib import Path

_HELD: dict[Path, int] = {}  # open for as long as this process holds it


def lock_file(folder: Path) -> Path:
    """Beside the folder, which may be set aside: `runs/rl` → `runs/rl.lock`."""
    folder = folder.resolve()
    return folder.with_name(folder.name + ".lock")


def hold(folder: Path) -> None:
    """
    Take the lock on a run's folder, until [`release`] or the end of the process, however it ends.

    The operating system keeps it for the process that took it, so what a killed run left on this machine is free.
    What one left on another machine cannot be known to be dead from here.

    Raises:
        `ValueError`: Another run has it; the message says which, where and since when, and what can be done.
    """
    path = lock_file(folder)
    if path in _HELD:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    here, file = socket.gethostname(), os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    owner = json.loads(os.pread(file, 10_000, 0) or b"null")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        taken = owner is not None and owner["host"] != here
    except OSError:
        taken = True
    if taken or os.fstat(file).st_ino != path.stat().st_ino:  # or it was let go of between two lines
        os.close(file)
        owner = owner or {"host": here, "process": "that is just starting", "user": "unknown", "since": "now"}
        way = f"end it first (`kill {owner['process']}`)" if owner["host"] == here else f"if it is dead, delete {path}"
        raise ValueError(
            f"output_dir: {folder} is in use by process {owner['process']} of {owner['user']} on {owner['host']} since "
            f"{owner['since']}; {way}, or choose another output_dir"
        )
    owner = {"host": here, "process": os.getpid(), "user": getpass.getuser(), "since": time.strftime("%F %T %Z")}
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(owner).encode(), 0)
    _HELD[path] = file
    atexit.register(release, folder)  # also after an error; what is killed leaves the file


def release(folder: Path) -> None:
    """Let go of the folder; nothing where this process does not hold it."""
    path = lock_file(folder)
    if (file := _HELD.pop(path, None)) is not None:
        path.unlink(missing_ok=True)
        os.close(file)
