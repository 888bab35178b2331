# SPDX-License-Identifier: Apache-2.0
"""Whether the media of a prompt reach the pass that scores its completion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from omni_grpo.data.encoding.inputs import EncodedPrompt
from omni_grpo.families import Family
from omni_grpo.rollout.record import Row

CERTAIN = 1e-6  # nats: tokens whose probability is 1 cannot move


class CausalProbe:
    """
    Scores one row of each process twice in one small pass, as it is and with its media exchanged. Log-probabilities that
    do not move at all have not seen them. The row is the one of which the sampler was least certain.

    All processes probe together; one without media gives a row of text, which is not judged.

    Args:
        accelerator (`Accelerator`): The run's.
        family ([`Family`]): The model's.
        every (`int`): Steps between two probes; 0 for none.
        score (`Callable`): Prompts and completions to log-probabilities `(B, T)`, without dropout.
        metric (`Callable`): Takes mode, name and value of what is logged: `agreement/causal_probe`, the largest change
            in nats, mean over the processes that were judged.
    """

    def __init__(
        self, accelerator: Any, family: Family, every: int, score: Callable[..., torch.Tensor], metric: Callable
    ) -> None:
        self.accelerator, self.family, self.every, self.score, self.metric = accelerator, family, every, score, metric
        self._due = 0

    def __call__(self, rows: Sequence[Row], step: int) -> tuple[Row, torch.Tensor] | None:
        """
        Probe, if it is time; gives the row and its log-probabilities `(1, T)`.

        Raises:
            `RuntimeError`: The media of a row move nothing.
        """
        if not self.every or step < self._due:
            return None
        row = max(rows, key=lambda row: (any(row.prompt.counts.values()), -sum(row.logprobs or ())))
        has_media = any(row.prompt.counts.values())
        prompts = [row.prompt, exchanged(row.prompt, self.family)]
        scores = self.score(prompts, [row.completion_ids] * 2)
        moved = (scores[0] - scores[1]).abs().max()
        judged = has_media and bool((scores.abs() > CERTAIN).any())
        told = self.accelerator.gather(
            torch.stack([moved.new_tensor(has_media), moved.new_tensor(judged), moved])[None]
        )
        if told[:, 0].any():  # else the next batch may have some
            self._due = step + self.every
        changes = told[told[:, 1] > 0, 2]
        if len(changes):
            self.metric("train", "agreement/causal_probe", changes.mean().item())
        if (changes == 0).any():
            raise RuntimeError(
                "causal_probe_steps: with other media in its prompt, a completion kept each log-probability to the last "
                f"bit (this process's row: {row.name!r}, moved by {moved.item():.2g}): scoring does not see the media"
            )
        return row, scores[:1]


def exchanged(prompt: EncodedPrompt, family: Family) -> EncodedPrompt:
    """The same prompt with other media of the same sizes: every feature x, of the processor and of the towers, is 1 − x."""
    names = [family.inputs[m][0] for m in family.modalities]
    media = {name: 1 - values if name in names else values for name, values in prompt.media.items()}
    features = {m: None if found is None else 1 - found for m, found in prompt.features.items()}
    return replace(prompt, media=media, features=features, items={})  # without items it is known by itself
