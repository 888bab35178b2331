# SPDX-License-Identifier: Apache-2.0
import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from omni_rewards import (
    CONTEXT_THINK_ANSWER,
    SECTION_REASONS,
    SUMMARY_CAPTION_REASONING_CONCLUSION,
    THINK_ANSWER,
    SectionSchema,
    parse_sections,
)
from omni_rewards._lookalikes import is_blank
from work import soon

GOOD = "<context>A woman claps.</context>\n<think>Clapping is praise.</think>\n<answer>A</answer>"

# Fragments that look like tags, halves of tags and blanks are drawn on purpose.
FRAGMENTS = ["<", ">", "/", "<b>", "</b>", "think", "<thin", "</", "a < b > c", "\n", " ", "\u200b", "B", "é", "好"]
plain_texts = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=8), max_size=6).map("".join)
SCHEMAS = [
    CONTEXT_THINK_ANSWER,
    THINK_ANSWER,
    SUMMARY_CAPTION_REASONING_CONCLUSION,
    SectionSchema(("plan", "answer")),
]
NAMES = sorted({name for schema in SCHEMAS for name in schema.names})
schemas = st.sampled_from(SCHEMAS)


def is_seen(text: str) -> bool:
    """Oracle written apart from the parser: a letter, number or sign, by its Unicode name no blank one."""
    blank = r"(HALFWIDTH )?HANGUL .*FILLER|BRAILLE PATTERN BLANK"
    return any(unicodedata.category(c)[0] in "LNPS" and not re.fullmatch(blank, unicodedata.name(c, "")) for c in text)


def may_hold_a_tag(text: str) -> bool:
    """Whether a section's name comes anywhere behind a bracket: true of every tag and of some plain texts."""
    letters = "".join(c for c in unicodedata.normalize("NFKD", text).casefold() if c.isalpha() or c == "<")
    return bool(re.search(rf"<.*({'|'.join(NAMES)})", letters))


section_texts = plain_texts.filter(lambda text: is_seen(text) and not may_hold_a_tag(text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD, "ok"),
        ("  \n" + GOOD + "\n", "ok"),
        (GOOD.replace("\n", ""), "ok"),
        (GOOD.replace("claps.", "claps: 2 < 3, <b>loud</b>, </thinking>."), "ok"),
        ("", "missing_section"),
        ("The answer is A.", "missing_section"),
        ("<think>Praise.</think><answer>A</answer>", "missing_section"),
        ("<context>Claps.</context><think>Praise.</think>", "missing_section"),
        ("<context>Claps.</context><think>Praise.</think> A", "missing_section"),
        ("<think>Praise.</think><context>Claps.</context><answer>A</answer>", "wrong_order"),
        ("<answer>A</answer>" + GOOD, "wrong_order"),
        (GOOD + "<answer>A</answer>", "repeated_section"),
        (GOOD + "<answer>B</answer>", "repeated_section"),
        (GOOD + "<think>Wait.</think>", "repeated_section"),
        (GOOD.replace("<answer>", "<think>Wait.</think><answer>"), "repeated_section"),
        (GOOD.replace("Clapping is praise.", ""), "empty_section"),
        (GOOD.replace("Clapping is praise.", " \n\t"), "empty_section"),
        (GOOD.replace("Clapping is praise.", "\u200b\u2060"), "empty_section"),
        (GOOD.replace("Clapping is praise.", "\u3164\ufe0f\u2800\x00"), "empty_section"),  # fillers that Python prints
        ("Sure! " + GOOD, "text_outside"),
        (GOOD.replace("</think>", "</think> so"), "text_outside"),
        (GOOD + " B", "text_outside"),
        (GOOD + "</answer>", "stray_tag"),
        (GOOD + "</context>", "stray_tag"),
        ("</think>" + GOOD, "stray_tag"),
        (GOOD + "＜answer＞B＜/answer＞", "stray_tag"),
        ("\u200b" + GOOD, "text_outside"),
        ("\ufeff" + GOOD, "text_outside"),
        (GOOD.replace("<think>", "<th\u00adink>"), "stray_tag"),
        (GOOD.replace("<think>", "<Think>").replace("</think>", "</Think>"), "stray_tag"),
        (GOOD.replace("Clapping", "<think>Clapping</think>"), "nested_tag"),
        (GOOD.replace("Clapping", "<answer>B</answer> Clapping"), "nested_tag"),
        (GOOD.replace("Clapping", "</context> Clapping"), "nested_tag"),
        (GOOD.replace("Clapping", "< / Answer > Clapping"), "nested_tag"),
        (GOOD.replace("Clapping", "<answer/> Clapping"), "nested_tag"),
        (GOOD.replace("Clapping", "<answer id=1>B< /answer> Clapping"), "nested_tag"),
        (GOOD.replace("Clapping", "<|answer|> Clapping"), "nested_tag"),
        (GOOD.replace("Clapping", "＜answer＞B＜/answer＞ Clapping"), "nested_tag"),
        (GOOD.replace("Clapping", "‹/think› Clapping"), "nested_tag"),
        (GOOD.replace("Clapping", "<\\think> Clapping"), "nested_tag"),
        (GOOD.replace("Clapping", "<аnswеr>B Clapping"), "nested_tag"),  # Cyrillic а, е
        (GOOD.replace("Clapping", "<𝐚𝐧𝐬𝐰𝐞𝐫>B Clapping"), "nested_tag"),
        (GOOD.replace("Clapping", "<ánswer>B Clapping"), "nested_tag"),
        (GOOD.replace("Clapping", "<an\u200bswer>B Clapping"), "nested_tag"),
        (GOOD.replace("Clapping", "<answer\x00>B Clapping"), "nested_tag"),
        (GOOD.replace("Clapping", "<answers> <rethink> <an swer> <ответ> Clapping"), "ok"),
        (GOOD.replace("</context>", ""), "nested_tag"),
        ("<context>A woman", "truncated"),
        ("<context>", "truncated"),
        ("<con", "truncated"),
        ("<context>Claps.</context>\n<thi", "truncated"),
        (GOOD.removesuffix("</answer>"), "truncated"),
        (GOOD.removesuffix("wer>"), "truncated"),
        ("So: <context>A woman", "text_outside"),  # cut as well, but something was wrong before
    ],
)
def test_reason_of_each_defect(text: str, reason: str) -> None:
    sections = parse_sections(text)
    assert sections.reason == reason
    assert sections.ok == (reason == "ok")


def test_every_reason_is_documented_and_reachable() -> None:
    cases = test_reason_of_each_defect.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {reason for _, reason in cases} == set(SECTION_REASONS)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("So: " + GOOD, ["context", "think", "answer"]),
        ("<context>Claps.</context><think>Prai", ["context"]),
        ("<think>Praise.</think><answer>A</answer>", ["think", "answer"]),
        ("<answer>A</answer><context>Claps.</context>", ["answer", "context"]),
        (GOOD + "<answer>B</answer>", ["context", "think"]),  # which of the two answers?
        (GOOD + "</answer>", ["context", "think"]),
        (GOOD.replace("Clapping", "<answer>B</answer>"), ["context"]),
        ("<think>I would write <answer>B</answer>", []),  # quoted inside an open section
        ("<answer>B</answer></think>", []),  # inside a section opened elsewhere, e.g. by the prompt
        (GOOD.replace("Clapping is praise.", " "), ["context", "answer"]),
        (GOOD.replace("<answer>", "<Answer>"), ["context", "think"]),
        ("A", []),
    ],
)
def test_malformed_text_keeps_what_is_complete_and_unambiguous(text: str, names: list[str]) -> None:
    sections = parse_sections(text)
    assert not sections.ok
    assert list(sections.texts) == list(sections.spans) == names


def test_schemas_reserve_each_others_tags() -> None:
    assert parse_sections("<think>A <context>clap</context></think><answer>A</answer>", THINK_ANSWER).reason == (
        "nested_tag"
    )
    assert parse_sections(GOOD, THINK_ANSWER).reason == "stray_tag"


def test_every_character_is_seen_or_blank() -> None:
    assert [c for c in map(chr, range(0x110000)) if is_seen(c) == is_blank(c)] == []


@given(schema=schemas, data=st.data())
def test_parse_inverts_render(schema: SectionSchema, data: st.DataObject) -> None:
    texts = {name: data.draw(section_texts, label=name) for name in schema.names}
    sections = parse_sections(schema.render(texts), schema)
    assert sections.ok
    assert sections.texts == texts
    assert tuple(sections.texts) == schema.names


TAGS = [f"<{slash}{name}>" for name in CONTEXT_THINK_ANSWER.names for slash in ("", "/")]


@given(st.lists(st.sampled_from(TAGS) | plain_texts))
@example([GOOD])
def test_spans_slice_back_to_texts_whatever_the_text(pieces: list[str]) -> None:
    text = "".join(pieces)
    sections = parse_sections(text)
    assert sections.reason in SECTION_REASONS
    assert {name: text[start:end] for name, (start, end) in sections.spans.items()} == sections.texts
    assert all(is_seen(inner) for inner in sections.texts.values())
    assert not any(tag in inner for inner in sections.texts.values() for tag in TAGS)
    assert sections.ok <= (tuple(sections.texts) == CONTEXT_THINK_ANSWER.names)


@given(st.tuples(section_texts, section_texts, section_texts), st.integers(min_value=0))
def test_every_proper_prefix_is_refused(inner: tuple[str, str, str], cut: int) -> None:
    """A parser that closes sections by itself at the end of the text would accept the last cuts."""
    text = CONTEXT_THINK_ANSWER.render(dict(zip(CONTEXT_THINK_ANSWER.names, inner, strict=True)))
    assert not parse_sections(text[: cut % len(text)]).ok


MEGABYTE = 1_000_000
# Each invites some pattern to backtrack, or some table to be walked once a tag.
HEAVY = {
    "prose": "The face looks calm. ",
    "chinese": "好",
    "brackets": "<",
    "slashes in one tag": "< " + "/ " * (MEGABYTE // 2),
    "spaces in one tag": "<" + " " * MEGABYTE,
    "names in one tag": "<" + "think" * (MEGABYTE // 5),
    "tags that open": "<think>",
    "tags that never end": "<think ",
    "whole sections": "<think>x</think>",
    "look-alikes": "＜ｔｈｉｎｋ＞",
    "invisible": "<\u200b" + "\u200b" * MEGABYTE,
    "blank section": "<context>" + "\u200b" * MEGABYTE + "</context>",
}


@pytest.mark.parametrize("kind", HEAVY)
def test_a_megabyte_is_parsed_soon(kind: str) -> None:
    text = (HEAVY[kind] * (MEGABYTE // len(HEAVY[kind]) + 1))[:MEGABYTE]
    with soon():
        assert not parse_sections(text).ok


def test_a_megabyte_in_good_form_is_parsed_in_less_than_a_second() -> None:
    text = GOOD.replace("Clapping", "Clapping 好 a < b > c " * (MEGABYTE // 21))
    with soon():
        assert parse_sections(text).ok


@pytest.mark.parametrize("names", [(), ("think", "think"), ("Think",), ("a b",), ("a|b",), ("",)])
def test_schema_refuses_names_that_are_no_tags(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="section name"):
        SectionSchema(names)


@pytest.mark.parametrize(
    "texts", [{"think": "x"}, {"think": " ", "answer": "A"}, {"think": "x</think>", "answer": "A"}, {}]
)
def test_render_refuses_what_would_not_parse(texts: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="texts"):
        THINK_ANSWER.render(texts)
