# SPDX-License-Identifier: Apache-2.0
"""Which tokens may come next, so that a completion ends well-formed and in time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np

from omni_grpo.rollout.constrained.automaton import DEAD, byte_automaton
from omni_grpo.rollout.constrained.token_bytes import token_bytes
from omni_grpo.rollout.constrained.token_paths import NEVER, TokenPaths
from omni_rewards import CONTEXT_THINK_ANSWER, SectionSchema

MODES = ("none", "force_tags", "strict")
Mask = tuple[int, int]  # state, and how many of the deadlines behind it have passed; names a set of allowed tokens


class SectionConstraint:
    """
    A section schema over the tokens of a vocabulary.

    A completion is a path through an automaton. Every state has a last position from which the shortest way to the
    end, in tokens of this vocabulary, still keeps to each section's budget and to the completion's length. A token is
    allowed at position t if the state behind it may stand at t + 1; so no allowed token leads into a dead end.

    Args:
        table (sequence of `bytes` or `None`): Bytes of each token id, from [`~omni_grpo.rollout.constrained.token_bytes.token_bytes`].
        end_ids (collection of `int`): Tokens that end a completion.
        schema ([`SectionSchema`]): The sections.
        max_tokens (`int`): Longest completion, end token included.
        mode (`str`):
            `strict`: the sections in order, none of them empty, nothing around them, complete within `max_tokens`.
            `force_tags`: tags stand only where the schema wants them and the end token only behind the last, but a
            section may be empty, and a completion is cut at `max_tokens` wherever it is.
        budgets (sequence of `int`, *optional*):
            Tokens that each section may take in `strict`, its tags included; what it leaves, the next may use. By
            default each may take all that the shortest rest does not need.
        forbidden (collection of `int`): Tokens that are never allowed, such as media marks.

    Raises:
        `ValueError`: No completion keeps to the limits, or the vocabulary cannot spell the schema's tags.
    """

    def __init__(
        self,
        table: Sequence[bytes | None],
        end_ids: Collection[int],
        schema: SectionSchema = CONTEXT_THINK_ANSWER,
        max_tokens: int = 256,
        mode: str = "strict",
        budgets: Sequence[int] | None = None,
        forbidden: Collection[int] = (),
    ) -> None:
        if mode not in MODES[1:]:
            raise ValueError(f"mode {mode!r} is unknown; one of {', '.join(MODES[1:])}")
        self.vocab_size = len(table)
        banned = set(forbidden)
        self.paths = TokenPaths(
            byte_automaton(schema, allow_blank=mode == "force_tags"),
            [None if i in banned else text for i, text in enumerate(table)],
            {i for i in end_ids if 0 <= i < len(table)} - banned,
        )
        self.start, self.done = self.paths.automaton.start, self.paths.done
        self.latest = self.paths.latest_positions(_limits(schema, max_tokens, mode, budgets))
        self._check(schema, max_tokens, mode, budgets)
        if mode == "force_tags":  # no hurry, only ways that lead nowhere
            self.latest[self.latest > -NEVER] = NEVER
        self._thresholds: dict[int, list[int]] = {}
        self._row = lru_cache(maxsize=64)(self._latest_behind)
        self.allowed = lru_cache(maxsize=512)(self._allowed)
        self.shorter = lru_cache(maxsize=512)(self._shorter)
        self.count = lru_cache(maxsize=None)(lambda mask: int(self.allowed(mask).sum()))
        self.trace = lru_cache(maxsize=4096)(self._trace)

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, vocab_size: int | None = None, end_ids: Any = None, **kwargs: Any):
        """The same for a tokenizer; `vocab_size` is the width of the model's logits, `end_ids` default to its `eos`."""
        ends = [tokenizer.eos_token_id] if end_ids is None else end_ids
        return cls(token_bytes(tokenizer, vocab_size), ends, **kwargs)

    def _check(self, schema: SectionSchema, max_tokens: int, mode: str, budgets: Sequence[int] | None) -> None:
        if self.latest[self.start] >= (0 if mode == "strict" else 1 - NEVER):
            return
        shortest = -int(self.paths.latest_positions([0] * (len(schema.names) + 2))[self.start])
        if shortest == NEVER:
            raise ValueError(
                f"this vocabulary cannot spell the tags of {', '.join(schema.names)}, or has no end token"
            )
        raise ValueError(
            f"no completion keeps to max_tokens={max_tokens}, budgets={budgets and list(budgets)}: in this vocabulary "
            f"the shortest takes {shortest} tokens, its end token included"
        )

    def _latest_behind(self, state: int) -> np.ndarray:
        """`latest` of the state behind each token `(V,)`."""
        row = np.full(self.vocab_size, -NEVER, dtype=np.int32)
        for ids, states, _ in self.paths.ways(state):
            row[ids] = np.where(states == DEAD, -NEVER, self.latest[states])
        return row

    def mask(self, state: int, position: int) -> Mask:
        """Name of the set of tokens that may stand at `position` (counted from the completion's start) in `state`."""
        if state not in self._thresholds:
            values = {int(self.latest[s]) for s in self.paths.successors.get(state, ())}
            self._thresholds[state] = sorted(value for value in values if value > 0)
        return state, bisect_right(self._thresholds[state], position)

    def _allowed(self, mask: Mask) -> np.ndarray:
        """The set itself, `(V,)`, true where allowed."""
        state, passed = mask
        left = self._thresholds[state][passed:]
        return self._row(state) >= left[0] if left else np.zeros(self.vocab_size, dtype=bool)

    def _shorter(self, mask: Mask) -> tuple[bool, np.ndarray]:
        """The set as ids: true and the allowed ones, or false and the others, whichever are fewer."""
        allowed = self.allowed(mask)
        is_allowed = 2 * self.count(mask) < self.vocab_size
        return is_allowed, np.flatnonzero(allowed if is_allowed else ~allowed)

    def advance(self, state: int, position: int, token: int) -> int:
        """
        State behind `token`.

        Raises:
            `ValueError`: It is not allowed at `position`, so the completion was sampled in another way.
        """
        following = self.paths.advance(state, token)
        if following == DEAD or (state != self.done and self.latest[following] <= position):
            raise ValueError(
                f"token {token} is not allowed at position {position} of its completion: it was not sampled under "
                "the constraint that meets it now"
            )
        return following

    def _trace(self, completion: tuple[int, ...]) -> tuple[Mask, ...]:
        """The masks under which the tokens of a completion were sampled; raises `ValueError` if one was not."""
        masks, state = [], self.start
        for position, token in enumerate(completion):
            masks.append(self.mask(state, position))
            state = self.advance(state, position, token)
        return tuple(masks)

    def choices(self, completion: Sequence[int]) -> list[int]:
        """1 for each token that was chosen among several, 0 where the mask left one."""
        return [int(self.count(mask) > 1) for mask in self.trace(tuple(completion))]


def _limits(schema: SectionSchema, max_tokens: int, mode: str, budgets: Sequence[int] | None) -> list[int]:
    """Last position that may stand in each section, behind the last one, and behind the end token."""
    sections = len(schema.names)
    ends = [max_tokens] * sections
    if budgets is not None and mode == "strict":
        if len(budgets) != sections or min(budgets) < 1 or sum(budgets) >= max_tokens:
            raise ValueError(
                f"budgets {list(budgets)}: give one number of tokens for each of {', '.join(schema.names)}, together "
                f"less than the {max_tokens} of a completion, which ends with one more"
            )
        ends = list(accumulate(budgets))
    return [end - 1 for end in ends] + [max_tokens - 1, max_tokens]
