# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of the tokens that `generate` draws, noted while it draws them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from transformers import LogitsProcessor, LogitsProcessorList

from omni_grpo.rollout.prefill import is_token_by_token


class ChosenLogProbs(LogitsProcessor):
    """
    The last of the processors, which sees the scores `(B, V)` that a token is drawn from. Which one was drawn, it is told
    in the next call; so the scores of one step are kept, never those of a completion.
    """

    def __init__(self) -> None:
        self._scores: torch.Tensor | None = None
        self._width = 0
        self._noted: list[torch.Tensor] = []  # (B,) a step

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._note(input_ids)
        self._scores, self._width = scores, input_ids.size(1)
        return scores

    def _note(self, ids: torch.Tensor) -> None:
        if self._scores is not None and ids.size(1) > self._width:
            chosen = self._scores.gather(-1, ids[:, self._width, None])[:, 0]
            self._noted.append(chosen - self._scores.logsumexp(-1))

    def of(self, output: torch.Tensor) -> list[list[float]]:
        """Of all that `generate` returned `(B, P + T)`, prompts and what it filled up with included: `T` a row."""
        self._note(output)
        return torch.stack(self._noted, dim=1).tolist()


@contextmanager
def recording(model: Any) -> Iterator[ChosenLogProbs]:
    """Within: `model.generate` draws its tokens before the eyes of a recorder, behind temperature and all that cuts."""
    model = model.get_base_model() if isinstance(model, PeftModel) else model
    recorder, made = ChosenLogProbs(), model._get_logits_processor
    model._get_logits_processor = lambda *args, **kwargs: LogitsProcessorList([*made(*args, **kwargs), recorder])
    try:
        yield recorder
    finally:
        del model._get_logits_processor


def is_drawn(asked: Mapping[str, Any]) -> bool:
    """Whether `generate` draws each token from one distribution: no beams, no greedy search, no drafts."""
    config = asked.get("generation_config")
    value = {name: asked.get(name, getattr(config, name, None)) for name in ("do_sample", "num_beams")}
    return bool(value["do_sample"]) and value["num_beams"] in (None, 1) and is_token_by_token(asked)
