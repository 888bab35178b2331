# SPDX-License-Identifier: Apache-2.0
"""The demo's judge over HTTP: right by the rules of the clips, wrong as often as it is told, and asked like any judge."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from omni_demo.config import DemoDataConfig
from omni_demo.evidence import Evidence
from omni_demo.generate import generate
from omni_demo.grading import claims_of, grade_context, grade_reasoning, is_consistent
from omni_demo.judge_server import MODEL, serving
from omni_demo.questions import plan
from omni_demo.targets import FACES, QUESTIONS, VOICES, context_of, solution_of, target_of, think_of
from omni_grpo.data.rows.loading import load_examples
from omni_grpo.data.rows.prompts import build_messages
from omni_grpo.data.rows.schema import Example
from omni_grpo.evaluation.statistics import wilson_interval
from omni_rewards import ContextReward, Judge, Question, ReasoningReward
from omni_rewards.judge.media import media_of
from script_runs import ROOT, environment

KINDS = ("face", "voice", "agreement", "intent")


def scenes():
    """Every question that has an answer, with a context, a thought and the answer in words drawn anew."""
    rng = random.Random(0)
    for kind in KINDS:
        for face in FACES:
            for voice in VOICES:
                try:
                    solution = solution_of(kind, face, voice)
                except ValueError:
                    continue
                context = context_of(face, voice, rng)
                yield kind, face, voice, context, think_of(kind, face, voice, solution, rng), solution


def judge_at(server, **settings) -> Judge:
    return Judge(endpoint=server.endpoint, model=MODEL, retries=0, **settings)


def test_the_drawn_rows_earn_full_marks_and_a_wrong_sense_costs_its_half():
    """Mutant: a judge that reads the words alone, not whose they are, gives a swapped context full marks."""
    rng = random.Random(1)
    with serving() as server:
        reward, completions, references, expected = ContextReward(judge_at(server)), [], [], []
        for _, face, voice, context, think, solution in scenes():
            other = rng.choice([v for v in VOICES if v != voice])
            said = [(context_of(face, voice, rng), 1.0), (context_of(face, other, rng), 0.5)]
            said += [(context_of(face, None, rng), 0.5), ("Nothing is known.", 0.0)]
            if face in VOICES and voice in FACES and face != voice:
                said.append((context_of(voice, face, rng), 0.0))
            for written, score in said:
                completions.append(target_of(written, think, solution))
                references.append(context)
                expected.append(score)
        assert reward(completions, references) == expected


def test_reasoning_is_graded_by_the_context_that_was_written_and_by_the_rule():
    """A right answer from a wrong context fails; a wrong context with what follows from it does not."""
    rng = random.Random(2)
    for kind, face, voice, context, think, solution in scenes():
        assert grade_reasoning(QUESTIONS[kind], context, think, solution) == 5
        for other_face, other_voice in ((f, v) for f in FACES for v in VOICES if (f, v) != (face, voice)):
            other = context_of(other_face, other_voice, rng)
            used = claims_of(think)
            holds = used.get("face", {other_face}) == {other_face} and used.get("voice", {other_voice}) == {
                other_voice
            }
            grade = grade_reasoning(QUESTIONS[kind], other, think, solution)
            assert (grade == 5) == holds, (other, think)
        wrong = {"face": FACES, "voice": VOICES, "agreement": ("yes", "no")}.get(
            kind, ("praise", "taunt", "joke", "complain")
        )
        for answer in set(wrong) - {solution}:
            assert grade_reasoning(QUESTIONS[kind], context, think, answer) == 1


def test_a_reasoning_that_states_another_answer_than_the_one_given_does_not_lead_to_it():
    """Even where its evidence would. Mutant: only the evidence is read."""
    flipped = {"They agree": "They do not agree", "They do not agree": "They agree"}
    for kind, face, _voice, context, think, solution in scenes():
        if kind == "agreement":
            said = next(words for words in flipped if words in think)
            other = think.replace(said, flipped[said])
        elif kind == "intent":
            assert solution in think
            other = think.replace(solution, "taunt" if solution != "taunt" else "joke")
        else:
            continue
        assert is_consistent(kind, think, solution) and not is_consistent(kind, other, solution)
        assert grade_reasoning(QUESTIONS[kind], context, other, solution) == 1
        assert not is_consistent(kind, f"The face is {face}.", solution), "what the voice says is left open"


def test_the_demos_own_targets_earn_the_best_through_the_client():
    config = DemoDataConfig(splits=("sft",), sft_agreement=8, sft_intent=28, sft_face=6, sft_voice=6)
    rows, _ = plan(config, "sft")
    with serving() as server:
        columns = {name: [row[name] for row in rows] for name in ("problem_type", "problem")}
        targets = [row["target"] for row in rows]
        assert set(ContextReward(judge_at(server))(targets, [row["context"] for row in rows])) == {1.0}
        assert set(ReasoningReward(judge_at(server))(targets, **columns)) == {1.0}


def test_every_rl_row_has_a_context_that_says_what_its_media_show():
    """In varied words; mutant: the sound of a video that is watched without it."""
    config = DemoDataConfig(splits=("rl",), rl_agreement=240, rl_intent=240, rl_face=24, rl_voice=24)
    rows, _ = plan(config, "rl")
    for row in rows:
        meta = row["meta"]
        heard = {"voice": {meta["voice"]}} if meta["voice"] and meta["mix"] != "video" else {}
        seen = {"face": {meta["face"]}} if meta["face"] else {}
        assert claims_of(row["context"]) == seen | heard, row
        assert grade_context(row["context"], row["context"], ("face", "voice")) == 5
    assert len({row["context"] for row in rows}) > 60


def test_a_noisy_judge_errs_as_often_as_stated_and_always_the_same_way():
    """Mutant: an error drawn anew at each asking, which the cache would freeze and a replay would not repeat."""
    texts = [
        (f"The face looks {f}. The voice sounds {v}. {n}", f, v) for f in FACES for v in VOICES for n in range(12)
    ]
    questions = [Question("what can be SEEN", (("REFERENCE", t), ("CANDIDATE", t))) for t, _, _ in texts]
    scores = {}
    for rate in (0.0, 0.15, 1.0):
        with serving(error_rate=rate, seed=1) as server:
            scores[rate] = judge_at(server).ask(questions).scores
            assert judge_at(server).ask(questions[::-1]).scores == scores[rate][::-1]
    errors = sum(score != 1.0 for score in scores[0.15])
    low, high = wilson_interval(errors, len(questions))
    assert set(scores[0.0]) == {1.0} and low < 0.15 < high and 1.0 not in scores[1.0]
    assert set(scores[1.0]) == {0.0, 0.2, 0.4, 0.6, 0.8}


def test_what_it_cannot_grade_is_refused_and_so_unavailable_to_the_client():
    with serving() as server:
        assert judge_at(server).ask([Question("Is it polite?", (("REPLY", "Thanks."),))]).scores == [None]
        request = urllib.request.Request(f"{server.endpoint}/models")
        assert json.load(urllib.request.urlopen(request))["data"][0]["id"] == MODEL


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> list[Example]:
    """Rows of every mix of media, with the clips that they are about."""
    counts = {"rl_agreement": 32, "rl_intent": 32, "rl_face": 6, "rl_voice": 6}
    config = DemoDataConfig(splits=("rl",), output_dir=str(tmp_path_factory.mktemp("drawn")), num_workers=1, **counts)
    generate(config)
    rows = load_examples(f"{config.output_dir}/rl.jsonl")
    found: dict[tuple, Example] = {}
    for row in rows:
        found.setdefault((row.meta["mix"], row.meta["face"], row.meta["voice"]), row)
    return list(found.values())


def asked_about(row: Example, media_of: Example, judge: Judge, reference: bool = True) -> list:
    columns = {"prompts": [build_messages(media_of, "short")], "id": [row.id]}
    target = target_of(row.context, "So.", "yes")
    return ContextReward(judge)([target], [row.context if reference else None], **columns)


def test_media_are_known_by_their_hashes_and_those_of_a_neighbour_refused(drawn, caplog):
    """The mutant is the client: it sends each row's questions with the media of the row beside it."""
    seen = [row for row in drawn if row.media]
    client = Judge("http://localhost/v1", MODEL, send_media=True)
    with serving(evidence=Evidence(drawn, client)) as server:
        judge = judge_at(server, send_media=True)
        for row in seen:
            assert asked_about(row, row, judge) == [1.0]
            assert asked_about(row, row, judge, reference=False) == [1.0]  # by the row that the media are of
        for row, neighbour in zip(seen, [*seen[1:], seen[0]], strict=True):
            assert row.context != neighbour.context
            assert asked_about(row, neighbour, judge) == [None]
            reasoning = ReasoningReward(judge)
            own = {"problem_type": [row.problem_type], "problem": [row.problem]}
            columns = {"prompts": [build_messages(neighbour, "short")], "id": [row.id], **own}
            graded = reasoning([target_of(row.context, "So.", row.solution)], **columns)
            assert (graded == [None]) == (row.problem != neighbour.problem)
        assert "HTTP 400" in caplog.text
    with serving() as server:
        assert asked_about(seen[0], seen[0], judge_at(server, send_media=True)) == [None]  # it was given no rows


def test_a_refusal_names_the_rows_that_the_media_are_of(drawn):
    clips = [row for row in drawn if row.meta["mix"] == "video+audio"][:2]
    client = Judge("http://localhost/v1", MODEL, send_media=True)
    evidence = Evidence(drawn, client)
    one, other = (client.request(question_about(row), sent=True)["messages"][1]["content"][:-1] for row in clips)
    assert evidence.row_of(one, {}).id == clips[0].id
    mixed = [part for part in one if part["type"] != "input_audio"] + other[-1:]
    for parts, texts, message in (
        (mixed, {}, f"not those of one row: they are of '{clips[0].id}', '{clips[1].id}'"),
        (one[:-1], {}, f"not those of one row: they are of '{clips[0].id}'"),
        ([{**one[1], "image_url": {"url": "data:,"}}], {}, "they are of no row"),
        (other, {"REFERENCE": clips[0].context}, f"the media are of row '{clips[1].id}', the texts of another one"),
        (other, {"QUESTION": "What is it?"}, f"the media are of row '{clips[1].id}', the texts of another one"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            evidence.row_of(parts, texts)


def question_about(row: Example) -> Question:
    columns = {"prompts": [build_messages(row, "short")], "id": [row.id]}
    return Question("Grade it.", (), media_of(Judge("http://localhost/v1", MODEL, send_media=True), 0, columns))


def test_a_sense_that_is_not_there_is_invented(drawn):
    """As without a judge. Mutant: what is said of a voice ignored because the reference has none."""
    silent = next(row for row in drawn if row.meta["mix"] == "video")
    for row in (silent, next(row for row in drawn if row.meta["mix"] == "audio")):
        with serving() as server:
            columns = {"prompts": [build_messages(row, "short")] * 2, "id": [row.id] * 2}
            told = {"face": "happy", "voice": "warm"} | {
                k: v for k, v in row.meta.items() if k in ("face", "voice") and v
            }
            both = context_of(told["face"], told["voice"], random.Random(0))
            texts = [target_of(text, "So.", "yes") for text in (row.context, both)]
            judged = ContextReward(judge_at(server))(texts, [row.context] * 2, **columns)
        assert judged == [1.0, 0.6] and ContextReward()(texts, [row.context] * 2) == [1.0, 0.5]


COMMAND = [sys.executable, str(ROOT / "recipes" / "demo_judge.py")]


def test_the_script_serves_while_a_command_runs_and_gives_its_exit_code():
    ask = "import os, urllib.request as u; print(u.urlopen(os.environ['JUDGE_ENDPOINT'] + '/models').status); raise SystemExit(7)"
    run = subprocess.run([*COMMAND, sys.executable, "-c", ask], capture_output=True, text=True, env=environment())
    assert run.returncode == 7 and "200" in run.stdout, run.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_the_command_which_ends_in_its_own_time(tmp_path, number):
    """A run that is told to stop saves a checkpoint first, for which its judge has to be there."""
    told = tmp_path / "told"
    waits = (
        "import pathlib, signal, time, sys\n"
        f"def end(n, _): pathlib.Path({str(told)!r}).write_text(str(n)); time.sleep(0.5); sys.exit(75)\n"
        f"signal.signal({int(number)}, end)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    run = subprocess.Popen(
        [*COMMAND, sys.executable, "-c", waits], stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert run.stdout is not None
    while "ready" not in run.stdout.readline():
        pass
    time.sleep(0.2)
    os.kill(run.pid, number)
    assert run.wait(30) == 75 and told.read_text() == str(int(number))
