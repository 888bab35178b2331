# SPDX-License-Identifier: Apache-2.0
"""One run a folder, whoever else tries, and nobody locked out by a run that is dead."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from omni_grpo.run.run_lock import hold, lock_file, release

HOLDER = """
import sys, time
from pathlib import Path
from omni_grpo.run.run_lock import hold
hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    path = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_in_use_is_refused_with_who_where_and_since_when(tmp_path, holder):
    here = socket.gethostname()
    with pytest.raises(
        ValueError, match=rf"run is in use by process {holder.pid} of \S+ on {here} since 20\d\d-.*kill {holder.pid}"
    ):
        hold(tmp_path / "run")
    hold(tmp_path / "other")
    release(tmp_path / "other")


def test_a_run_that_was_killed_locks_nobody_out(tmp_path, holder):
    """Mutant: believing the file, where the process that wrote it is dead (or its number is another's by now)."""
    with pytest.raises(ValueError):
        hold(tmp_path / "run")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert lock_file(tmp_path / "run").is_file()
    hold(tmp_path / "run")
    release(tmp_path / "run")
    assert not lock_file(tmp_path / "run").exists()


def test_a_lock_of_another_machine_is_named_and_what_to_do_helps(tmp_path):
    """Mutant: taking over what another host may still be using. The file is a real one, with another host's name."""
    hold(tmp_path / "run")
    path = lock_file(tmp_path / "run")
    owner = json.loads(path.read_text()) | {"host": "node17"}
    release(tmp_path / "run")
    path.write_text(json.dumps(owner))
    with pytest.raises(ValueError, match=rf"on node17 since .*if it is dead, delete {path}"):
        hold(tmp_path / "run")
    path.unlink()
    hold(tmp_path / "run")
    hold(tmp_path / "run")  # one process may begin twice
    release(tmp_path / "run")
    release(tmp_path / "run")


def test_a_run_that_fails_leaves_no_lock_for_another_machine_to_meet(tmp_path):
    """Mutant: letting go at a good end alone."""
    code = HOLDER.replace("time.sleep(100)", "raise ValueError")
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 1 and done.stdout == "held\n"
    assert not lock_file(tmp_path / "run").exists()


def test_two_names_of_one_folder_are_one(tmp_path, holder):
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with pytest.raises(ValueError, match="is in use"):
        hold(tmp_path / "link")
