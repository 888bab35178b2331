# SPDX-License-Identifier: Apache-2.0
"""
A section schema as an automaton over bytes: which completions the strict parser of `omni_rewards` accepts.

Two layers. `_Sections` reads characters: it knows tags, their look-alikes and whether a section holds anything that
can be seen. [`ByteAutomaton`] spreads it over UTF-8, since tokens may begin and end inside a character.
"""

from __future__ import annotations

from functools import lru_cache

from omni_grpo.rollout.constrained.language import PLAIN, is_ignored, is_plain, is_word, reserved_names, visible_table
from omni_rewards import SectionSchema
from omni_rewards._lookalikes import CLOSING_BRACKETS, OPENING_BRACKETS

DEAD = 0  # id of the state from which nothing is accepted
State = tuple[str, int, str]  # kind, index of the section, what was read of a tag


class _Sections:
    """
    The schema over characters. A state is one of

    - `("tag", s, read)`: `read` is the part of section s's opening tag that was written,
    - `("blank", s, "")`, `("text", s, "")`: inside section s, before and after its first visible character,
    - `("mark", s, read)`: behind an opening bracket inside section s. `read` is `<`, `</` and so on while its closing
      tag may come of it; `?` and the letters of a name while only a look-alike may; `!` where no closing bracket may,
    - `("end", S, "")`: all sections are closed.
    """

    def __init__(self, schema: SectionSchema, allow_blank: bool) -> None:
        self.names = schema.names
        self.inside = "text" if allow_blank else "blank"
        self.reserved = frozenset(reserved_names(schema))
        self.beginnings = frozenset(name[:i] for name in self.reserved for i in range(1, len(name) + 1))
        self.start = self._begin(0)

    def _begin(self, section: int) -> State:
        return ("tag", section, "") if section < len(self.names) else ("end", section, "")

    def step(self, state: State, character: str) -> State | None:
        kind, section, read = state
        if kind == "end":
            return None
        if kind == "tag":
            tag = f"<{self.names[section]}>"
            read += character
            if read == tag:
                return (self.inside, section, "")
            return ("tag", section, read) if tag.startswith(read) else None
        if kind == "mark":
            return self._step_mark(section, read, character)
        if character in OPENING_BRACKETS:  # while the section is blank, its closing tag may not come
            return ("mark", section, "<" if character == "<" and kind == "text" else "?")
        return ("text", section, "") if kind == "text" or visible_table()[ord(character)] else state

    def _step_mark(self, section: int, read: str, character: str) -> State | None:
        closing = f"</{self.names[section]}>"
        if closing.startswith(read + character):
            return self._begin(section + 1) if read + character == closing else ("mark", section, read + character)
        if character in OPENING_BRACKETS:  # begins anew, behind a bracket that was text
            return ("mark", section, "<" if character == "<" else "?")
        name, free = read.lstrip("</?!"), ("text", section, "")
        is_named = read == "!" or name in self.reserved
        if character in CLOSING_BRACKETS:
            return None if is_named else free
        if read == "!":
            return ("mark", section, "!")
        if not character.isascii():
            return free if is_plain(character) else ("mark", section, "!")
        if is_ignored(character):
            return ("mark", section, "?" + name)
        if is_word(character):
            name += character.lower()
            return ("mark", section, "?" + name) if name in self.beginnings else free
        return ("mark", section, "!") if is_named else free if name else ("mark", section, "?")


@lru_cache(maxsize=1)
def _utf8() -> tuple[list[str], list[tuple[bool, tuple[int, ...]]], dict[int, int]]:
    """
    Characters beyond ASCII as a tree of bytes, equal branches shared.

    Returns one character of each class that the automaton tells apart; nodes `(is_leaf, 64 entries)`, whose entries
    for the next byte are classes in a leaf and nodes elsewhere, -1 where UTF-8 has no such byte, children before
    parents; and the node behind each first byte.
    """
    apart = {ord(c) // 64 for c in f"{OPENING_BRACKETS}{CLOSING_BRACKETS}{''.join(PLAIN)}"}
    kinds: dict[object, int] = {}
    members: list[str] = []
    nodes: dict[tuple[bool, tuple[int, ...]], int] = {}
    leaves: dict[object, int] = {}

    def kind_of(character: str) -> int:
        is_bracket = character in OPENING_BRACKETS, character in CLOSING_BRACKETS
        kind = is_plain(character), is_bracket, visible_table()[ord(character)]
        if kind not in kinds:
            kinds[kind] = len(members)
            members.append(character)
        return kinds[kind]

    def node(is_leaf: bool, entries: tuple[int, ...]) -> int:
        return nodes.setdefault((is_leaf, entries), len(nodes))

    def leaf(block: int) -> int:  # 64 code points that differ in the last byte
        characters = [chr(64 * block + i) for i in range(64)]
        found = block if block in apart else (is_plain(characters[0]), visible_table()[64 * block : 64 * block + 64])
        if found not in leaves:
            leaves[found] = node(True, tuple(map(kind_of, characters)))
        return leaves[found]

    def third(group: int) -> int:  # 4096 code points; no over-long forms, no surrogates
        blocks = range(64 * group, 64 * group + 64)
        return node(False, tuple(-1 if b < 32 or 0xD800 <= 64 * b < 0xE000 else leaf(b) for b in blocks))

    first = {0xC0 + block: leaf(block) for block in range(2, 32)}
    first |= {0xE0 + group: third(group) for group in range(16)}
    for plane in range(5):
        groups = range(64 * plane, 64 * plane + 64)
        first[0xF0 + plane] = node(False, tuple(third(g) if 16 <= g < 272 else -1 for g in groups))
    return members, list(nodes), first


class ByteAutomaton:
    """
    Deterministic automaton over the bytes of a completion.

    Args:
        schema ([`SectionSchema`]): The sections.
        allow_blank (`bool`): Whether a section may be left empty.

    Attributes:
        start, end (`int`): States of the empty text and of a complete one.
        next (`list[list[int]]`): State after a byte, `[state][byte]`; [`DEAD`] where no completion begins so.
        section (`list[int]`): Index of the section in which a state stands; the number of sections for `end`.

    >>> automaton = ByteAutomaton(SectionSchema(("answer",)))
    >>> automaton.read(b"<answer>B</answer>") == automaton.end, automaton.read(b"<answer> </answer>") == automaton.end
    (True, False)
    """

    def __init__(self, schema: SectionSchema, allow_blank: bool = False) -> None:
        sections = _Sections(schema, allow_blank)
        self.next: list[list[int]] = [[DEAD] * 256]
        self.section: list[int] = [0]
        ids: dict[State, int] = {}
        todo: list[State] = []

        def id_of(state: State | None) -> int:
            if state is None:
                return DEAD
            if state not in ids:
                ids[state] = self._add(state[1])
                todo.append(state)
            return ids[state]

        self.start = id_of(sections.start)
        members, nodes, first = _utf8()
        shared: dict[tuple[int, ...], int] = {}
        for state in iter(lambda: todo.pop() if todo else None, None):
            row = self.next[ids[state]]
            for byte in range(128):
                row[byte] = id_of(sections.step(state, chr(byte)))
            after = tuple(id_of(sections.step(state, member)) for member in members)
            if any(after):
                places = self._spread(after, nodes, shared, state[1])
                for byte, place in first.items():
                    row[byte] = places[place]
        self.end = ids["end", len(schema.names), ""]

    def _add(self, section: int) -> int:
        self.next.append([DEAD] * 256)
        self.section.append(section)
        return len(self.next) - 1

    def _spread(self, after: tuple[int, ...], nodes: list, shared: dict, section: int) -> list[int]:
        """States inside a character, one for each node, for a state that goes to `after[class]`; equal ones shared."""
        places: list[int] = []
        for is_leaf, entries in nodes:
            source = after if is_leaf else places
            row = tuple(DEAD if entry < 0 else source[entry] for entry in entries)
            if row not in shared:
                shared[row] = self._add(section) if any(row) else DEAD
                self.next[shared[row]][128:192] = row
            places.append(shared[row])
        return places

    def read(self, text: bytes, state: int | None = None) -> int:
        """State after `text`, from `state` or from the start."""
        state = self.start if state is None else state
        for byte in text:
            state = self.next[state][byte]
        return state


@lru_cache(maxsize=8)
def byte_automaton(schema: SectionSchema, allow_blank: bool = False) -> ByteAutomaton:
    """The schema's automaton, built once a process."""
    return ByteAutomaton(schema, allow_blank)
