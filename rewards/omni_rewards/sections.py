# SPDX-License-Identifier: Apache-2.0
"""One strict parser for sectioned completions, shared by rewards, data conversion and evaluation."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ._lookalikes import is_blank
from ._tags import Tag, scan_tags

SECTION_REASONS: dict[str, str] = {
    "ok": "every section of the schema once, in order, with text in it and nothing around it",
    "missing_section": "a section of the schema is absent",
    "wrong_order": "a section is opened before the one that must precede it",
    "repeated_section": "a section is opened again after it was closed",
    "empty_section": "a section holds nothing that can be seen",
    "text_outside": "text stands before, between or after the sections",
    "nested_tag": "a section tag, or a look-alike such as `</Think >` or `＜think＞`, stands inside an open section",
    "stray_tag": "a closing tag, a look-alike or a tag foreign to the schema stands outside the sections",
    "truncated": "the text ends inside a section or inside the next opening tag, and nothing before is wrong",
}


@dataclass(frozen=True)
class SectionSchema:
    """
    Names of the sections a completion must have, in order.

    Args:
        names (`tuple[str, ...]`):
            Tag names: lower-case letters, digits and underscores, starting with a letter, each once.

    Raises `ValueError` if there is no name, a repeated one, or one that is no tag name.

    >>> SectionSchema(("plan", "answer")).render({"plan": "Look first.", "answer": "B"})
    '<plan>Look first.</plan><answer>B</answer>'
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError(f"section names must be given and differ, got {self.names}")
        for name in self.names:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"section name {name!r} must match [a-z][a-z0-9_]*")

    def render(self, texts: Mapping[str, str]) -> str:
        """
        The well-formed text of `texts`, one entry per section; `parse_sections` gives the same texts back.

        Raises `ValueError` if the keys are not the schema's names or a text is empty or holds a section tag.
        """
        if set(texts) != set(self.names):
            raise ValueError(f"expected texts for {list(self.names)}, got {sorted(texts)}")
        rendered = "".join(f"<{name}>{texts[name]}</{name}>" for name in self.names)
        parsed = parse_sections(rendered, self)
        if not parsed.ok:
            raise ValueError(f"these texts do not make a well-formed completion: {parsed.reason}")
        return rendered


CONTEXT_THINK_ANSWER = SectionSchema(("context", "think", "answer"))
THINK_ANSWER = SectionSchema(("think", "answer"))
# LLaVA-CoT (https://huggingface.co/papers/2411.10440), whose own data write these tags in capitals.
SUMMARY_CAPTION_REASONING_CONCLUSION = SectionSchema(("summary", "caption", "reasoning", "conclusion"))


@dataclass(frozen=True)
class Sections:
    """
    What `parse_sections` found.

    Attributes:
        ok (`bool`): Whether the text is well formed.
        reason (`str`): `"ok"`, or the first defect from left to right: a key of `SECTION_REASONS`.
        texts (`dict[str, str]`): Inner text by section name, whitespace kept, in order of appearance.
        spans (`dict[str, tuple[int, int]]`): `(start, end)` of each inner text in characters of the parsed text.

    When not `ok`, `texts` and `spans` hold only the sections that are complete and unambiguous. A section is so when
    its opening and its closing tag occur exactly once in the text, look-alikes counted; no section tag stands between
    them; its text is not empty; and it is outside every other section: the section tag before it, if there is one,
    closes, and the one after it, if there is one, opens.
    """

    ok: bool
    reason: str
    texts: dict[str, str]
    spans: dict[str, tuple[int, int]]


def parse_sections(text: str, schema: SectionSchema = CONTEXT_THINK_ANSWER) -> Sections:
    """
    Reads a sectioned text strictly: each section exactly once, in order, not empty, only whitespace around them.

    Any section tag in the wrong place refuses the text, and so does what looks like one: in another case, with spaces,
    slashes or attributes (`< /Answer>`, `<answer id=1>`), in letters or brackets of another script, with invisible
    characters in it. Other markup and comparison signs are plain text. Takes time linear in the text. Never raises.

    Args:
        text (`str`):
            The completion.
        schema (`SectionSchema`, *optional*, defaults to `CONTEXT_THINK_ANSWER`):
            The sections to expect.

    >>> parse_sections("<context>A man shouts.</context><think>He is angry.</think><answer>B</answer>").texts["answer"]
    'B'
    >>> parse_sections("<think>He is angry.</think><answer>B</answer> or <answer>C</answer>", THINK_ANSWER).reason
    'text_outside'
    >>> parse_sections("<context>A man shouts.</context><think>He is").reason
    'truncated'
    """
    read = _read if len(text) > _MAX_REMEMBERED_LENGTH else _read_and_remember
    reason, found = read(text, schema)
    spans = dict(found)
    texts = {name: text[start:end] for name, (start, end) in found.items()}
    return Sections(ok=reason == "ok", reason=reason, texts=texts, spans=spans)


def _read(text: str, schema: SectionSchema) -> tuple[str, Mapping[str, tuple[int, int]]]:
    tags = find_tags(text, schema)
    return _first_defect(text, tags, schema), _complete_spans(text, tags)


# The rewards, the credit and the table of a step read the same texts one after another.
_MAX_REMEMBERED_LENGTH = 8192  # characters: of longer texts so many would fill the memory
_read_and_remember = lru_cache(maxsize=8192)(_read)


def find_tags(text: str, schema: SectionSchema) -> list[Tag]:
    """Every section tag in `text` and everything that looks like one, from left to right."""
    return scan_tags(text, schema.names)


def _first_defect(text: str, tags: Sequence[Tag], schema: SectionSchema) -> str:
    done = 0  # sections closed so far, hence the index of the one expected next
    opened: Tag | None = None
    position = 0
    for index, tag in enumerate(tags):
        if opened is not None:
            if not (tag.is_exact and tag.closes and tag.name == opened.name):
                return "nested_tag"
            if is_blank(text[opened.end : tag.start]):
                return "empty_section"
            opened, done, position = None, done + 1, tag.end
            continue
        if text[position : tag.start].strip():
            return "text_outside"
        if not tag.is_exact or tag.closes:
            return "stray_tag"
        if tag.name in schema.names[:done]:
            return "repeated_section"
        if tag.name != schema.names[done]:
            comes_later = any(t.is_exact and not t.closes and t.name == schema.names[done] for t in tags[index:])
            return "wrong_order" if comes_later else "missing_section"
        opened = tag
    if opened is not None:
        return "truncated"
    tail = text[position:].lstrip()
    if done == len(schema.names):
        return "text_outside" if tail else "ok"
    return "truncated" if tail and f"<{schema.names[done]}>".startswith(tail) else "missing_section"


def _complete_spans(text: str, tags: Sequence[Tag]) -> dict[str, tuple[int, int]]:
    counts = Counter(tag.name for tag in tags)
    around: list[Tag | None] = [None, *tags, None]
    spans: dict[str, tuple[int, int]] = {}
    for before, opening, closing, after in zip(around, tags, tags[1:], around[3:], strict=False):
        is_pair = opening.is_exact and closing.is_exact and not opening.closes and closing.closes
        is_outside = (before is None or before.closes) and (after is None or not after.closes)
        is_single = opening.name == closing.name and counts[opening.name] == 2
        if is_pair and is_outside and is_single and not is_blank(text[opening.end : closing.start]):
            spans[opening.name] = (opening.end, closing.start)
    return spans
