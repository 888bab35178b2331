# SPDX-License-Identifier: Apache-2.0
"""
Which attacks earn full marks, under our rewards, under TRL's, and under the rules of other projects.

    python benchmarks/reward_attacks.py            prints the table
    python benchmarks/reward_attacks.py --write    writes it to benchmarks/results/reward_attacks.md
"""

import argparse
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from attack_forms import Attack, Boxed, Form, Row
from attacks import ATTACKS
from peer_rules import RULES
from section_attacks import CONTEXT_ATTACKS, CONTEXT_LIMITS, JUDGED_REASONING, MOODS, REASONING_ATTACKS

from omni_rewards import (
    Judge,
    ReasoningReward,
    answer_reward,
    context_reward,
    section_format_reward,
    think_answer_format_reward,
)

RESULTS = Path(__file__).resolve().parent / "results/reward_attacks.md"
OURS = "omni_rewards"
TRL = "TRL"
_CONTEXT = Form(("context", "think", "answer"))
_TWO = Form(("think", "answer"))


@dataclass(frozen=True)
class Result:
    """One line of the table: whether the attack earned full marks, by rule; `None` where a rule does not apply."""

    name: str
    group: str
    earned: dict[str, bool | None]


def scores(text: str, row: Row, format_reward: Callable[..., Any]) -> list[float | None]:
    """What one completion earns from the format reward, then from the answer reward."""
    columns = {"solution": [row.solution], "problem_type": [row.problem_type], "options": [row.options]}
    return [reward([text], **columns)[0] for reward in (format_reward, answer_reward)]


def our_marks(attack: Attack) -> bool:
    """
    Whether one of ours pays in full: both of a recipe's rewards, in three sections or in two, or the format alone for
    a fault of form. Broken data are refused with a `ValueError`, so they pay nothing.
    """
    paid = False
    for form, format_reward in ((_CONTEXT, section_format_reward), (_TWO, think_answer_format_reward)):
        try:
            shape, answer = scores(attack.write(form), attack.row, format_reward)
        except ValueError:
            continue
        paid |= shape == 1.0 and (answer == 1.0 or attack.group == "form")
    return paid


def trl_marks(attack: Attack) -> bool | None:
    """TRL's format reward on faults of form; on numbers its accuracy reward, which reads a LaTeX box, as well."""
    from trl.rewards import accuracy_reward, think_format_reward

    about_form = attack.group == "form"
    if not about_form and attack.row.problem_type not in ("numerical", "regression"):
        return None
    turn = [[{"role": "assistant", "content": attack.write(_TWO if about_form else Boxed())}]]
    right = about_form or accuracy_reward(turn, [attack.row.solution]) == [1.0]  # None for gold that cannot be parsed
    return right and think_format_reward(turn) == [1.0]


def table() -> list[Result]:
    """Every attack under every rule."""
    results: list[Result] = []
    for attack in ATTACKS:
        about_form = attack.group == "form"
        earned: dict[str, bool | None] = {OURS: our_marks(attack), TRL: trl_marks(attack)}
        for rule in RULES:
            earned[rule.name] = rule.full_marks(attack.write(rule.form), attack.row, about_form)
        results.append(Result(attack.name, attack.group, earned))
    return [*results, *section_results()]


class SectionScore(NamedTuple):
    """What an attack on a section earns, and a sound text for the same row; `None` where only a judge can tell."""

    name: str
    group: str
    attack: float | None
    sound: float | None


def section_scores() -> list[SectionScore]:
    """
    Attacks on the context and the reasoning reward; no other rule has an offline one.

    Of the reasoning is shown what is settled before the judge is asked, so that no judge, however credulous, pays it.
    """
    scores: list[SectionScore] = []
    for name, reference, *texts in CONTEXT_ATTACKS:
        completions = [_CONTEXT.write("no", context=text) for text in texts]
        scores.append(SectionScore(name, "context", *context_reward(completions, context=[reference] * 2)))
    nobody = Judge("http://localhost/v1", "nobody", cache_dir="none", replay=True)  # answers nothing, asks nobody
    for group, attacks in (("reasoning", REASONING_ATTACKS), ("reasoning, quality", JUDGED_REASONING)):
        for name, kind, options, answer, *thoughts in attacks:
            completions = [_CONTEXT.write(answer, think=think, context=MOODS) for think in thoughts]
            earned = ReasoningReward(nobody)(completions, [kind] * 2, [options] * 2)
            scores.append(SectionScore(name, group, *earned))
    return scores


def section_results() -> list[Result]:
    """Those of `section_scores` that words can tell: contexts paid in full, contradictions left to the judge."""
    nobody = dict.fromkeys([TRL, *(rule.name for rule in RULES)])
    results: list[Result] = []
    for name, group, score, _ in section_scores():
        if group != "reasoning, quality":
            paid = score == 1.0 if group == "context" else score != 0.0
            results.append(Result(name, group, {OURS: paid, **nobody}))
    return results


def section_table() -> str:
    """What each attack on a section earns beside a sound text."""
    lines = ["| attack | earns | a sound text earns |", "|---|---|---|"]
    for name, group, *scores in section_scores():
        shown = ["the judge's grade" if score is None else f"{score:.2f}" for score in scores]
        lines.append(f"| {group}: {name} | {' | '.join(shown)} |")
    return "\n".join(lines)


def gold_marks(row: Row) -> bool:
    """Whether the gold answer in good form earns all of ours."""
    return set(scores(_CONTEXT.write(row.solution), row, section_format_reward)) == {1.0}


def summary(results: list[Result]) -> str:
    """Attacks that earned full marks, of those that a rule says something about, by group."""
    names = [OURS, TRL, *(rule.name for rule in RULES)]
    lines = [f"| attacks on the | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for group in dict.fromkeys(result.group for result in results):
        cells: list[str] = []
        for name in names:
            earned = [r.earned[name] for r in results if r.group == group and r.earned[name] is not None]
            cells.append(f"{sum(map(bool, earned))} / {len(earned)}" if earned else "–")
        lines.append(f"| {group} | {' | '.join(cells)} |")
    return "\n".join(lines)


def full_table(results: list[Result]) -> str:
    """One line an attack: `paid` where it earned full marks, a dot where it did not."""
    names = list(results[0].earned)
    marks = {True: "paid", False: "·", None: ""}
    lines = [f"| attack | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for result in results:
        lines.append(f"| {result.group}: {result.name} | {' | '.join(marks[e] for e in result.earned.values())} |")
    return "\n".join(lines)


def page(results: list[Result]) -> str:
    """The whole file of results."""
    return (
        "# Attacks on rewards\n\n"
        f"{len(results)} completions with one fault each. `paid`: the attack earned the maximum of the rule's format "
        "reward and, where the rule has one for the row's type, of its accuracy reward. Empty: the rule says nothing "
        "about such a row. TRL's functions are called; the other projects' rules are re-implemented in "
        "`benchmarks/peer_rules.py` from their published code, as of 2026, and show their kind, not a ranking. Ours "
        "refuses a broken gold answer with an error.\n\n"
        f"{summary(results)}\n\n{full_table(results)}\n\n"
        "Attacks on sections beside a sound text for the same row. Where reasoning concludes another answer than the one "
        "given, no judge is asked; its quality is the judge's to grade, and without a judge the reward refuses to start. "
        f"Words alone do not tell {', '.join(attack.name for attack in CONTEXT_LIMITS)}: that is paid in full, as the "
        f"docstring of `context_reward` says.\n\n{section_table()}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/reward_attacks.md")
    write = parser.parse_args().write
    logging.getLogger("omni_rewards").setLevel(logging.ERROR)  # that the judge is nobody is meant
    text = page(table())
    if write:
        RESULTS.write_text(text, encoding="utf-8")
    print(RESULTS if write else text)


if __name__ == "__main__":
    main()
