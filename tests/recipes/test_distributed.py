# SPDX-License-Identifier: Apache-2.0
"""
Two processes on the CPU, by `accelerate launch` with the shipped configs: DDP, ZeRO-2, ZeRO-3, FSDP2.

They train on mixed rows, so arranged that in every micro-step the two ranks hold different modalities, and must end
where one process ends on the same global batches. Qwen2.5-Omni with DDP is in `make test`; the rest is marked
`distributed`, because the first DeepSpeed run on a machine compiles a small op.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from omni_grpo.model.loading import load_model
from tiny_families import FAMILIES

pytestmark = pytest.mark.xdist_group("processes")

ROOT = Path(__file__).resolve().parents[2]
WORKER = ROOT / "tests" / "distributed_worker.py"
OMNI = "qwen2_5_omni"
JOBS = {
    ("ddp", OMNI): ["grpo", "strict", "frozen", "sft"],
    ("zero2", OMNI): ["grpo", "strict", "lora", "frozen"],
    ("zero3", OMNI): ["grpo", "sft", "frozen", "gain"],
    ("fsdp2", OMNI): ["grpo", "sft", "frozen", "lora", "cut", "resumed"],
    **{
        (config, family): ["grpo", "sft"] if config == "zero3" else ["grpo"]
        for config in ("ddp", "zero2", "zero3")
        for family in ("qwen3_omni", "qwen3_vl", "gemma4")
    },
}
ALONE = [("grpo", "strict", "frozen", "plain", "sft"), ("lora", "gain")]  # in one process each
distributed = pytest.mark.distributed


def runs_of(job: str) -> pytest.MarkDecorator:
    """Parametrises by what trains it."""
    runs = [pytest.param(*run, marks=() if run == ("ddp", OMNI) else distributed) for run in JOBS if job in JOBS[run]]
    return pytest.mark.parametrize(("config", "family"), runs)


SECONDS = 2400  # for a run that does not hang: 30 on two idle cores, and once 40 for DeepSpeed's op
# Largest difference of any weight: measured 7e-9 (LoRA 3e-8), where the towers move by 9e-5 to 4e-3.
SAME, MOVED = 1e-6, 2e-5

IMAGE = [{"type": "image", "path": "image0.png"}]
AUDIO = [{"type": "audio", "path": "sound1.wav"}]
CLIP = [{"type": "video", "path": "clip2.mp4", "use_audio": True}]
# What rank 0 and rank 1 hold, micro-step by micro-step. One process holds both at once.
ARRANGED = [(IMAGE, CLIP), ([], IMAGE + AUDIO), (CLIP, []), (AUDIO, IMAGE), ([], []), (CLIP, IMAGE)]


def towers_of(family: str) -> list[str]:
    """What stands in the names of weights that train: of the towers, and of the language model."""
    audio = ["audio_tower"] if "audio" in FAMILIES[family].modalities else []
    return [*audio, "vision_tower" if family == "gemma4" else "visual", "layers"]


def shown(media: list[dict], family: str) -> list[dict]:
    """Of a row's media those that a family takes."""
    takes = FAMILIES[family].modalities
    return [
        item | ({"use_audio": "audio" in takes} if "use_audio" in item else {})
        for item in media
        if item["type"] in takes
    ]


def met(family: str, rank: int) -> list[list[str]]:
    """Modalities that a rank's rows hold, micro-step by micro-step."""
    rows = [shown(pair[rank], family) for pair in ARRANGED]
    return [
        sorted({kind for item in row for kind in (item["type"], *["audio"] * item.get("use_audio", 0))})
        for row in rows
    ]


@pytest.fixture(scope="module")
def data(clips) -> Callable[[str], str]:
    """A family's rows in the order in which they are dealt out: rank 0, rank 1, rank 0, …"""

    def write(family: str) -> str:
        rows = [
            {
                "id": f"row{i}",
                "problem": f"Question {i}: does the voice agree with the face?",
                "problem_type": "yes_no",
                "solution": ("yes", "no")[i % 2],
                "target": "<context>The face looks sad.</context><think>They agree.</think><answer>yes</answer>",
                "media": shown(media, family),
            }
            for i, media in enumerate(media for pair in ARRANGED for media in pair)
        ]
        file = clips / f"arranged-{family}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(file)

    return write


def finish(command: list[str], seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
    """Run to the end, or kill the whole process group: a rank that hangs would outlive its launcher."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=environment, cwd=ROOT, start_new_session=True, **pipes) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, output)


def launch(config: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`accelerate launch` with a shipped config, brought down to two processes in float32."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    accelerate = [str(Path(sys.executable).with_name("accelerate")), "launch"]
    accelerate += ["--config_file", str(ROOT / "accelerate_configs" / f"{config}.yaml")]
    accelerate += ["--num_processes", "2", "--mixed_precision", "no", "--main_process_port", port]
    return finish([*accelerate, str(WORKER), *arguments])


def succeeded(run: subprocess.CompletedProcess[str]) -> None:
    assert run.returncode == 0, run.stdout[-6000:]


@pytest.fixture(scope="module")
def alone(checkpoint, data, tmp_path_factory) -> Callable[..., Path]:
    """The folder of a job in one process, run with those of its line when one of them is first asked for."""

    @functools.cache
    def run(jobs: tuple[str, ...], family: str) -> Path:
        out = tmp_path_factory.mktemp("alone")
        succeeded(finish([sys.executable, str(WORKER), checkpoint(family), data(family), str(out), *jobs]))
        return out

    def of(job: str, family: str = OMNI) -> Path:
        return run(next(jobs for jobs in ALONE if job in jobs) if family == OMNI else ("grpo", "sft"), family) / job

    return of


@pytest.fixture(scope="module")
def together(checkpoint, data, tmp_path_factory) -> Callable[..., Path]:
    """The jobs of a config in two processes, run when they are first asked for."""

    @functools.cache
    def run(config: str, family: str = OMNI) -> Path:
        out = tmp_path_factory.mktemp(config)
        succeeded(launch(config, checkpoint(family), data(family), str(out), *JOBS[config, family]))
        return out

    return run


def facts(folder: Path, rank: int = 0) -> dict:
    return json.loads((folder / f"facts-{rank}.json").read_text())


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], name: str = "") -> float:
    """Over all weights whose name holds `name`; both sides have the same names."""
    assert a.keys() == b.keys()
    pairs = ((a[key], b[key]) for key in a if name in key)
    return max((x - y).masked_fill(x == y, 0.0).abs().max().item() for x, y in pairs)  # some bounds are infinite


@runs_of("grpo")
def test_grpo_on_two_processes_ends_where_one_ends(config, family, together, alone, checkpoint):
    """
    Fails without the dummy tower calls (ZeRO-2, ZeRO-3, FSDP2), and when a rank's gradient, its normaliser or its
    router's loss is left out.
    """
    folder = together(config, family) / "grpo"
    for rank in (0, 1):
        known = facts(folder, rank)
        assert (known["world"], known["steps"]) == (2, 3)
        assert known["met"] == met(family, rank)
    # By their loader: ZeRO-2 writes a head that is tied to the embeddings a second time.
    folders = (folder, alone("grpo", family), checkpoint(family))
    trained, single, start = (load_model(str(path)).state_dict() for path in folders)
    assert largest_difference(trained, single) < SAME
    for part in towers_of(family):
        assert largest_difference(trained, start, part) > MOVED


@runs_of("grpo")
def test_reference_starts_as_the_policy_and_stays(config, family, together, alone):
    """A copy of what a rank holds of a shard is no copy; a reference that shares weights would keep the KL at 0."""
    for rank in (0, 1):
        known = facts(together(config, family) / "grpo", rank)
        assert known["reference"] == 0.0
        assert known["kl"][0] == pytest.approx(0.0, abs=1e-9)
        assert known["kl"][-1] > 1e-5
        if not FAMILIES[family].experts:  # whose micro-batches are smaller in one process
            assert known["kl"] == pytest.approx(facts(alone("grpo", family))["kl"], rel=1e-3, abs=1e-9)


@runs_of("strict")
def test_credit_by_section_is_that_of_one_process(config, family, together, alone):
    """
    A group lies on one rank, its rewards' scale and gaps on both. Mutants: every rank takes the advantages of rank 0's
    rows; a rank scales its own rewards alone.
    """
    single = facts(alone("strict"))["credited"]
    ranks = [facts(together(config) / "strict", rank)["credited"] for rank in (0, 1)]
    assert not ranks[0].keys() & ranks[1].keys()
    both = ranks[0] | ranks[1]
    assert both.keys() == single.keys()
    for row, advantages in single.items():
        assert both[row] == pytest.approx(advantages, abs=1e-6), row
    assert any(len(set(advantages)) > 2 for advantages in single.values()), "differs within a completion"
    weights = (load_file(path / "model.safetensors") for path in (together(config) / "strict", alone("strict")))
    assert largest_difference(*weights) < SAME


@distributed
def test_context_gain_with_zero3_is_that_of_one_process(together, alone):
    """Its passes, too, are made by all ranks, also by one whose rows are text: a rank that stays away hangs the run."""
    out, single = together("zero3") / "gain", alone("gain")
    assert largest_difference(*(load_file(f / "model.safetensors") for f in (out, single))) < SAME
    both = facts(out, 0)["credited"] | facts(out, 1)["credited"]
    assert both.keys() == facts(single)["credited"].keys()
    for row, advantages in facts(single)["credited"].items():
        assert both[row] == pytest.approx(advantages, abs=1e-3), row  # a gain of rounding is divided by its deviation
    assert facts(single)["credited"] != facts(alone("grpo"))["credited"]


@runs_of("lora")
def test_lora_on_two_processes_ends_where_one_ends(config, family, together, alone):
    out, weights = together(config), "adapter_model.safetensors"
    trained, start = load_file(out / "lora" / weights), load_file(out / "lora" / "start" / weights)
    assert largest_difference(start, load_file(alone("lora") / "start" / weights)) == 0.0
    assert largest_difference(trained, load_file(alone("lora") / weights)) < SAME
    assert largest_difference(trained, start) > MOVED


@runs_of("frozen")
def test_frozen_towers_are_encoded_while_sampling_and_never_later(config, family, together, alone, checkpoint):
    """
    Two iterations a batch, which the ranks fill with different modalities, prompts scored once: the weights are those
    of one process on the plain path. Mutant: a rank calls a tower for what it misses when it misses it, alone, and
    the run hangs (ZeRO-3) or its gradients do not meet the other's.
    """
    out = together(config) / "frozen"
    trained, start, plain = (
        load_file(f / "model.safetensors") for f in (out, Path(checkpoint(family)), alone("plain"))
    )
    assert largest_difference(trained, plain) < SAME
    assert largest_difference(trained, start, "layers") > MOVED
    for tower in ("audio_tower", "visual"):
        assert largest_difference(trained, start, tower) == 0.0
    known = [facts(out, rank) for rank in (0, 1)]
    assert all(rank["shares"] for rank in known)
    assert known[0]["encoded"] != known[1]["encoded"]
    both = {m: sum(rank["encoded"].get(m, 0) for rank in known) for m in ("audio", "image", "video")}
    assert both == facts(alone("frozen"))["encoded"]
    assert all(n < facts(alone("plain"))["encoded"][m] for m, n in both.items())


@runs_of("sft")
def test_sft_saves_whole_weights_that_load(config, family, together, alone, checkpoint):
    """Catches shards saved as they lie, and names that no loader knows; the weights are those of one process."""
    folders = (together(config, family) / "sft", alone("sft", family), Path(checkpoint(family)))
    assert [facts(folders[0], rank)["evaluated"] for rank in (0, 1)] == [facts(folders[1])["evaluated"]] * 2
    trained, single, start = (load_model(str(folder)).state_dict() for folder in folders)
    assert largest_difference(trained, single) < SAME
    for part in towers_of(family):
        assert largest_difference(trained, start, part) > MOVED


@runs_of("resumed")
def test_a_resumed_run_ends_where_the_one_ends_that_was_not_cut(config, family, together):
    """Weights and Adam's state come back from whole files to where each process keeps its shard. Mutant: fresh ones."""
    ends = [load_file(together(config) / job / "model.safetensors") for job in ("cut", "resumed")]
    assert largest_difference(*ends) == 0.0


@distributed
@pytest.mark.slow
@pytest.mark.parametrize("config", ["zero2", "zero3"])
def test_without_dummy_tower_calls_two_processes_come_apart(config, checkpoint, data, tmp_path):
    """Gloo notices that the ranks' collectives differ; NCCL would wait for ever."""
    run = launch(config, checkpoint(OMNI), data(OMNI), str(tmp_path), "grpo", "--without-dummies")
    assert run.returncode != 0
    assert "gloo" in run.stdout
