# SPDX-License-Identifier: Apache-2.0
"""
What a person reads: the consoles of `make smoke` and of `make demo`, whose own commands run here on a few rows, and of
runs that cannot begin. Every line is one of ours, none comes twice, and a mistake is its message and no more.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import forked_scripts
from omni_grpo.run.progress import next_command
from script_runs import ROOT, environment

pytestmark = pytest.mark.xdist_group("processes")

DEMO = ROOT / "recipes" / "configs" / "demo"
FIGURE = r"(loss|reward|answers|valid format) -?[\d.e+-]+( %)?( \[-?[\d.e+-]+( %)?, -?[\d.e+-]+( %)?\])?"
# One expression a kind of line, with how often a stage may print it.
OURS = {
    r"\w+ +\d+ rows   \S+\.jsonl": 4,
    r"\d+ of \d+ clips made, [\d.]+ s": 1,
    r"saved \S+": 1,
    r"SFT on \d+ rows from \S+": 1,
    r"RL on \d+ rows from \S+, rewards [\w., ]+": 1,
    rf"(SFT|RL) \d+/\d+(, {FIGURE})*, +[\d.]+ ?s/step, [\d:]+ left": 2,
    rf"(SFT|RL): ({FIGURE}, )+(on \d+ rows of validation|over the last \d+ of \d+ logged steps)": 2,
    r"weights in \S+, every step in \S+log\.jsonl": 2,
    r"next: (python recipes/\w+\.py --\w+ \S+|RL, with `model_name_or_path: \S+`)": 2,
    r"no step moved the policy: in no group did two completions earn different rewards; look at the rewards": 1,
    r"the loop turns: data → SFT → GRPO, on video, image, audio and text": 1,
    r"answers in \S+, every figure in \S+": 1,
    r"\S+\.html \([\d.]+ MB\)(: every completion, with filters|, curves in \S+)": 2,
}
TABLE = r"(model +variant|(base|sft|rl) +(full|no_\w+|silent|blank|swapped_\w+) |rl − sft on |… \d+ more lines in metrics\.txt|(base|sft|rl) \w+: ).*"


def screen(run: subprocess.CompletedProcess[str]) -> list[str]:
    """What stands on the terminal in the end: a line that is written over counts as it was last."""
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-3000:]
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in (run.stdout + run.stderr).split("\n")]
    return [line for line in lines if line]


def read(lines: list[str], most: int, table: int = 0) -> None:
    """Hold a console to [`OURS`]."""
    strange = [line for line in lines if not any(re.fullmatch(kind, line) for kind in (*OURS, TABLE))]
    assert not strange, strange
    assert len(lines) <= most and sum(bool(re.fullmatch(TABLE, line)) for line in lines) <= table, lines
    assert len(set(lines)) == len(lines), "a line came twice"
    for kind, times in OURS.items():
        assert sum(bool(re.fullmatch(kind, line)) for line in lines) <= times, kind


def launch(command: list[str], **added: str) -> subprocess.CompletedProcess[str]:
    ours = ("OMP_NUM_THREADS", "WANDB_MODE")  # which a user's shell does not have, but torchrun's in the Makefile
    plain = {k: v for k, v in environment().items() if k not in ours or ("torchrun" in command[0] and k == ours[0])}
    run = subprocess.run(command, cwd=ROOT, env=plain | added, capture_output=True, timeout=300, check=False)
    said = [stream.decode().replace("\r\n", "\n") for stream in (run.stdout, run.stderr)]  # with what is written over
    return subprocess.CompletedProcess(command, run.returncode, *said)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A few clips of each split, drawn and spoken."""
    folder = tmp_path_factory.mktemp("demo") / "data"
    kinds = {"sft": {"agreement": 8, "intent": 4, "face": 6, "voice": 6}, "rl": {"agreement": 8, "intent": 4}}
    kinds |= {"test": {"agreement": 16, "intent": 8}}
    rows = [word for split, of in kinds.items() for kind, n in of.items() for word in (f"--{split}_{kind}", str(n))]
    rows += [word for split in ("rl", "test") for sense in ("face", "voice") for word in (f"--{split}_{sense}", "6")]
    command = [sys.executable, "recipes/make_demo_data.py", "--config", str(DEMO / "data.yaml")]
    read(screen(launch([*command, "--output_dir", str(folder), "--splits", "sft,rl,test", *rows])), most=4)
    return folder


def commands_of(*targets: str) -> list[list[str]]:
    """What `make` would run of ours for these targets, without the set-up."""
    made = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = [shlex.split(line) for line in made.splitlines() if "recipes/" in line and "$" not in line]
    return [[str(Path(sys.executable).parent / Path(line[0]).name), *line[1:]] for line in lines]


def test_the_console_of_make_smoke():
    """Mutant: transformers' bar stays beside ours, or a stage's figures are printed step by step."""
    lines = screen(launch([sys.executable, "recipes/smoke.py"]))
    assert lines[-1].startswith("the loop turns") or lines[-1].startswith("RL 2/2")
    read(lines, most=18)


def test_the_console_of_make_demo(data, tmp_path):
    """Mutants: `num_cpu_threads_per_process` out of `cpu.yaml`; the whole table after an evaluation."""
    base, runs = ROOT / "recipes" / "checkpoints" / "demo_base", tmp_path / "runs"
    step = ["--max_steps", "2", "--save_strategy", "no", "--logging_steps", "1"]
    own = {
        "sft": ["--model_name_or_path", str(base), "--validation_file", str(data / "sft.jsonl"), "--eval_steps", "2"],
        "rl": ["--model_name_or_path", str(runs / "sft"), "--per_device_train_batch_size", "8"],
    }
    own["sft"] += ["--load_best_model_at_end", "false", "--per_device_train_batch_size", "4"]
    own["rl"] += ["--num_generations", "4", "--max_completion_length", "24"]
    for stage, changes in own.items():
        (command,) = commands_of(stage)
        files = ["--output_dir", str(runs / stage), "--train_file", str(data / f"{stage}.jsonl")]
        lines = screen(launch([*command, *files, *step, *changes]))
        read(lines, most=7)
        assert any(re.match(r"(SFT|RL) 2/2.*s/step, 00:00 left", line) for line in lines)
    (command,) = commands_of("eval")
    models = [f"base={base}", *(f"{stage}={runs / stage}" for stage in own)]
    files = ["--output_dir", str(runs / "eval"), "--test_file", str(data / "test.jsonl"), "--max_new_tokens", "24"]
    lines = screen(launch([*command, *files, "--models", *models]))
    read(lines, most=22, table=20)
    assert json.loads((runs / "metrics.json").read_text())["stages"].keys() == {"base", *own}
    assert len((runs / "metrics.txt").read_text().splitlines()) > 20, "the rest is there"
    read(screen(launch([sys.executable, "recipes/report.py", "--run", str(runs)])), most=2)


def test_log_level_info_brings_the_rest_back(data, tmp_path):
    """Mutant: what is hidden stays hidden."""
    (command,) = commands_of("sft")
    base = ROOT / "recipes" / "checkpoints" / "demo_base"
    files = ["--output_dir", str(tmp_path / "sft"), "--train_file", str(data / "sft.jsonl")]
    files += ["--model_name_or_path", str(base), "--eval_strategy", "no", "--load_best_model_at_end", "false"]
    files += ["--validation_file", str(data / "sft.jsonl")]
    run = launch([*command, *files, "--max_steps", "1", "--save_strategy", "no", "--log_level", "info"])
    lines = screen(run)
    assert any("Running training" in line for line in lines) and any("train_runtime" in line for line in lines)


LAUNCHERS = {
    "script": [sys.executable],
    "accelerate": [str(Path(sys.executable).with_name("accelerate")), "launch"],
    "torchrun": [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc_per_node=2"],
}
MISTAKES = {
    "data": (["--train_file", "no/such.jsonl"], "no/such.jsonl"),
    "setting": (["--num_generatoins", "4"], "num_generatoins"),
    "value": (["--num_generations", "four"], "num_generations"),
    "reward": (["--reward_funcs", "no.such.reward"], "no.such.reward"),
    "config": (["--config", "no/such.yaml"], "no/such.yaml"),
}


@pytest.mark.parametrize(
    ("launcher", "mistake"),
    [*(("script", mistake) for mistake in MISTAKES), ("torchrun", "data")],
)
def test_a_mistake_is_its_message_alone(launcher, mistake, tmp_path):
    """Mutants: an entry script calls `main` itself; the launcher is left to tell that its process failed."""
    changes, named = MISTAKES[mistake]
    config = [] if mistake == "config" else ["--config", str(DEMO / "rl.yaml")]
    model = ["--model_name_or_path", str(ROOT / "recipes" / "checkpoints" / "demo_base")]
    words = [*config, "--output_dir", str(tmp_path / "rl"), *model, *changes]
    if (launcher, mistake) in (("script", "setting"), ("script", "value"), ("script", "reward")):
        run = forked_scripts.run(["recipes/grpo_omni.py", *words], env=environment(), cwd=ROOT)
    else:
        run = launch([*LAUNCHERS[launcher], "recipes/grpo_omni.py", *words])
    said = run.stdout + run.stderr
    assert run.returncode != 0 and named in said, said
    assert "Traceback" not in said and len(said.strip().splitlines()) <= 3, said
    assert not list(tmp_path.glob("rl/checkpoint-*"))


def test_a_mistake_under_accelerate_is_its_message_alone_also_where_python_is_slow_to_end(tmp_path):
    """
    The worker has ended its launcher and meets that it is gone while it cleans up. Mutant: no `ends_by_itself`, so the
    watch ends it in the middle of that, with a traceback.
    """
    (tmp_path / "sitecustomize.py").write_text("import atexit, time\natexit.register(time.sleep, 3)\n")
    config = ["--config_file", "accelerate_configs/cpu.yaml"]
    words = ["--config", str(DEMO / "rl.yaml"), "--output_dir", str(tmp_path / "rl"), "--train_file", "no/such.jsonl"]
    command = [*LAUNCHERS["accelerate"], *config, "recipes/grpo_omni.py", *words]
    run = launch(command, PYTHONPATH=str(tmp_path))
    assert (
        run.stdout + run.stderr
        == f"no data file at {ROOT / 'no/such.jsonl'}; check `train_file`, `validation_file` or `test_file`\n"
    )


def test_debug_shows_the_traceback(tmp_path):
    words = ["--config", str(DEMO / "rl.yaml"), "--output_dir", str(tmp_path / "rl"), "--train_file", "no/such.jsonl"]
    run = forked_scripts.run(["recipes/grpo_omni.py", *words, "--debug"], env=environment(), cwd=ROOT)
    assert run.returncode == 1 and "Traceback" in run.stderr and "no/such.jsonl" in run.stderr


@pytest.mark.parametrize(
    "script",
    ["sft_omni", "eval_omni", "sample_omni", "select_rows", "ask_omni", "compare_runs", "report", "make_demo_data"],
)
def test_every_script_answers_a_mistake_in_a_line(script, tmp_path):
    words = {
        "sft_omni": ["--config", str(DEMO / "sft.yaml"), "--train_file", "no/such.jsonl"],
        "eval_omni": ["--config", str(DEMO / "eval.yaml"), "--test_file", "no/such.jsonl"],
        "sample_omni": ["--config", str(DEMO / "sample.yaml"), "--train_file", "no/such.jsonl"],
        "select_rows": ["no/such", str(tmp_path / "out.jsonl"), "--select", "band"],
        "ask_omni": ["--model", "no/such", "--question", "What?"],
        "compare_runs": ["no/such", "no/other"],
        "report": ["--run", "no/such"],
        "make_demo_data": ["--config", "no/such.yaml"],
    }[script]
    base = f"{ROOT}/recipes/checkpoints/demo_base"
    words += {
        "sft_omni": ["--model_name_or_path", base],
        "sample_omni": ["--model_name_or_path", base],
        "eval_omni": ["--models", *(f"{name}={base}" for name in ("base", "sft", "rl"))],
    }.get(script, [])
    words += ["--output_dir", str(tmp_path / "out")] if script in ("sft_omni", "eval_omni", "sample_omni") else []
    run = forked_scripts.run([f"recipes/{script}.py", *words], env=environment(), cwd=ROOT)
    assert run.returncode in (1, 2) and "Traceback" not in run.stderr, run.stderr
    assert "no/such" in run.stderr or "no such" in run.stderr.lower(), run.stderr


@pytest.mark.parametrize(
    ("folder", "config", "then"),
    [
        ("runs/demo/sft", "sft", "grpo_omni.py --config {}/rl.yaml"),
        ("runs/demo/rl", "rl", "eval_omni.py --config {}/eval.yaml"),
    ],
)
def test_what_comes_next_is_the_plain_run_before_its_variants(folder, config, then):
    """Mutant: the last by name, which is `rl_vllm.yaml`."""
    assert next_command(folder, DEMO / f"{config}.yaml", config.upper()) == f"python recipes/{then.format(DEMO)}"
