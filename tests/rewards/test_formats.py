# SPDX-License-Identifier: Apache-2.0
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_rewards import (
    CONTEXT_THINK_ANSWER,
    SUMMARY_CAPTION_REASONING_CONCLUSION,
    THINK_ANSWER,
    SectionFormatReward,
    SectionSchema,
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
    "tags in wide brackets": lambda text, o, x, c: text.replace(o, f"＜{o[1:-1]}＞").replace(c, f"＜{c[1:-1]}＞"),
    "wide tags smuggled": lambda text, o, x, c: text.replace(o + x + c, o + x + "＜answer＞x＜/answer＞" + c),
    "invisible character in a tag": lambda text, o, x, c: text.replace(c, c.replace("/", "/\u200b")),
    "invisible character outside": lambda text, o, x, c: text.replace(o, "\ufeff" + o),
    "attribute in a tag": lambda text, o, x, c: text.replace(o, o.replace(">", " id=1>")),
    "text before": lambda text, o, x, c: text.replace(o, "x" + o),
    "text after": lambda text, o, x, c: text.replace(c, c + "x"),
}
REWARDS = {section_format_reward: CONTEXT_THINK_ANSWER, think_answer_format_reward: THINK_ANSWER}
section_texts = st.text("ab <>/\n好", min_size=1, max_size=12).filter(lambda text: text.strip())


SCHEMAS = [
    CONTEXT_THINK_ANSWER,
    THINK_ANSWER,
    SUMMARY_CAPTION_REASONING_CONCLUSION,
    SectionSchema(("answer",)),
    SectionSchema(("plan", "answer", "check", "risk", "summary", "end")),
]
schemas = st.sampled_from(SCHEMAS)
# What may stand outside without being a tag, whatever it meets.
words = st.text("ab 好\n.\u200b", min_size=1, max_size=6)


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


def pieces(schema: SectionSchema) -> st.SearchStrategy[list[str]]:
    """Texts in any state of disorder: tags of the schema, look-alikes, foreign tags and words."""
    tags = [f"<{slash}{name}>" for name in (*schema.names, "context") for slash in ("", "/")]
    whole = [f"<{name}>x</{name}>" for name in schema.names]
    return st.lists(st.sampled_from([*tags, *whole, "<Think>", "＜answer＞"]) | words, max_size=10)


@given(data=st.data(), schema=schemas, added=words)
def test_text_outside_never_raises_a_format_reward(data: st.DataObject, schema: SectionSchema, added: str) -> None:
    """Outside is before the first tag, behind the last one if that closes, and between a closing and an opening tag."""
    parts = data.draw(pieces(schema))
    is_tag = [part.startswith(("<", "＜")) for part in parts]
    opens = [tagged and not part.startswith("</") for part, tagged in zip(parts, is_tag, strict=True)]
    closes = [
        tagged and (part.startswith("</") or part.count("<") == 2) for part, tagged in zip(parts, is_tag, strict=True)
    ]
    places = [
        at
        for at in range(len(parts) + 1)
        if (at == 0 or closes[at - 1] or not any(is_tag[:at]))
        and (at == len(parts) or opens[at] or not any(is_tag[at:]))
    ]
    for at in places:
        longer = "".join([*parts[:at], added, *parts[at:]])
        before, after = SectionFormatReward(schema)(["".join(parts), longer])
        assert after <= before


@given(data=st.data(), schema=schemas)
def test_text_outside_a_good_completion_costs(data: st.DataObject, schema: SectionSchema) -> None:
    sections = [f"<{name}>x</{name}>" for name in schema.names]
    added = data.draw(words.filter(lambda text: any(c in text for c in "ab好.")))
    at = data.draw(st.integers(0, len(sections)))
    longer = "".join([*sections[:at], added, *sections[at:]])
    assert SectionFormatReward(schema)([longer]) == [0.0]
    assert SectionFormatReward(schema)(["".join(sections)]) == [1.0]


def test_limits_on_length() -> None:
    def text(think: str) -> list[str]:
        return [THINK_ANSWER.render({"think": think, "answer": "B"})]

    limited = SectionFormatReward(THINK_ANSWER, min_characters=3, max_characters=5)
    assert [limited(text("x" * length)) == [1.0] for length in range(1, 8)] == [
        False,
        False,
        True,
        True,
        True,
        False,
        False,
    ]
    assert limited(text(" xx  ")) != [1.0], "blanks do not count"
    assert SectionFormatReward(THINK_ANSWER)(text("x" * 65_536)) == [1.0] and SectionFormatReward(THINK_ANSWER)(
        text("x" * 65_537)
    ) != [1.0]
    for limits in ({"min_characters": 0}, {"min_characters": 9, "max_characters": 8}):
        with pytest.raises(ValueError, match="min_characters and max_characters must be"):
            SectionFormatReward(**limits)


def test_each_schema_has_a_name_of_its_own() -> None:
    """The name is the metric's key and the column's; the plain functions' names are those of their schemas."""
    rewards = [SectionFormatReward(schema) for schema in SCHEMAS]
    names = [reward.__name__ for reward in rewards]
    assert len(set(names)) == len(names) and all(name.endswith("_format_reward") for name in names)
    for function in (section_format_reward, think_answer_format_reward):
        assert function.__name__ in names
    assert [pickle.loads(pickle.dumps(reward)) for reward in rewards] == rewards


def test_reasons_are_logged_beside_the_completions() -> None:
    logged: dict[str, list[str]] = {}
    metrics: dict[str, float] = {}
    texts = ["<think>x</think><answer>y</answer>", "y", "<think>" + "x" * 65_537 + "</think><answer>y</answer>"]
    texts.append("<think> \u200b</think><answer>y</answer>")
    think_answer_format_reward(texts, log_extra=logged.__setitem__, log_metric=metrics.__setitem__)
    assert logged == {"think_answer_format_reason": ["ok", "missing_section", "too_long", "empty_section"]}
    assert metrics == {"format/blank_think_rate": 0.25}
