# SPDX-License-Identifier: Apache-2.0
"""The completions table says enough to look into a run, and wandb gets it with media that play."""

from __future__ import annotations

import json
import random

import numpy as np
import pandas as pd
import pytest

from offline_wandb import offline_wandb
from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.report.rollouts import read_rollouts
from omni_grpo.run.log_file import log_playable_table
from omni_rewards import answer_reward, section_format_reward
from rollout_runs import completion_row


def letters_reward(completions, **kwargs):
    """Differs between completions."""
    return [float(len(c[-1]["content"]) % 7) for c in completions]


@pytest.fixture(scope="module")
def table(tiny, settings, mixed, tmp_path_factory):
    """Two generation batches of a small run with credit by section, wandb offline: the run's folder and last table."""
    folder = tmp_path_factory.mktemp("run")
    with offline_wandb(folder):
        args = OmniGRPOConfig(
            output_dir=str(folder / "rl"),
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            num_generations=4,
            max_completion_length=96,
            max_steps=2,
            logging_steps=1,
            log_completions=True,
            num_completions_to_print=0,
            report_to=["wandb"],
            wandb_media_files=1,
            constrained_decoding="strict",
            credit_map={
                "letters_reward": ["context"],
                "section_format_reward": ["everywhere"],
                "answer_reward": ["answer"],
            },
            reward_funcs=["letters", "form", "answers"],  # as many as are given below
            reward_weights=[0.5, 1.0, 2.0],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
        )
        trainer = OmniGRPOTrainer(
            load_model(tiny),
            [letters_reward, section_format_reward, answer_reward],
            args,
            mixed.select([0, 3]),  # both have a clip
            encoder=PromptEncoder(load_processor(tiny), settings),
        )
        trainer.train()
    return folder, pd.read_parquet(folder / "rl/completions/completions_00002.parquet"), mixed


def test_groups_are_the_prompts_and_gold_answers_those_of_their_rows(table):
    _, rows, mixed = table
    gold = dict(zip(mixed["id"], mixed["solution"], strict=True))
    assert set(rows.groupby("group")["id"].nunique()) == {1}
    assert set(rows.groupby("group").size()) == {4}
    assert list(rows["solution"]) == [gold[i] for i in rows["id"]]
    assert set(rows["problem_type"]) == {"yes_no"}


def test_the_viewers_tests_have_the_columns_that_are_written(table):
    """Their tables are larger than a test can train; what a row of theirs holds is held to this real one."""
    _, rows, _ = table
    invented = completion_row(random.Random(0), 1, "1.1.0", 1, "yes", "")
    own = {"context_reward", "judge_verdict"}  # of a reward, and of a column that a reward logs
    assert invented.keys() - own <= set(rows.columns)
    assert set(rows.columns) - invented.keys() <= {"letters_reward", "answer_reason", "section_format_reason"}


def test_each_generation_batch_has_groups_of_its_own(table):
    folder, _, _ = table
    names = [set(pd.read_parquet(f)["group"]) for f in sorted((folder / "rl/completions").glob("*.parquet"))]
    assert len(names) == 2 and names[0].isdisjoint(names[1])


def test_the_total_is_the_weighted_sum_and_sections_bear_their_own_credit(table):
    _, rows, _ = table
    total = 0.5 * rows["letters_reward"] + rows["section_format_reward"] + 2.0 * rows["answer_reward"]
    assert np.allclose(rows["reward"], total)
    whole = rows[["advantage_context", "advantage_think"]].dropna()
    assert len(whole)
    # The letters act on the context alone, and alone differ there from what acts everywhere.
    letters = rows["letters_reward"] - rows.groupby("group")["letters_reward"].transform("mean")
    extra = (rows["advantage_context"] - rows["advantage_think"]).dropna()
    assert (np.sign(extra.round(4)) == np.sign(letters[extra.index].round(4))).all()


def test_the_viewer_reads_it(table):
    folder, rows, _ = table
    groups = read_rollouts(folder)
    assert len(groups) == 4 and {len(g.rollouts) for g in groups} == {4}
    assert all(g.gold in ("yes", "no") and g.media and not g.held_out for g in groups)
    last = [r for g in groups[2:] for r in g.rollouts]
    assert [r.total for r in last] == pytest.approx(list(rows["reward"]))


def test_wandb_takes_a_clip_that_plays_and_no_more_than_asked(table):
    """A logged table goes as an artifact, which is where its media are; offline both are staged."""
    folder, _, _ = table
    staged = [f.read_bytes() for f in (folder / "staged").rglob("*") if f.is_file()]
    tables = [json.loads(content) for content in staged if content.startswith(b'{"_type": "table"')]
    rollouts = [t for t in tables if "video" in t["columns"]]
    assert len(rollouts) >= 2  # one a log event, some staged twice
    for content in rollouts:
        column = content["columns"].index("video")
        players = [row[column] for row in content["data"] if row[column] is not None]
        assert len(content["data"]) == 8 and len(players) == 4  # one of the two clips, in each row of its group
        assert {p["_type"] for p in players} == {"video-file"} and len({p["sha256"] for p in players}) == 1
    assert any(content[4:8] == b"ftyp" for content in staged)


def test_without_a_wandb_run_nothing_is_sent():
    log_playable_table({"prompt": ["a"], "completion": ["b"], "media": ["c.mp4"]}, 1, 4)


def test_a_negative_number_of_files_is_refused(tmp_path):
    with pytest.raises(ValueError, match="wandb_media_files"):
        OmniGRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, wandb_media_files=-1)
