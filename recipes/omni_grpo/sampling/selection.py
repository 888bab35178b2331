# SPDX-License-Identifier: Apache-2.0
"""
What is chosen of the sampled rows, by name: a difficulty band, worked examples, pairs. Nothing is sampled again.

Each selection looks at one row, and gives the fields to add to it, or says why the row is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeVar

from omni_grpo.sampling.sampling import Drawn, Sample
from omni_rewards import PROBLEM_TYPES

Value = TypeVar("Value")
Chosen = dict[str, str] | str
ANY = ""  # the problem types that have no value of their own


@dataclass(frozen=True)
class Rule:
    """
    What is right, and what a selection asks; each value by problem type, and for all others under `""`.

    Args:
        reward (`str`, defaults to `"answer_reward"`): The reward that says whether a completion is right.
        right_above (`Mapping[str, float]`): A completion is right above this score, HumanOmniV2's 0.2 by default.
        band (`Mapping[str, tuple[Fraction, Fraction]]`):
            Least and greatest share of right completions, both included; HumanOmniV2's 1 to 5 of 8 by default.
        at_least (`Mapping[str, float]`): Scores that a worked example needs, by reward: a judge's, say.
    """

    reward: str = "answer_reward"
    right_above: Mapping[str, float] = field(default_factory=lambda: {ANY: 0.2})
    band: Mapping[str, tuple[Fraction, Fraction]] = field(
        default_factory=lambda: {ANY: (Fraction(1, 8), Fraction(5, 8))}
    )
    at_least: Mapping[str, float] = field(default_factory=dict)

    def is_right(self, sample: Sample, drawn: Drawn) -> bool | None:
        """`None` where the reward gave no score."""
        score = drawn["rewards"][self.reward]
        return None if score is None else score > _of(self.right_above, sample)


def difficulty_band(sample: Sample, rule: Rule) -> Chosen:
    """
    The row as it is, where neither too few nor too many of its completions are right for it to teach anything.

    Source: HumanOmniV2 (https://huggingface.co/papers/2506.21277) keeps 1 to 5 of 8. Deviations: every problem type is
    scored by its own rule, and a row with a completion that a judge left without a score is left out, by that reason.
    """
    rights = [rule.is_right(sample, drawn) for drawn in sample["completions"]]
    if None in rights:
        return "without a score"
    least, most = _of(rule.band, sample)
    share = Fraction(rights.count(True), len(rights))
    return "too hard" if share < least else "too easy" if share > most else {}


def worked_example(sample: Sample, rule: Rule) -> Chosen:
    """As `target`, the shortest completion that is right, well-formed and earns what `rule.at_least` asks."""
    right = _right(sample, rule)
    good = [d for d in right if all((d["rewards"][name] or 0.0) >= least for name, least in rule.at_least.items())]
    if not good:
        return "none is right" if not right else "none earns what is asked"
    return {"target": min(good, key=lambda drawn: drawn["num_tokens"])["text"]}


def pair(sample: Sample, rule: Rule) -> Chosen:
    """
    As `chosen` the shortest well-formed completion that is right; as `rejected` a wrong one, well-formed if there is
    such a one, and nearest to it in length, so that form and length tell the two apart as little as can be.
    """
    right, wrong = _right(sample, rule), [d for d in sample["completions"] if rule.is_right(sample, d) is False]
    if not right or not wrong:
        return "none is right" if not right else "none is wrong"
    chosen = min(right, key=lambda drawn: drawn["num_tokens"])
    length = chosen["num_tokens"]
    rejected = min(wrong, key=lambda drawn: (not drawn["format_ok"], abs(drawn["num_tokens"] - length)))
    return {"chosen": chosen["text"], "rejected": rejected["text"]}


SELECTIONS: dict[str, Callable[[Sample, Rule], Chosen]] = {
    "band": difficulty_band,
    "worked_examples": worked_example,
    "pairs": pair,
}


def select(name: str, samples: Sequence[Sample], rule: Rule) -> tuple[dict[str, dict[str, str]], Counter[str]]:
    """
    Fields to add to each row that is selected, by id, and how many rows are left out for which reason.

    Raises:
        `ValueError`: A reward or a problem type of `rule` is unknown, or no row is left.
    """
    known = samples[0]["completions"][0]["rewards"]
    if unknown := [n for n in (rule.reward, *rule.at_least) if n not in known]:
        raise ValueError(f"{', '.join(unknown)}: was not among the rewards of this sampling, {', '.join(known)}")
    if unknown := [kind for kind in (*rule.right_above, *rule.band) if kind not in (ANY, *PROBLEM_TYPES)]:
        raise ValueError(f"problem type {unknown[0]!r} is unknown; one of {', '.join(PROBLEM_TYPES)}")
    found = {sample["id"]: SELECTIONS[name](sample, rule) for sample in samples}
    selected = {row: fields for row, fields in found.items() if not isinstance(fields, str)}
    left_out = Counter(reason for reason in found.values() if isinstance(reason, str))
    if not selected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common())
        raise ValueError(f"no row is selected ({reasons}); move the limits, or sample from another checkpoint")
    return selected, left_out


def pass_rates(samples: Sequence[Sample], rule: Rule) -> str:
    """A table for the terminal: rows of each problem type by how many of their completions are right."""
    most = max(len(sample["completions"]) for sample in samples)
    kinds: dict[str, list[int]] = {}
    for sample in samples:
        right = [rule.is_right(sample, drawn) for drawn in sample["completions"]].count(True)
        kinds.setdefault(sample["problem_type"] or "-", [0] * (most + 1))[right] += 1
    header = f"{rule.reward}, rows by right completions\n{'':18}" + "".join(f"{k:>6}" for k in range(most + 1))
    return "\n".join([header, *(f"{kind:18}" + "".join(f"{n:>6}" for n in row) for kind, row in kinds.items())])


def _right(sample: Sample, rule: Rule) -> list[Drawn]:
    """Completions that are right, well-formed and whole."""
    whole = [d for d in sample["completions"] if d["format_ok"] and not d["truncated"]]
    return [d for d in whole if rule.is_right(sample, d)]


def _of(values: Mapping[str, Value], sample: Sample) -> Value:
    return values.get(sample["problem_type"] or ANY, values[ANY])
