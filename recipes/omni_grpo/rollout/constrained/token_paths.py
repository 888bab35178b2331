# SPDX-License-Identifier: Apache-2.0
"""An automaton over bytes, walked in the tokens of a vocabulary."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from omni_grpo.rollout.constrained.automaton import DEAD, ByteAutomaton

NEVER = 1 << 30  # later than any position
Ways = tuple[np.ndarray, np.ndarray, frozenset[int]]  # token ids, the states behind them, those that are distinct


class TokenPaths:
    """
    Where the tokens of a vocabulary lead in a [`ByteAutomaton`]; after its end, an end token leads to `done`.

    A token's way depends on its first byte's state alone, so each (state, first byte) is walked once for all its
    tokens: a vocabulary of 150,000 takes a second or two.

    Args:
        automaton ([`ByteAutomaton`]): The language.
        table (sequence of `bytes` or `None`): Bytes of each token; `None` or empty: never allowed.
        end_ids (collection of `int`): Tokens that end a completion.
    """

    def __init__(self, automaton: ByteAutomaton, table: Sequence[bytes | None], end_ids: Collection[int]) -> None:
        self.automaton, self.end_ids, self.size = automaton, frozenset(end_ids), len(table)
        self.table = [None if i in self.end_ids else text or None for i, text in enumerate(table)]
        self.done = len(automaton.next)
        self._next = np.array(automaton.next, dtype=np.int32)
        grouped: dict[int, list[int]] = defaultdict(list)
        for i, text in enumerate(self.table):
            if text:
                grouped[text[0]].append(i)
        self._groups = {byte: self._pack(ids) for byte, ids in grouped.items()}
        self._walked: dict[tuple[int, int], Ways] = {}
        self.successors = self._reach()

    def _pack(self, ids: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens of a group, longest first: ids `(n,)`, bytes behind the first `(n, longest)`, how many are so long."""
        ids.sort(key=lambda i: -len(self.table[i] or b""))
        rest = [(self.table[i] or b"")[1:] for i in ids]
        longest = len(rest[0])
        padded = np.frombuffer(b"".join(r.ljust(longest, b"\0") for r in rest), dtype=np.uint8)
        lengths = np.array([len(r) for r in rest])
        return np.array(ids), padded.reshape(len(ids), longest), (lengths[:, None] > np.arange(longest)).sum(0)

    def ways(self, state: int) -> Iterator[Ways]:
        """What may follow `state`, in groups of tokens with a common first byte."""
        if state == self.automaton.end:
            ids = np.array(sorted(self.end_ids), dtype=int)
            yield ids, np.full(len(ids), self.done), frozenset([self.done] * bool(len(ids)))
        elif state != self.done:
            row = self.automaton.next[state]
            yield from (self._walk(row[byte], byte) for byte in self._groups if row[byte] != DEAD)

    def _walk(self, state: int, byte: int) -> Ways:
        """From `state`, in which the group's first byte has been read already."""
        if (state, byte) not in self._walked:
            ids, rest, reaching = self._groups[byte]
            states = np.full(len(ids), state, dtype=np.int32)
            for j, n in enumerate(reaching):
                states[:n] = self._next[states[:n], rest[:n, j]]
            self._walked[state, byte] = ids, states, frozenset(np.unique(states).tolist()) - {DEAD}
        return self._walked[state, byte]

    def _reach(self) -> dict[int, frozenset[int]]:
        """Successors of each state that whole tokens can reach."""
        found: dict[int, frozenset[int]] = {}
        todo = [self.automaton.start]
        while todo:
            state = todo.pop()
            if state not in found:
                found[state] = frozenset().union(*(distinct for _, _, distinct in self.ways(state)))
                todo += found[state]
        return found

    def advance(self, state: int, token: int) -> int:
        """State behind `token`, [`DEAD`] if no completion goes so; `done` is left by no token."""
        if state == self.done or (state == self.automaton.end and token in self.end_ids):
            return self.done
        text = self.table[token] if token < self.size else None
        return self.automaton.read(text, state) if text else DEAD

    def latest_positions(self, limits: Sequence[int]) -> np.ndarray:
        """
        Last position at which each state may stand and still end in time, `-NEVER` where no way leads to the end.

        Args:
            limits (sequence of `int`): Last position that may stand in each section, at the end, and at `done`.
        """
        latest = np.full(self.done + 1, -NEVER, dtype=np.int32)
        before: dict[int, list[int]] = defaultdict(list)
        for state, successors in self.successors.items():
            for successor in successors:
                before[successor].append(state)
        section = [*self.automaton.section, len(limits) - 1]
        heap = [(-limits[-1], self.done)]
        while heap:  # from the end backwards, latest first: each state is settled once
            value, state = heapq.heappop(heap)
            if latest[state] != -NEVER:
                continue
            latest[state] = -value
            for previous in before[state]:
                if latest[previous] == -NEVER:
                    heapq.heappush(heap, (-min(-value - 1, limits[section[previous]]), previous))
        return latest
