# SPDX-License-Identifier: Apache-2.0
"""The viewer's filters: what makes a completion wrong, its rewards disagree, or its policy suspect of gaming them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean, median, pstdev

from omni_grpo.report.rollouts import Group, Rollout
from omni_rewards import parse_sections

HALF = 0.5  # an answer's reward from here on counts as right
APART = 0.5  # standard deviations of the group
MIN_WORDS = 3
COMMON = 0.1  # share of the groups, where there are enough of them to tell
MIN_GROUPS = 20

FLAGS = {  # name -> button, definition; shown on the page word for word
    "wrong": ("Wrong", "The reward of the answer ({answer}) is given and below 0.5."),
    "disagree": (
        "Rewards disagree",
        "One reward lies at least half a standard deviation above its mean in the group, and another at least half a "
        "standard deviation below its own.",
    ),
    "rewarded": (
        "Gamed: rewarded though wrong",
        "The answer is wrong, and the total reward is no less than the lowest total of a right answer in the same "
        "group; where no answer of the group is right, no less than the median total of all right answers on this "
        "page.",
    ),
    "shell": (
        "Gamed: empty shell",
        "The completion is well formed, but a section before the last has fewer than three different words (a Chinese "
        "or Japanese character is one), or says word for word what stands there in completions of more than a tenth "
        "of all groups on this page, if these are at least 20.",
    ),
    "malformed": ("Malformed", "The sections are not complete, in order and alone."),
}
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W_]+")
_ANSWER = re.compile("answer|accuracy|correct|choice")


def answer_reward_of(names: Iterable[str]) -> str | None:
    """The reward that judges the answer: the first whose name says so; `None` if none does."""
    return next((name for name in names if _ANSWER.search(name) and "format" not in name), None)


def flag(groups: Sequence[Group]) -> str | None:
    """
    Set the flags of every rollout, as [`FLAGS`] defines them.

    Returns:
        `str | None`: The reward taken for the answer's; without one nothing is wrong, and nothing rewarded though
        wrong.
    """
    names = list(dict.fromkeys(name for group in groups for r in group.rollouts for name in r.rewards))
    answer = answer_reward_of(names)
    totals = [t for group in groups for t in _right_totals(group.rollouts, answer)]
    everywhere = median(totals) if totals else None
    common = _common_texts(groups)
    for group in groups:
        right = _right_totals(group.rollouts, answer)
        bar = min(right) if right else everywhere
        signs = _signs(group.rollouts, names)
        for rollout, sign in zip(group.rollouts, signs, strict=True):
            parsed = parse_sections(rollout.text, group.schema)
            wrong = _is_right(rollout, answer) is False
            before_last = [(name, parsed.texts.get(name, "")) for name in group.schema.names[:-1]]
            found = {
                "wrong": wrong,
                "disagree": {-1, 1} <= sign,
                "rewarded": wrong and rollout.total is not None and bar is not None and rollout.total >= bar,
                "shell": parsed.ok and any(p in common or says_nothing(p[1]) for p in before_last),
                "malformed": not parsed.ok,
            }
            rollout.flags = {name for name, is_set in found.items() if is_set}
    return answer


def says_nothing(text: str) -> bool:
    """
    Whether `text` has fewer than three different words.

    >>> says_nothing("see, see, see above"), says_nothing("A man shouts.")
    (True, False)
    """
    return len(set(_WORD.findall(text.casefold()))) < MIN_WORDS


def _common_texts(groups: Sequence[Group]) -> set[tuple[str, str]]:
    """Sections' names and texts, before the last section, that completions of too many groups share."""
    counts: Counter[tuple[str, str]] = Counter()
    for group in groups:
        parsed = [parse_sections(rollout.text, group.schema).texts for rollout in group.rollouts]
        counts.update({(name, texts[name]) for texts in parsed for name in group.schema.names[:-1] if name in texts})
    if len(groups) < MIN_GROUPS:
        return set()
    return {text for text, count in counts.items() if count > COMMON * len(groups)}


def _is_right(rollout: Rollout, answer: str | None) -> bool | None:
    score = rollout.rewards.get(answer) if answer else None
    return None if score is None else score >= HALF


def _right_totals(rollouts: Sequence[Rollout], answer: str | None) -> list[float]:
    return [r.total for r in rollouts if r.total is not None and _is_right(r, answer)]


def _signs(rollouts: Sequence[Rollout], names: Sequence[str]) -> list[set[int]]:
    """For each rollout the signs of the rewards that lie well above or below their mean in the group."""
    signs: list[set[int]] = [set() for _ in rollouts]
    for name in names:
        given = [score for r in rollouts if (score := r.rewards.get(name)) is not None]
        spread = pstdev(given) if given else 0.0
        if spread < 1e-9:
            continue
        mean = fmean(given)
        for sign, rollout in zip(signs, rollouts, strict=True):
            score = rollout.rewards.get(name)
            if score is not None and abs(score - mean) >= APART * spread:
                sign.add(1 if score > mean else -1)
    return signs
