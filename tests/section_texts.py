# SPDX-License-Identifier: Apache-2.0
"""Texts that are well-formed or nearly so, and completions of random choices."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from hypothesis import strategies as st

from omni_rewards import CONTEXT_THINK_ANSWER, THINK_ANSWER, SectionSchema

SCHEMAS = [CONTEXT_THINK_ANSWER, THINK_ANSWER, SectionSchema(("plan", "planning", "answer"))]

# What lies near a tag: its parts, look-alikes in other scripts and cases, what cannot be seen, whole tags.
PARTS = [
    "<",
    "</",
    ">",
    "/",
    "\\",
    "=",
    "1",
    "_",
    "think",
    "Think",
    "context",
    "plan",
    "planning",
    "ning",
    "thin",
    "answe",
    "x",
    "é",
    "日",
    "标",
    "が",
    "🎉",
    "〈",
    "〉",
    "‹",
    "＞",
    "＜",
    "≮",
    "а",
    "к",
    "ſ",
    "ı",
    "K",
    "½",
    "ﬁ",
]
PARTS += [" ", "\n", "\u3000", "\x1c", "\x00", "\u200b", "\u0301", "\u0600", "\u0e00", "\u3164", "\ufe0f", "\u2800"]
PARTS += [
    "<Think>",
    "</answer >",
    "<plan",
    "<//think/",
    "< context",
    "<think id=1>",
    "＜think＞",
    "<\u200bthink>",
    "〈標題〉",
]


@st.composite
def near_misses(draw):
    """A schema and a text that is well-formed or nearly so."""
    schema = draw(st.sampled_from(SCHEMAS))
    content = st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=2)), max_size=5).map("".join)
    parts = [part for name in schema.names for part in (f"<{name}>", draw(content), f"</{name}>")]
    if draw(st.integers(0, 3)) == 0:
        parts.insert(draw(st.integers(0, len(parts))), draw(st.one_of(content, st.sampled_from(parts))))
    return schema, "".join(parts)


def sampled(constraint: Any, seed: int, limit: int = 10_000) -> list[int]:
    """A completion of random choices; a tenth of them tries to close the section."""
    chance, ids, state = random.Random(seed), [], constraint.start
    marks = np.array([bool(text) and text[:1] in b"</" for text in constraint.paths.table])
    while state != constraint.done and len(ids) < limit:
        allowed = constraint.allowed(constraint.mask(state, len(ids)))
        ways = np.flatnonzero(allowed & marks) if chance.random() < 0.1 else np.array([], dtype=int)
        ways = ways if len(ways) else np.flatnonzero(allowed)
        assert len(ways), "a dead end"
        ids.append(int(ways[chance.randrange(len(ways))]))
        state = constraint.advance(state, len(ids) - 1, ids[-1])
    return ids
