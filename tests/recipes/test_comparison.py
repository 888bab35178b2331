# SPDX-License-Identifier: Apache-2.0
"""Two runs compared: groups, baselines, seeds pooled, and the command that people type."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import compare_runs as command
from omni_grpo.data.rows.kinds import kind_of
from omni_grpo.data.rows.schema import Example
from omni_grpo.evaluation.baselines import chance_level, majority_score
from omni_grpo.evaluation.comparison import compare_runs, comparison_table, read_predictions
from omni_grpo.evaluation.prediction_rows import prediction_row
from omni_grpo.evaluation.scoring import groups_of, members, summarise
from omni_grpo.evaluation.statistics import mcnemar, paired_bootstrap
from omni_grpo.rollout.answers import Completion
from omni_rewards import CONTEXT_THINK_ANSWER, AnswerReward


def row(index: int, score: float, problem_type: str = "yes_no", solution: str = "yes", **fields) -> dict:
    """A prediction as an evaluation writes it: the gold answer where the score is 1, else none at all."""
    meta = {"kind": ("agreement", "intent")[index % 2]}
    example = Example(f"row{index:03}", "What is it?", problem_type, solution, **{"meta": meta, **fields})
    text = f"<context>a</context><think>b</think><answer>{solution}</answer>" if score else "<context>a</context>"
    completion = Completion(text, 3, 0.1, False)
    made = prediction_row(example, completion, CONTEXT_THINK_ANSWER, "full", False, AnswerReward())
    assert made["answer_score"] == score
    return made


def run(seed: int, p: float, n: int = 120) -> list[dict]:
    return [row(i, float(s)) for i, s in enumerate(np.random.default_rng(seed).random(n) < p)]


def test_one_seed_is_the_paired_bootstrap_and_mcnemar():
    a, b = run(0, 0.7), run(1, 0.5)
    everything = compare_runs([a], [b])[-1]
    scores = [[r["answer_score"] for r in side] for side in (a, b)]
    paired = paired_bootstrap(*scores)
    assert (everything["group"], everything["n"], everything["seeds"]) == ("all", 120, 1)
    assert (everything["difference"], tuple(everything["ci95"])) == (paired.difference, paired.ci95)
    assert everything["p_mcnemar"] == mcnemar(*scores)
    assert everything["difference"] == pytest.approx(everything["accuracy_a"] - everything["accuracy_b"])


def test_groups_add_up_to_all():
    compared = compare_runs([run(0, 0.7)], [run(1, 0.5)])
    assert [c["group"] for c in compared] == ["agreement", "intent", "all"]
    assert compared[0]["n"] + compared[1]["n"] == compared[2]["n"]
    mean = sum(c["n"] * c["difference"] for c in compared[:2]) / 120
    assert mean == pytest.approx(compared[2]["difference"])


def test_copies_of_a_seed_do_not_narrow_the_interval_and_have_no_mcnemar():
    """Mutant: rows of all seeds in one heap."""
    a, b = run(0, 0.7), run(1, 0.5)
    one, five = compare_runs([a], [b])[-1], compare_runs([a] * 5, [b] * 5)[-1]
    assert five["p_mcnemar"] is None and five["seeds"] == 5
    assert np.ptp(five["ci95"]) == pytest.approx(np.ptp(one["ci95"]), rel=0.1)
    assert "–" in comparison_table([five]) and "–" not in comparison_table([one])


def test_runs_over_other_questions_are_refused():
    a = run(0, 0.7)
    with pytest.raises(ValueError, match="different questions"):
        compare_runs([a], [a[1:]])
    with pytest.raises(ValueError, match="as many seeds each, got 2 and 1"):
        compare_runs([a, a], [a])


def test_the_command_reads_folders_in_any_order_and_names_what_is_missing(tmp_path, capsys):
    for name, rows in (("rl", run(0, 0.8)), ("sft", run(1, 0.4)[::-1])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "predictions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    command.main([str(tmp_path / "rl"), str(tmp_path / "sft"), "--output", str(tmp_path / "out.json")])
    written = json.loads((tmp_path / "out.json").read_text())
    rows = [read_predictions(tmp_path / name) for name in ("rl", "sft")]
    assert written == json.loads(json.dumps(compare_runs(rows[:1], rows[1:], ("rl", "sft"))))
    assert written[-1]["ci95"][0] > 0 and "rl %" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="name the folder of one evaluated model"):
        command.main([str(tmp_path / "rl"), str(tmp_path / "control")])


def test_an_evaluation_that_was_cut_is_not_compared(tmp_path):
    lines = [json.dumps(r) for r in run(0, 0.5, n=3)]
    (tmp_path / "predictions.jsonl").write_text("\n".join(lines)[:-5])
    with pytest.raises(ValueError, match="go on to its end"):
        read_predictions(tmp_path)
    (tmp_path / "predictions.jsonl").write_text("\n".join([*lines, lines[0]]))
    with pytest.raises(ValueError, match="twice"):
        read_predictions(tmp_path)


answers = AnswerReward(chance_corrected=False)


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_yes_and_no_baselines(golds):
    """Chance does not depend on how answers are distributed; the commonest answer's score is their distribution."""
    rows = [row(0, 0.0, solution="yes" if gold else "no") for gold in golds]
    assert chance_level(rows, kind_of, answers) == 0.5
    share = sum(golds) / len(golds)
    assert majority_score(rows, kind_of, answers) == pytest.approx(max(share, 1 - share))


def test_baselines_of_options_and_labels():
    options = ("A. one", "B. two", "C. three", "D. four")
    choice = [row(0, 0.0, problem_type="multiple choice", options=options, solution=s) for s in "AABD"]
    assert chance_level(choice, kind_of, answers) == 0.25
    assert majority_score(choice, kind_of, answers) == 0.5
    labels = [row(0, 0.0, problem_type="label", solution=s) for s in ("joke", "joke", "taunt")]
    assert chance_level(labels, kind_of, answers) == 0.5, "two gold answers, no list"
    assert chance_level([row(0, 0.0, problem_type="DFEW", solution="sad")], kind_of, answers) == pytest.approx(1 / 7)


def test_guessing_a_set_is_the_mean_over_all_sets():
    """Two options, A right: {A} 1, {B} 0, {A, B} 2/3; corrected for chance 1, 0, 0."""
    rows = [row(0, 0.0, problem_type="emer_ov_mc", options=("A. joy", "B. fear"), solution="A")]
    assert chance_level(rows, kind_of, answers) == pytest.approx(5 / 9)
    assert chance_level(rows, kind_of, AnswerReward()) == pytest.approx(1 / 3)


def test_open_questions_have_no_baseline():
    rows = [row(0, 1.0, problem_type="free-form", solution="a dog")]
    assert chance_level(rows, kind_of, answers) is majority_score(rows, kind_of, answers) is None
    assert summarise(rows)["groups"]["all"]["chance"] is None


def test_kinds_do_not_share_their_commonest_answer():
    """Mutant: one majority over all rows (0.5 here)."""
    rows = [row(0, 0.0, solution="yes"), row(1, 0.0, solution="no")] * 3
    assert majority_score(rows, kind_of, answers) == 1.0


def test_a_row_is_in_the_group_of_each_of_its_values():
    rows = [row(0, 1.0, meta={"audio": ["Speech", "Music"]}), row(1, 0.0, meta={"audio": ["Speech"]}), row(2, 1.0)]
    assert groups_of(rows[0], ["audio"]) == ["audio: Speech", "audio: Music"]
    assert [len(members(rows, g, ["audio"])) for g in ("audio: Speech", "audio: Music", "all")] == [2, 1, 3]
