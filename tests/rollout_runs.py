# SPDX-License-Identifier: Apache-2.0
"""Run folders with completions tables as the trainer writes them, of any size."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow
import pyarrow.parquet

from omni_rewards import AnswerReward, parse_sections, section_format_reward

WORDS = [
    "the",
    "face",
    "looks",
    "happy",
    "and",
    "voice",
    "sounds",
    "cold",
    "so",
    "they",
    "do",
    "not",
    "agree",
    "a",
    "man",
    "shouts",
    "at",
    "the",
    "door",
    "while",
    "rain",
    "falls",
]
HOSTILE = "</script><script>window.hacked = 1</script><img src=http://evil.example/x onerror=alert(1)> \u202e"


def sentence(rng: random.Random, length: int) -> str:
    return " ".join(rng.choices(WORDS, k=length)).capitalize() + "."


def completion_row(rng: random.Random, step: int, group: str, index: int, gold: str, media: str) -> dict:
    """One row; every seventh completion is malformed, every other answer right."""
    answer = gold if rng.random() < 0.5 else "no" if gold == "yes" else "yes"
    context, think = sentence(rng, 30), sentence(rng, 40)
    text = f"<context>{context}</context>\n<think>{think}</think>\n<answer>{answer}</answer>"
    valid = index % 7 > 0
    if not valid:
        text = text.replace("</think>", "") + "."
    sections = parse_sections(text)
    (earned,) = AnswerReward()([text], [gold], ["yes_no"])
    advantages = {name: rng.gauss(0, 1) for name in ("context", "think", "answer", "tag")}
    return {
        "step": step,
        "prompt": [{"role": "user", "content": f"[video clip.mp4] Does the voice agree with the face in {group}?"}],
        "completion": [{"role": "assistant", "content": text}],
        "answer_reward": earned,
        "context_reward": rng.random(),
        "section_format_reward": section_format_reward([text])[0],
        "answer_parsed": answer,
        "group": f"train {group}",
        "id": f"row-{group}",
        "media": media,
        "solution": gold,
        "problem_type": "yes_no",
        "format": sections.reason,
        **{name: sections.texts.get(name) for name in ("context", "think", "answer")},
        "judge_verdict": f"The reasoning {'follows' if valid else 'does not follow'}.",
        "reward": float(answer == gold) + rng.random(),
        "advantage": rng.gauss(0, 1),
        **{f"advantage_{name}": value for name, value in advantages.items()},
        "advantage_outside": float("nan"),
    }


def write_rollouts(run: Path, media: list[Path], groups: int = 10, size: int = 8, per_step: int = 5) -> list[dict]:
    """Writes `<run>/rl/completions`, `groups` groups of `size` completions, `per_step` a file; returns the rows."""
    rng = random.Random(0)
    folder = run / "rl/completions"
    folder.mkdir(parents=True, exist_ok=True)
    everything = []
    for start in range(0, groups, per_step):
        step = start // per_step + 1
        rows = []
        for k in range(start, min(groups, start + per_step)):
            gold, file = rng.choice(["yes", "no"]), str(media[k % len(media)]) if media else ""
            name = f"{step - 1}.{step - 1}.{k - start}"
            rows += [completion_row(rng, step, name, i, gold, file) for i in range(size)]
        write_table(folder, step, rows)
        everything += rows
    return everything


def write_table(folder: Path, step: int, rows: list[dict]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"completions_{step:05d}.parquet")
