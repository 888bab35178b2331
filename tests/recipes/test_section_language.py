# SPDX-License-Identifier: Apache-2.0
"""The language of constrained decoding: automaton, regular expression and strict parser, held against each other."""

from __future__ import annotations

import re
from unicodedata import category

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_grpo import section_pattern
from omni_grpo.rollout.constrained.automaton import DEAD, ByteAutomaton
from omni_grpo.rollout.constrained.language import PLAIN
from omni_rewards import CONTEXT_THINK_ANSWER, THINK_ANSWER, SectionSchema, parse_sections
from omni_rewards._lookalikes import CLOSING_BRACKETS, OPENING_BRACKETS, fold
from section_texts import PARTS, SCHEMAS, near_misses

AUTOMATA = {schema: ByteAutomaton(schema) for schema in SCHEMAS}


def well_formed(schema, text) -> bool:
    """What the strict parser takes, less the white space that it forgives around sections."""
    parsed = parse_sections(text, schema)
    return parsed.ok and schema.render(parsed.texts) == text


@given(near_misses())
@settings(max_examples=800)
def test_automaton_pattern_and_strict_parser_agree(case):
    """Automaton = regular expression; all of it is well-formed; and all that is well-formed, but for one rule, is in it."""
    schema, text = case
    automaton = AUTOMATA[schema]
    is_written = automaton.read(text.encode()) == automaton.end
    assert bool(re.fullmatch(section_pattern(schema), text)) == is_written
    assert well_formed(schema, text) or not is_written
    doubtful = re.search(
        rf"[{OPENING_BRACKETS}][^{OPENING_BRACKETS}]*[^\x00-\x7f一-鿿][^{OPENING_BRACKETS}]*[{CLOSING_BRACKETS}]", text
    )
    if not doubtful:  # no sign beyond ASCII and ideographs stands in brackets
        assert is_written == well_formed(schema, text)


@pytest.mark.parametrize(
    ("content", "is_written"), [("a < β > c", False), ("a < b > c", True), ("〈標題〉", True), ("β > c", True)]
)
def test_the_one_rule_by_which_less_is_written(content, is_written):
    schema = SectionSchema(("answer",))
    text = f"<answer>{content}</answer>"
    assert well_formed(schema, text)
    assert bool(re.fullmatch(section_pattern(schema), text)) == is_written


def test_what_can_be_seen_is_what_the_parser_sees():
    """Every character at which its category changes, and its neighbours."""
    schema = SectionSchema(("answer",))
    automaton, pattern = ByteAutomaton(schema), re.compile(section_pattern(schema))
    kinds = [category(chr(c))[0] for c in range(0x110000)]
    codes = {c for c in range(1, 0x110000) if kinds[c] != kinds[c - 1]} | set(map(ord, "".join(PARTS)))
    codes = {c + d for c in codes for d in (-1, 0, 1)} - set(range(0xD800, 0xE000)) - {-1, 0x110000}
    for code in codes:
        text = f"<answer>{chr(code)}</answer>"
        assert (automaton.read(text.encode()) == automaton.end) == well_formed(schema, text), hex(code)
        assert bool(pattern.fullmatch(text)) == well_formed(schema, text), hex(code)
    assert len(codes) > 1500


def test_what_ends_a_tag_in_the_making_ends_it_for_the_parser_too():
    """Ideographs, kana and Hangul, every one: none is folded to a letter, or to nothing."""
    for first, last in PLAIN:
        for code in range(ord(first), ord(last) + 1):
            folded = fold(chr(code))
            assert re.match(r"\w", folded) and not re.match(r"[a-z0-9_]", folded, re.IGNORECASE), hex(code)


@given(st.binary(max_size=6))
def test_bytes_that_are_no_text_lead_nowhere(noise):
    automaton = AUTOMATA[THINK_ANSWER]
    for tail in (b"", b"<", b"</think>"):
        try:
            (noise + tail).decode()
        except UnicodeDecodeError:
            state = automaton.read(b"<think>x" + noise + b"</think><answer>x</answer>")
            assert state == DEAD or state != automaton.end


def test_the_pattern_has_no_lookaround_and_no_named_classes():
    pattern = section_pattern(CONTEXT_THINK_ANSWER)
    assert not re.search(r"\(\?(?!:)|\\[pP1-9]", pattern)
    blank = section_pattern(CONTEXT_THINK_ANSWER, allow_blank=True)
    text = "<context></context><think> </think><answer></answer>"
    assert re.fullmatch(blank, text) and not re.fullmatch(pattern, text)
