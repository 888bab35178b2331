# SPDX-License-Identifier: Apache-2.0
"""
Runs that are ended from outside, at any moment and by any of their processes: nothing of them is alive a minute later,
nobody else gets into their folder, and the same command goes on to the weights of a run that nothing disturbed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from omni_grpo.run.preemption import PREEMPTED
from omni_grpo.run.run_lock import lock_file
from script_runs import (
    GRPO,
    GRPO_FIELDS,
    ROOT,
    checkpoints,
    environment,
    logged_steps,
    same_weights,
    start,
    write_config,
)

pytestmark = pytest.mark.xdist_group("processes")

BIN = Path(sys.executable).parent
LAUNCHERS = {
    "script": [sys.executable],
    "accelerate": [
        str(BIN / "accelerate"),
        "launch",
        "--config_file",
        str(ROOT / "accelerate_configs" / "cpu.yaml"),
        "--num_cpu_threads_per_process",
        "1",
    ],
    "torchrun": [str(BIN / "torchrun"), "--standalone", "--nproc_per_node=2"],
}
PROCESSES = {"script": 1, "accelerate": 1, "torchrun": 2}


def of_run(config: str) -> dict[int, str]:
    """Every living process whose command line names the run's config, and that command line."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if config in words and state != "Z":
            found[int(folder.name)] = " ".join(words)
    return found


def workers_of(config: str, launcher: int) -> list[int]:
    """The training processes, in the order in which they were started."""
    return sorted(pid for pid in of_run(config) if pid != launcher) or [launcher]


class Launched:
    """A run under a launcher, for as long as a test needs it."""

    def __init__(self, launcher: str, command: tuple[str, str]) -> None:
        self.config, self.folder = command[1], Path(command[1]).with_suffix("")
        words = [*LAUNCHERS[launcher], str(GRPO), *command]
        self.output = Path(command[1]).with_suffix(".out").open("w+")
        pipes = {"stdout": self.output, "stderr": subprocess.STDOUT, "start_new_session": True}
        self.process = subprocess.Popen(words, env=environment(), cwd=ROOT, **pipes)

    def reaches(self, step: int, before: int = 0) -> None:
        """Wait for a step to be logged, after the first `before` lines of the log."""
        log, end = self.folder / "log.jsonl", time.monotonic() + 120
        while time.monotonic() < end and self.process.poll() is None:
            if log.exists() and any(n >= step for n in logged_steps(self.folder)[before:]):
                return
            time.sleep(0.02)
        raise AssertionError(self.text()[-3000:])

    def dies(self, seconds: float = 60) -> int:
        """The launcher's exit status, once no process of the run is left."""
        end = time.monotonic() + seconds
        while (self.process.poll() is None or of_run(self.config)) and time.monotonic() < end:
            time.sleep(0.1)
        assert not of_run(self.config), self.text()[-3000:]
        return self.process.wait()

    def text(self) -> str:
        self.output.seek(0)
        return self.output.read()


@pytest.fixture
def launched():
    runs: list[Launched] = []

    def launch(launcher: str, command: tuple[str, str]) -> Launched:
        runs.append(Launched(launcher, command))
        return runs[-1]

    yield launch
    for run in runs:
        for pid in of_run(run.config):
            os.kill(pid, signal.SIGKILL)
        run.process.wait()
        run.output.close()


@pytest.fixture(scope="module")
def command(tiny, mixed_file):
    """The config of a GRPO run into a folder, of as many rows a step on two processes as on one."""

    def write(folder: Path, processes: int) -> tuple[str, str]:
        fields = {**GRPO_FIELDS, "per_device_train_batch_size": 4 // processes}
        return write_config(folder, fields, model_name_or_path=tiny, train_file=str(mixed_file))

    return write


@pytest.fixture(scope="module")
def undisturbed(command, tmp_path_factory):
    """The folder of a run from beginning to end on so many processes, made when first asked for."""
    made: dict[int, Path] = {}

    def run(processes: int) -> Path:
        if processes not in made:
            made[processes] = tmp_path_factory.mktemp("undisturbed") / "run"
            start(GRPO, *command(made[processes], processes), processes=processes)
        return made[processes]

    return run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=["SIGTERM", "SIGUSR1"])
def test_a_run_that_is_asked_to_end_saves_at_the_next_border_and_says_so(
    launched, command, undisturbed, tmp_path, number
):
    """
    Four steps share a generation here: asked after step 5, it saves at 8. Mutants: Python's own way with the signal
    (-15, no save); a save in the middle of a generation, from which other weights would come.
    """
    words = command(tmp_path / "run", 1)
    run = launched("script", words)
    run.reaches(5)
    asked = max(logged_steps(run.folder))
    run.process.send_signal(number)
    assert run.dies() == PREEMPTED
    [*_, last] = checkpoints(run.folder)
    assert asked <= last < 14 and last == max(logged_steps(run.folder)) and last % 4 == 0
    assert not json.loads((run.folder / "stage.json").read_text())["done"]
    start(GRPO, *words)
    assert same_weights(run.folder, undisturbed(1))


def test_an_orphan_keeps_its_folder_to_itself_and_ends(launched, command, undisturbed, tmp_path):
    """Mutants: the worker of a killed launcher trains on; a second run beside it in the same folder."""
    words = command(tmp_path / "run", 1)
    run = launched("accelerate", words)
    run.reaches(3)
    [worker] = workers_of(run.config, run.process.pid)
    os.kill(worker, signal.SIGSTOP)  # long enough to be met
    run.process.send_signal(signal.SIGTERM)
    run.process.wait()
    refused = start(GRPO, *words, ends=1).stderr
    assert f"{run.folder} is in use by process {worker} of " in refused and socket.gethostname() in refused
    os.kill(worker, signal.SIGCONT)
    run.dies()
    assert not lock_file(run.folder).exists() or checkpoints(run.folder)
    start(GRPO, *words)
    assert same_weights(run.folder, undisturbed(1))


def test_a_run_that_is_not_training_yet_ends_at_once(launched, command, tmp_path):
    words = command(tmp_path / "run", 1)
    run = launched("script", words)
    while run.process.poll() is None and not lock_file(run.folder).exists():
        time.sleep(0.02)
    run.process.send_signal(signal.SIGTERM)
    assert run.dies() == PREEMPTED and not checkpoints(run.folder)


# Launcher, which of its processes is hit (None: the launcher itself), and by what.
KILLS = [
    ("torchrun", None, signal.SIGUSR1),  # torchrun dies of it, and its workers see that it did
    *(("accelerate", who, number) for who in (None, 0) for number in (signal.SIGTERM, signal.SIGKILL)),
    ("accelerate", None, signal.SIGUSR1),
    ("accelerate", 0, signal.SIGUSR1),
    *(("script", None, number) for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1)),
    *(("torchrun", who, number) for who in (None, 0, 1) for number in (signal.SIGTERM, signal.SIGKILL)),
    ("torchrun", None, signal.SIGTERM),
    ("torchrun", 1, signal.SIGKILL),
    ("torchrun", 0, signal.SIGUSR1),
    ("torchrun", None, signal.SIGKILL),
]


@pytest.mark.parametrize(
    ("launcher", "who", "number", "case"),
    [
        pytest.param(*kill, case, marks=[] if case == 0 else [pytest.mark.slow], id="-".join(map(str, (*kill, case))))
        for case, kill in enumerate(KILLS)
    ],
)
def test_a_killed_run_goes_on_to_the_same_weights(
    launched, command, undisturbed, tmp_path, launcher, who, number, case
):
    """Mutants: as above; a checkpoint that one rank wrote before the other one died; an order of rows drawn anew."""
    chance = random.Random(case)
    words = command(tmp_path / "run", PROCESSES[launcher])
    run = launched(launcher, words)
    run.reaches(chance.randrange(1, 12))
    time.sleep(chance.random() / 2)
    if run.process.poll() is None:
        hit = run.process.pid if who is None else workers_of(run.config, run.process.pid)[who]
        os.kill(hit, number)
    run.dies()
    again = launched(launcher, words)
    assert again.dies(240) == 0, again.text()[-3000:]
    assert same_weights(run.folder, undisturbed(PROCESSES[launcher]))
    assert not lock_file(run.folder).exists()
