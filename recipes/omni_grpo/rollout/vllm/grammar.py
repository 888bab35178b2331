# SPDX-License-Identifier: Apache-2.0
"""
Constrained sections as a grammar of vLLM's engine: the same automaton that `generate` and scoring follow.

A grammar lives in the engine's core, which serves both model runners; logits processors of V1 are refused by V2. vLLM
masks before the softmax, so the log-probabilities that it gives are those over what was allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from omni_grpo.rollout.constrained.section_constraint import SectionConstraint
from omni_grpo.rollout.vllm.installed import from_vllm

ASKED = {
    "structured_outputs": {"regex": "sections"}
}  # what a request says; which grammar it gets, the backend decides


def hold_to(llm: Any, constraint: SectionConstraint) -> None:
    """From here on, requests of `llm` that ask for a structured output follow `constraint`."""
    manager = llm.llm_engine.engine_core.engine_core.structured_output_manager
    manager.backend = _backend(constraint)(llm.llm_engine.vllm_config, manager.tokenizer, constraint.vocab_size)


def _backend(constraint: SectionConstraint) -> type:
    """A backend of vLLM's whose every grammar is the constraint."""

    class Grammar(from_vllm("v1.structured_output.backend_types:StructuredOutputGrammar")):
        """The states behind each token so far, the start first."""

        def __init__(self) -> None:
            self.states = [constraint.start]

        def reset(self) -> None:
            del self.states[1:]

        def _follow(self, tokens: Sequence[int]) -> list[int]:
            """States behind those of `tokens` that are allowed."""
            state, found = self.states[-1], []
            for position, token in enumerate(tokens, start=len(self.states) - 1):
                if not constraint.allowed(constraint.mask(state, position))[token]:
                    break
                state = constraint.advance(state, position, token)
                found.append(state)
            return found

        def validate_tokens(self, tokens: list[int]) -> list[int]:
            return tokens[: len(self._follow(tokens))]

        def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
            found = self._follow(tokens)
            self.states += found
            return len(found) == len(tokens)

        def rollback(self, num_tokens: int) -> None:
            del self.states[len(self.states) - num_tokens :]

        def fill_bitmask(self, bitmask: torch.Tensor, batch_index: int) -> None:
            """Row `batch_index` of `bitmask` `(B, ⌈V / 32⌉)`: bit i of word w is token 32 w + i."""
            allowed = constraint.allowed(constraint.mask(self.states[-1], len(self.states) - 1))
            bits = np.packbits(np.pad(allowed, (0, 32 * bitmask.shape[1] - len(allowed))), bitorder="little")
            bitmask[batch_index] = torch.from_numpy(bits.view(np.int32))

        def is_terminated(self) -> bool:
            return self.states[-1] == constraint.done

    class Backend(from_vllm("v1.structured_output.backend_types:StructuredOutputBackend")):
        def compile_grammar(self, request_type: Any, grammar_spec: str, stop_token_ids: Any = None) -> Grammar:
            return Grammar()

        def allocate_token_bitmask(self, max_num_seqs: int) -> torch.Tensor:
            return torch.full((max_num_seqs, -(-self.vocab_size // 32)), -1, dtype=torch.int32)

        def destroy(self) -> None:
            pass

    return Backend
