# SPDX-License-Identifier: Apache-2.0
"""A completion cut into what stands in a section, what is a tag, and what is outside, as the credit sees it."""

from __future__ import annotations

from collections.abc import Iterable

from omni_rewards import (
    CONTEXT_THINK_ANSWER,
    SUMMARY_CAPTION_REASONING_CONCLUSION,
    THINK_ANSWER,
    SectionSchema,
    parse_sections,
)

TAG_OR_OUTSIDE = ("tag", "outside")


def schema_of_columns(columns: Iterable[str]) -> SectionSchema:
    """
    The sections of a completions table: those of its `advantage_<section>` columns, else the known schema whose names
    it has as columns, else context, think, answer.

    >>> schema_of_columns(["prompt", "advantage_plan", "advantage_answer", "advantage_tag", "advantage"]).names
    ('plan', 'answer')
    """
    names = list(columns)
    own = [name.removeprefix("advantage_") for name in names if name.startswith("advantage_")]
    if sections := tuple(name for name in own if name not in TAG_OR_OUTSIDE):
        return SectionSchema(sections)
    known = (CONTEXT_THINK_ANSWER, SUMMARY_CAPTION_REASONING_CONCLUSION, THINK_ANSWER)
    return next((schema for schema in known if set(schema.names) <= set(names)), CONTEXT_THINK_ANSWER)


def segments(text: str, schema: SectionSchema) -> list[tuple[str, str]]:
    """
    `(place, text)` from left to right; the texts joined are `text`.

    A place is a section, `tag` for the two tags of a section, or `outside` for all else: in a malformed completion that
    includes every tag that does not close a section of its own.

    >>> segments("Well: <think>a</think><answer>", THINK_ANSWER)
    [('outside', 'Well: '), ('tag', '<think>'), ('think', 'a'), ('tag', '</think>'), ('outside', '<answer>')]
    """
    pieces: list[tuple[str, str]] = []
    position = 0
    for name, (start, end) in sorted(parse_sections(text, schema).spans.items(), key=lambda item: item[1]):
        opening, closing = start - len(f"<{name}>"), end + len(f"</{name}>")
        pieces += [
            ("outside", text[position:opening]),
            ("tag", text[opening:start]),
            (name, text[start:end]),
            ("tag", text[end:closing]),
        ]
        position = closing
    pieces.append(("outside", text[position:]))
    return [(place, piece) for place, piece in pieces if piece]
