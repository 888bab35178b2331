# SPDX-License-Identifier: Apache-2.0
"""The entry scripts as processes of their own, on the smallest thinker: started, killed, looked at."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import yaml

import forked_scripts
from omni_grpo.run.checkpoints import COMPLETE

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
GRPO, SFT = ROOT / "recipes" / "grpo_omni.py", ROOT / "recipes" / "sft_omni.py"
COMMON = {
    "dtype": "float32",
    "prompt_style": "short",
    "num_frames": 2,
    "min_pixels": 56 * 56,
    "max_pixels": 56 * 56,
    "learning_rate": 1.0e-3,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "save_steps": 2,
    "save_total_limit": 2,
    "report_to": "none",
}
GRPO_FIELDS = {
    "reward_funcs": ["killed_run.letters_reward"],
    "num_generations": 2,
    "per_device_train_batch_size": 4,
    "steps_per_generation": 2,
    "num_iterations": 2,
    "max_completion_length": 6,
    "beta": 0.05,
    "max_steps": 14,
}
SFT_FIELDS = {"sft_target": "target", "per_device_train_batch_size": 2, "max_steps": 10}


def environment() -> dict[str, str]:
    path = os.pathsep.join(map(str, (TESTS, ROOT / "recipes", ROOT / "rewards")))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def start(
    script: Path,
    *arguments: str,
    killed_at: int | None = None,
    processes: int = 1,
    accelerate: str = "",
    ends: int = 0,
    **options,
) -> subprocess.CompletedProcess[str]:
    """
    Run a script to its end, or to its death after the step `killed_at`; by torchrun on several `processes`, or by
    `accelerate launch` with the shipped config of that name, on two in float32. Else in a process forked from one that
    has imported torch, if no more than its `timeout` is asked.
    """
    command = [sys.executable, str(script), *arguments]
    if killed_at is not None:
        command[1:2] = [str(TESTS / "killed_run.py"), str(killed_at), str(script)]
    forked = processes == 1 and not accelerate and not options.keys() - {"timeout"}
    if processes > 1:
        command[:1] = [
            str(Path(sys.executable).with_name("torchrun")),
            "--standalone",
            f"--nproc_per_node={processes}",
        ]
    if accelerate:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        config = str(ROOT / "accelerate_configs" / f"{accelerate}.yaml")
        two = ["--num_processes", "2", "--mixed_precision", "no", "--main_process_port", port]
        command[:1] = [str(Path(sys.executable).with_name("accelerate")), "launch", "--config_file", config, *two]
    pipes = {"capture_output": True, "text": True, "timeout": 300, "start_new_session": True}
    if forked:
        run = forked_scripts.run(command[1:], env=environment(), cwd=ROOT, **options)
    else:
        run = subprocess.run(command, env=environment(), cwd=ROOT, **pipes | options)
    wanted = ends if killed_at is None else 1 if processes > 1 else -signal.SIGKILL
    assert run.returncode == wanted, run.stdout[-3000:] + run.stderr[-3000:]
    return run


def write_config(folder: Path, fields: dict, **changes) -> tuple[str, str]:
    """The `--config` argument of a run into `folder`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump({**COMMON, **fields, "output_dir": str(folder), **changes}))
    return "--config", str(path)


def checkpoints(folder: Path) -> list[int]:
    """Steps of the complete checkpoints."""
    return sorted(int(mark.parent.name.rpartition("-")[2]) for mark in folder.glob(f"checkpoint-*/{COMPLETE}"))


def logged_steps(folder: Path) -> list[int]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if "loss" in line]


def same_weights(a: Path, b: Path) -> bool:
    """Bit for bit."""
    return (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()
