# SPDX-License-Identifier: Apache-2.0
"""What is drawn of a row depends on the seed and on the rows' ids: not on their order, on a cut, or on the processes."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import forked_scripts
import sample_omni
from judge_server import JudgeServer, honest, http
from omni_grpo.config import DataArguments
from omni_grpo.data.media.settings import MediaSettings
from omni_grpo.evaluation.evaluate import Share
from omni_grpo.rollout.answers import Completion
from omni_grpo.run.command_line import parse
from omni_grpo.run.stages import Stage
from omni_grpo.sampling.arguments import SampleArguments
from omni_grpo.sampling.sampling import sample, score
from sampled_runs import config, rates, read, write_samples
from script_runs import ROOT, environment

LETTERS = {"reward_funcs": ["killed_run.letters_reward"]}  # an untrained model's completions differ in it


@pytest.fixture(scope="module")
def drawn(tiny, mixed_file, tmp_path_factory):
    """A sampling by the real model, uncut, on one process, with the folder that others go beside."""
    folder = tmp_path_factory.mktemp("samplings")
    write_samples(folder / "whole", mixed_file, tiny, **LETTERS)
    return SimpleNamespace(folder=folder, file=(folder / "whole" / "samples.jsonl").read_bytes())


def again(drawn, name: str, data: Path, model: str, **fields: Any) -> bytes:
    write_samples(drawn.folder / name, data, model, **LETTERS, **fields)
    return (drawn.folder / name / "samples.jsonl").read_bytes()


def test_the_same_seed_draws_the_same_and_another_seed_other_completions(drawn, tiny, mixed_file):
    """Mutants: the seed left out of a batch's random numbers; random numbers that go on where the batch before ended."""
    torch.manual_seed(5)  # whatever was drawn before
    assert again(drawn, "again", mixed_file, tiny) == drawn.file
    again(drawn, "other", mixed_file, tiny, seed=1)
    one, other = rates(drawn.folder / "whole"), rates(drawn.folder / "other")
    assert one.keys() == other.keys() and all(one[row] != other[row] for row in one)
    texts = [c["text"] for row in read(drawn.folder / "whole") for c in row["completions"]]
    assert len(set(texts)) == len(texts), "two draws of a row, or two batches, got the same random numbers"


@pytest.mark.parametrize("seed", range(2))
def test_permuted_rows_have_the_same_completions_by_id(drawn, tiny, mixed_file, seed):
    """Mutant: rows taken in the order of the file, so that others share their batch."""
    lines = mixed_file.read_text().splitlines(keepends=True)
    random.Random(seed).shuffle(lines)
    permuted = mixed_file.with_name(f"permuted{seed}.jsonl")
    permuted.write_text("".join(lines))
    assert again(drawn, f"permuted{seed}", permuted, tiny) == drawn.file


def test_shares_of_several_processes_are_the_rows_of_one(drawn, tiny, mixed_file):
    """One after another, the first last. Mutant: a batch's random numbers begun from its place in the share."""
    argv = config(drawn.folder / "shares", mixed_file, tiny, **LETTERS)
    data, media, args = parse((DataArguments, MediaSettings, SampleArguments), argv)
    (drawn.folder / "shares").mkdir()
    for index in (2, 1, 0):
        rows = sample(data, media, args, Share(index, 3), "cpu")
        assert bool(rows) == (index == 0)
    assert (drawn.folder / "shares" / "samples.jsonl").read_bytes() == drawn.file


def run(*words: str) -> subprocess.CompletedProcess[str]:
    if words[0] == LAUNCHER[0]:
        return subprocess.run([sys.executable, *words], cwd=ROOT, env=environment(), capture_output=True, text=True)
    return forked_scripts.run(words, env=environment(), cwd=ROOT)


LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def test_killed_in_a_line_it_goes_on_to_the_same_file(drawn, tiny, mixed_file):
    """
    Mutants: a batch of which rows are there drawn without them (other random numbers for the rest), `samples*.jsonl` left
    out of what a stage goes on from.
    """
    argv, file = config(drawn.folder / "cut", mixed_file, tiny, **LETTERS), drawn.folder / "cut" / "samples.jsonl"
    died = run("tests/killed_evaluation.py", "sample_omni", *argv)
    assert died.returncode == -signal.SIGKILL, died.stderr
    torn = file.read_bytes()
    assert torn.count(b"\n") == 4 and not torn.endswith(b"\n")
    with pytest.raises(ValueError, match="the run that was cut there had other values: temperature"):
        sample_omni.main([*argv, "--temperature", "0.5"])
    sample_omni.main(argv)
    assert file.read_bytes() == drawn.file
    stage = json.loads((file.parent / "stage.json").read_text())
    assert stage["done"] and Stage.of(argv).is_done()


@pytest.mark.distributed
def test_two_processes_give_the_file_of_one_and_one_goes_on_where_two_were_cut(drawn, tiny, mixed_file):
    """
    Mutants: every process draws every batch; no process waits before the files are put together; `Stage.kept_rows` of a
    sampling, which adds a field of training to the command.
    """
    argv = config(drawn.folder / "two", mixed_file, tiny, **LETTERS)
    done = run(*LAUNCHER, "recipes/sample_omni.py", *argv)
    assert done.returncode == 0, done.stderr
    assert (drawn.folder / "two" / "samples.jsonl").read_bytes() == drawn.file
    argv = config(drawn.folder / "moved", mixed_file, tiny, **LETTERS)
    assert run(*LAUNCHER, "tests/killed_evaluation.py", "sample_omni", *argv).returncode == 1
    assert json.loads((drawn.folder / "moved" / "stage.json").read_text())["processes"] == 2
    sample_omni.main(argv)
    assert (drawn.folder / "moved" / "samples.jsonl").read_bytes() == drawn.file


@pytest.mark.parametrize("fields", [{"models": ["m=x"]}, {"num_completions": 4}], ids=["evaluation", "sampling"])
def test_what_has_no_steps_keeps_no_rows_a_step_when_it_moves(fields, tmp_path):
    """
    Cut on two processes, it goes on on one with the fields it had; training gains those that keep a step's rows.

    Mutant: `Stage.kept_rows` for whatever has work to go on from.
    """
    work = {"models": "m/predictions.jsonl", "num_completions": "samples.part0.jsonl"}
    for kind, files in ((fields, [work[name] for name in fields]), ({}, ["checkpoint-2/COMPLETE"])):
        folder = tmp_path / str(len(kind))
        begun = Stage(folder, "x", fields=kind, processes=2)
        begun.begin()
        for name in files:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()
        moved = Stage(folder, "x", fields=kind, record=begun.record, processes=1)
        assert bool(moved.kept_rows()) == (not kind)
        if kind:
            moved.check()
            assert not moved.changes()


def test_rewards_are_called_as_trl_calls_them():
    """Asynchronous ones are awaited. Mutants: `prompt` for `prompts`, the rows' columns left out, ids of another completion."""
    seen: dict[str, Any] = {}

    def looking(prompts, completions, completion_ids, solution, trainer_state, log_extra, log_metric, **kwargs):
        log_extra("column", list(solution))
        log_metric("name", 1.0)
        seen.update(prompts=prompts, ids=completion_ids, step=trainer_state.global_step, **kwargs)
        return [1 if c[-1]["content"] == s else None for c, s in zip(completions, solution, strict=True)]

    async def waiting(completions, **kwargs):
        return [float(len(c[-1]["content"])) for c in completions]

    columns = {"id": ["a", "a"], "prompt": [[{"role": "user"}]] * 2, "solution": ["yes", "no"], "pair": [None] * 2}
    said = [Completion("yes", 1, 0.0, False, [7]), Completion("maybe", 1, 0.0, False, [8])]
    earned = list(score([looking, waiting], columns, said))
    assert earned == [{"looking": 1.0, "waiting": 3.0}, {"looking": None, "waiting": 5.0}]
    assert seen["prompts"] == columns["prompt"] and seen["ids"] == [[7], [8]] and seen["step"] == 0
    assert "prompt" not in seen and seen["pair"] == [None, None] and seen["id"] == ["a", "a"]


@pytest.mark.parametrize("given", [[1.0], [math.nan, 1.0], [1.0, math.inf], [1.0] * 3], ids=str)
def test_a_reward_that_is_no_score_is_refused_with_its_name(given):
    """It would be taken for a wrong answer, or move to the next row. Mutant: `zip` without `strict`, and no check."""

    def broken(completions, **kwargs):
        return given

    said = [Completion("a", 1, 0.0, False)] * 2
    with pytest.raises(ValueError, match="broken: gave no finite score for each of the completions of row 'r'"):
        list(score([broken], {"id": ["r"] * 2, "prompt": [[]] * 2}, said))


def test_a_judge_that_is_down_leaves_none_and_one_that_answers_a_score(tiny, mixed_file, tmp_path):
    """From a real server over HTTP. Mutant: `None` written as 0."""
    rows = [{**json.loads(line), "context": "He frowns."} for line in mixed_file.read_text().splitlines()]
    data = mixed_file.with_name("with_context.jsonl")
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    async def half(request):
        said = next(text for text in request.texts.values() if text.startswith("A face with"))
        return await honest(request) if said.endswith("no dot") else http("down", 500)

    def says(name, draw):
        end = f"{draw} and {'no dot' if draw % 2 else 'a dot.'}"
        return f"<context>A face with {end}</context><think>So.</think><answer>yes</answer>", 9, False

    with JudgeServer(half) as server:
        judge = {"endpoint": server.endpoint, "model": "m", "retries": 0}
        reward = "omni_rewards.context_reward"
        fields = {"reward_funcs": [reward], "reward_settings": {reward: {"judge": judge}}}
        found = write_samples(tmp_path / "judged", data, tiny, says, **fields)
    assert server.requests
    for row in found:
        scores = [c["rewards"]["context_reward"] for c in row["completions"]]
        assert [score is None for score in scores] == [True, False, True, False]


def test_mistakes_are_met_before_a_finished_sampling_is_set_aside(drawn, tiny, mixed_file):
    """Mutant: the folder claimed before the fields are read."""
    argv = config(drawn.folder / "whole", mixed_file, tiny, **LETTERS)
    mistakes = {
        "num_completions: must be at least 1, got 0": ["--num_completions", "0"],
        "temperature must be above 0": ["--temperature", "0"],
        "num_completion: no such config key": ["--num_completion", "4"],
        "model_name_or_path: required": ["--model_name_or_path", ""],
        "cannot import 'killed_run.letter_reward'": ["--reward_funcs", "killed_run.letter_reward"],
    }
    for message, words in mistakes.items():
        with pytest.raises(ValueError, match=message):
            sample_omni.main([*argv, *words])
    assert (drawn.folder / "whole" / "samples.jsonl").read_bytes() == drawn.file
    assert not [name for name in os.listdir(drawn.folder) if name.startswith("whole.2")]
