# SPDX-License-Identifier: Apache-2.0
"""
A reward of one's own, and which section it moves. In a run's YAML, with this folder on PYTHONPATH:

    reward_funcs: [omni_rewards.answer_reward, own_reward.short_thought_reward]
    credit_map: {answer_reward: [think, answer], short_thought_reward: [think]}

    python examples/own_reward.py
"""

from collections.abc import Sequence
from typing import Any

from omni_rewards import parse_sections


def short_thought_score(text: str, most_words: int = 100) -> float:
    """
    1 for a thought of at most `most_words` words, less for each word beyond; 0 where there is no thought.

    >>> short_thought_score("<context>a</context><think>one two three four</think><answer>b</answer>", most_words=2)
    0.5
    """
    thought = parse_sections(text).texts.get("think")
    if thought is None:
        return 0.0
    return min(1.0, most_words / max(len(thought.split()), 1))


def short_thought_reward(
    completions: Sequence[Any], problem_type: Sequence[str] | None = None, **kwargs: Any
) -> list[float | None]:
    """
    One score a completion, in TRL's calling form: data columns come as arguments of their names, all else in `kwargs`.

    `None` on `math` rows, where a thought may be long: the reward does not apply there, and moves nothing.
    """
    texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]  # plain, or in turns
    types = problem_type or [None] * len(texts)
    return [None if kind == "math" else short_thought_score(text) for text, kind in zip(texts, types, strict=True)]


def main() -> None:
    completions = [
        "<context>A red door.</context><think>The door is red.</think><answer>red</answer>",
        f"<context>A red door.</context><think>{'So, red. ' * 100}</think><answer>red</answer>",
        "red",
    ]
    print(short_thought_reward(completions, problem_type=["label", "label", "math"]))


if __name__ == "__main__":
    main()
