# SPDX-License-Identifier: Apache-2.0
"""
Python scripts in processes forked from one that has imported torch, transformers and TRL: what a script says, writes and
ends with is that of a process of its own, ten seconds of imports sooner.

    python tests/forked_scripts.py       # by `run`
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PRELOADED = ("trl.trainer.grpo_trainer", "trl.trainer.sft_trainer")
_LOCK, _PARENT = threading.Lock(), list[Connection]()


def _parent(env: dict[str, str]) -> Connection:
    """To the process that has imported, which is started when a script is first asked for and ends with this one."""
    if not _PARENT:
        ours, theirs = Pipe()
        words = [sys.executable, __file__, str(theirs.fileno())]
        subprocess.Popen(words, env=env, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        _PARENT.append(ours)
    return _PARENT[0]


def run(
    words: Sequence[str], *, env: dict[str, str], cwd: Path, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """
    As [`subprocess.run`] with `capture_output` of `python <words>`, in a session of its own. All calls of a session of
    tests share what of `env` is read at import: that of the first.
    """
    with _LOCK, tempfile.TemporaryDirectory() as folder:
        streams = [str(Path(folder) / name) for name in ("out", "err")]
        parent = _parent(env)
        parent.send({"words": [*map(str, words)], "environment": env, "folder": str(cwd), "streams": streams})
        process = parent.recv()
        late = not parent.poll(timeout)
        if late:
            os.killpg(process, signal.SIGKILL)
        code = parent.recv()
        if late:
            raise subprocess.TimeoutExpired([*words], timeout)
        out, err = (Path(stream).read_text(encoding="utf-8") for stream in streams)
    return subprocess.CompletedProcess([*words], code, out, err)


def _serve(tests: Connection) -> dict[str, Any]:
    """Fork for each request; in the forked process, return with the request."""
    while True:
        try:
            request = tests.recv()
        except EOFError:
            os._exit(0)
        if (process := os.fork()) == 0:
            return request
        tests.send(process)
        tests.send(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))


def _become(request: dict[str, Any]) -> None:
    """The process that `python <words>` would be."""
    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for descriptor, path in zip((0, 1, 2), (os.devnull, *request["streams"]), strict=True):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), descriptor)
    sys.argv = request["words"]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    for name in PRELOADED:
        __import__(name)
    _become(_serve(Connection(int(sys.argv[1]))))
