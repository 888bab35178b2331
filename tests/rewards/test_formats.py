# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_rewards import (
    CONTEXT_THINK_ANSWER,
    THINK_ANSWER,
    section_format_reward,
    think_answer_format_reward,
)

# What passes one published format check or another, each as one change of a well-formed text around one section,
# given as the whole text, the section's opening tag, inner text and closing tag.
ATTACKS: dict[str, Callable[[str, str, str, str], str]] = {
    "empty section": lambda text, o, x, c: text.replace(o + x + c, o + c),
    "whitespace section": lambda text, o, x, c: text.replace(o + x + c, o + " \n\t" + c),
    "invisible section": lambda text, o, x, c: text.replace(o + x + c, o + "\u200b\ufeff" + c),
    "section dropped": lambda text, o, x, c: text.replace(o + x + c, ""),
    "section twice in place": lambda text, o, x, c: text.replace(o + x + c, (o + x + c) * 2),
    "section again at the end": lambda text, o, x, c: text + o + x + c,
    "section at the other end": lambda text, o, x, c: move_to_other_end(text, o + x + c),
    "section inside itself": lambda text, o, x, c: text.replace(o + x + c, o + x + o + x + c + c),
    "answer quoted inside": lambda text, o, x, c: text.replace(o + x + c, o + x + "<answer>x</answer>" + c),
    "closing tag smuggled": lambda text, o, x, c: text.replace(o + x + c, o + x + c + x + c),
    "closing tag twice": lambda text, o, x, c: text.replace(c, c + c),
    "opening tag twice": lambda text, o, x, c: text.replace(o, o + o),
    "opening tag dropped": lambda text, o, x, c: text.replace(o, ""),
    "closing tag dropped": lambda text, o, x, c: text.replace(c, ""),
    "tags in capitals": lambda text, o, x, c: text.replace(o + x + c, o.upper() + x + c.upper()),
    "space in the closing tag": lambda text, o, x, c: text.replace(c, c.replace("/", "/ ")),
    "text before": lambda text, o, x, c: text.replace(o, "x" + o),
    "text after": lambda text, o, x, c: text.replace(c, c + "x"),
}
REWARDS = {section_format_reward: CONTEXT_THINK_ANSWER, think_answer_format_reward: THINK_ANSWER}
section_texts = st.text("ab <>/\n好", min_size=1, max_size=12).filter(lambda text: text.strip())


def move_to_other_end(text: str, section: str) -> str:
    rest = text.replace(section, "")
    return section + rest if text.endswith(section) else rest + section


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("reward", REWARDS, ids=lambda reward: reward.__name__)
@settings(max_examples=20)
@given(data=st.data())
def test_any_single_attack_is_refused(reward, attack: str, data: st.DataObject) -> None:
    schema = REWARDS[reward]
    texts = {name: data.draw(section_texts, label=name) for name in schema.names}
    text = schema.render(texts)
    name = data.draw(st.sampled_from(schema.names), label="attacked")
    attacked = ATTACKS[attack](text, f"<{name}>", texts[name], f"</{name}>")
    assert attacked != text
    assert reward([text, attacked]) == [1.0, 0.0]


def test_whitespace_around_sections_is_allowed() -> None:
    """Chat models end a turn with a newline and put sections on lines of their own."""
    assert think_answer_format_reward(["\n<think>x</think>\n\n<answer>y</answer>\n"]) == [1.0]


def test_the_two_formats_exclude_each_other() -> None:
    three, two = "<context>c</context><think>t</think><answer>a</answer>", "<think>t</think><answer>a</answer>"
    assert section_format_reward([three, two]) == [1.0, 0.0]
    assert think_answer_format_reward([three, two]) == [0.0, 1.0]


def test_a_truncated_completion_is_refused() -> None:
    whole = "<context>c</context><think>t</think><answer>a</answer>"
    assert section_format_reward([whole[:end] for end in range(len(whole))]) == [0.0] * len(whole)
