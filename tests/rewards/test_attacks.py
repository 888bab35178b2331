# SPDX-License-Identifier: Apache-2.0
"""No attack earns full marks from ours, every gold answer does, and the other projects' rules are the ones they have."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from attack_forms import CHOICE, FILLER, Boxed, Form, Row
from attacks import ATTACKS, BROKEN_GOLD
from peer_rules import RULES
from reward_attacks import (
    OURS,
    RESULTS,
    Result,
    SectionScore,
    full_table,
    gold_marks,
    page,
    section_scores,
    summary,
    table,
)
from section_attacks import JUDGED_REASONING, ReasoningAttack

from omni_rewards import answer_reward, reasoning_reward

REPOSITORY = Path(__file__).parents[2]
BY_NAME = {rule.name: rule for rule in RULES}


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return table()


def test_the_table_of_attacks(results: list[Result]) -> None:
    """`pytest -s` shows it; `python benchmarks/reward_attacks.py` prints it too."""
    print(f"\n{full_table(results)}\n\n{summary(results)}")
    assert len(results) >= 60
    assert len({(result.group, result.name) for result in results}) == len(results)


def test_none_of_the_attacks_earns_ours_the_maximum(results: list[Result]) -> None:
    """Mutants: any one check taken out of the parser, or a list of options that is read by its first letter."""
    assert [f"{r.group}: {r.name}" for r in results if r.earned[OURS]] == []


SECTIONS = section_scores()


@pytest.mark.parametrize("score", SECTIONS, ids=lambda score: f"{score.group}: {score.name}")
def test_a_sound_text_earns_more_than_the_attack_beside_it(score: SectionScore) -> None:
    """What a context names is scored by words, what a thought concludes is settled, the rest is the judge's to grade."""
    if score.group == "context":
        assert score.attack < score.sound and score.sound > 0.8
    else:
        assert (score.attack, score.sound) == (0.0 if score.group == "reasoning" else None, None)


def test_there_are_attacks_on_both_sections() -> None:
    counts = Counter(score.group for score in SECTIONS)
    assert min(counts.values()) >= 10 and len(counts) == 3
    assert len({(score.group, score.name) for score in SECTIONS}) == len(SECTIONS)


@pytest.mark.parametrize("attack", JUDGED_REASONING, ids=lambda attack: attack.name)
def test_without_a_judge_nobody_is_paid_for_reasoning(attack: ReasoningAttack) -> None:
    """Mutant: a score of words, which paid the first of them in full."""
    text = Form(("context", "think", "answer")).write(attack.answer, think=attack.think)
    with pytest.raises(ValueError, match="needs a judge"):
        reasoning_reward([text], [attack.problem_type])


ROWS = list(dict.fromkeys(attack.row for attack in ATTACKS if attack.group != "broken gold"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.problem_type} {row.solution}")
def test_the_gold_answer_of_every_attacked_row_does(row: Row) -> None:
    assert gold_marks(row)


@pytest.mark.parametrize(("name", "row", "answer"), BROKEN_GOLD, ids=lambda value: str(value)[:20])
def test_broken_gold_stops_the_run_and_pays_nobody(name: str, row: Row, answer: str) -> None:
    completion = Form(("context", "think", "answer")).write(answer)
    with pytest.raises(ValueError, match="gold answer"):
        answer_reward([completion], [row.solution], [row.problem_type], [row.options])


def test_every_rule_pays_its_own_good_completion(results: list[Result]) -> None:
    """A re-implementation that refuses everything would look safe."""
    for rule in RULES:
        assert rule.full_marks(rule.form.write("B"), CHOICE, about_form=True), rule.name
        assert any(result.earned[rule.name] for result in results), rule.name
    assert Boxed().write("42") == rf"<think>{FILLER}</think>\boxed{{42}}"


def two_sections(think: str = "reason", answer: str = "B", after: str = "") -> dict[str, str]:
    """One probe as each rule wants it written, all on one line where the rule lets it be."""
    probe: dict[str, str] = {}
    for name, rule in BY_NAME.items():
        form = rule.form
        sections = {"context": "scene", "think": think, "answer": answer}
        gap = form.around
        text = form.between.join(f"<{s}>{gap}{sections[s].replace('|', gap)}{gap}</{s}>" for s in form.names)
        probe[name] = text + after.replace("|", gap)
    return probe


# What each project's own format check was found to pass (1) and refuse (0) when its code was run in 2026.
COLUMNS = ["open-r1", "NeMo-RL", "Video-R1", "HumanOmniV2", "EchoInk", "ms-swift", "lmm-r1"]
PROBES = {
    "well-formed": (two_sections(), "1111111"),
    "empty think": (two_sections(think=""), "1111011"),
    "whitespace think": (two_sections(think=" "), "1111111"),
    "two answer blocks": (two_sections(answer="A|</answer>|<answer>|B"), "1111010"),
    "second closing tag smuggled": (two_sections(think="reason|</think>|junk"), "1111110"),
    "nested think": (two_sections(think="a|<think>|b|</think>|c"), "1111010"),
    "text after the answer": (two_sections(after=" or C"), "0101000"),
    "every option": (two_sections(answer="A,B,C,D"), "1111111"),
    "think repeated after the answer": (two_sections(answer="B|</answer>|<think>|r|</think>|<answer>|B"), "1111010"),
}


@pytest.mark.parametrize("probe", PROBES)
def test_re_implemented_format_checks_pass_what_the_projects_own_do(probe: str) -> None:
    texts, passed = PROBES[probe]
    assert "".join(str(int(BY_NAME[name].is_well_formed(texts[name]))) for name in COLUMNS) == passed


def test_published_weak_spots_of_answer_checks_are_there() -> None:
    """Each was found in the project's code; a table without them would be about something else."""

    def right(name: str, answer: str, gold: str, kind: str) -> bool | None:
        return BY_NAME[name].is_right(f"<answer>{answer}</answer>", Row(kind, gold))

    assert right("HumanOmniV2", "yes or no", "no", "yes_no") and right("HumanOmniV2", "unknown", "no", "yes_no")
    assert right("HumanOmniV2", "42", "42.0", "numerical") is False
    assert right("HumanOmniV2", "B,E", "B,E", "emer_ov_mc") and not right("HumanOmniV2", "B, E", "B,E", "emer_ov_mc")
    assert right("lmm-r1", "7", "about forty", "numerical")
    assert BY_NAME["R1-Omni"].is_right("sad", Row("label", "sad")), "a bare word without any tag"
    assert right("R1-Omni", "Sad", "sad", "label") is False


def test_the_results_file_is_the_one_generated(results: list[Result]) -> None:
    assert RESULTS.read_text(encoding="utf-8") == page(results), "run `python benchmarks/reward_attacks.py --write`"


def test_the_page_on_rewards_shows_its_summary(results: list[Result]) -> None:
    page_text = (REPOSITORY / "docs/rewards.md").read_text(encoding="utf-8")
    match = re.search(r"<!-- attacks:begin -->\n(.*?)\n<!-- attacks:end -->", page_text, re.DOTALL)
    assert match and match[1] == summary(results), "docs/rewards.md is behind the code; run `make readme`"
