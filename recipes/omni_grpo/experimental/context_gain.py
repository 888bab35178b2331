# SPDX-License-Identifier: Apache-2.0
r"""
Context gain: how much likelier the media make the context that was written. It needs the model, and no judge.

For the tokens $$C$$ of a completion's context, with $$x$$ the prompt and $$x_0$$ the same prompt without its media:

$$\frac{1}{|C|} \sum_{t \in C} \log \pi(o_t \mid x, o_{<t}) - \log \pi(o_t \mid x_0, o_{<t})$$

in nats a token. Its sum over the tokens is the pointwise mutual information of context and media, given the question:
0 for a context that can be written from the question alone, and negative for one that the media speak against.

*Without its media* means that the parts are taken out of the messages before the chat template is applied: neither
placeholders nor the marks around them are left, and text moves up to their positions. Nothing stands in their place,
so no tower runs. The system turn, the question and its options are the same to the letter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from omni_grpo.credit.section_masks import places_of
from omni_grpo.data.encoding.encoder import PromptEncoder
from omni_grpo.data.encoding.inputs import EncodedPrompt
from omni_grpo.data.rows.prompts import Messages, as_parts
from omni_grpo.rollout.record import Row
from omni_rewards import SectionSchema

SECTION = "context"


class ContextGain:
    """
    The reward `context_gain`, in nats a token, within ± `clip`; higher is better.

    Two passes without gradient and without dropout, through the trainer's own scoring (prompts shared, media checked,
    decoding constrained, weights sharded as in every other pass), over completions cut behind their contexts. All
    processes make the same passes, whatever their rows. Rows that have nothing to score take no place in packed rows.

    `None` for a row without media and for a completion without one clear context section; its own `credit_map` entry
    decides which tokens it moves, the context's where there is none.

    Deviation from PAPO (arXiv 2507.06448), which adds the KL between the two distributions to the loss at every token:
    here it is a reward of what was sampled, so it is relative to the group, credited at the context alone, and no
    gradient flows into the pass without media. A policy could still raise it by writing badly without media, which the
    clip bounds and the logged `context_gain/without_media` shows.

    Args:
        rows (`Callable[[], Sequence[Row]]`): The rows that are being rewarded.
        score (`Callable`): Prompts and completions to the policy's log-probabilities `(B, T)`.
        encoder ([`PromptEncoder`]): The run's.
        schema ([`SectionSchema`]): The run's sections.
        clip (`float`, *optional*): In nats a token; no limit without it.

    Raises:
        `ValueError`: The schema has no context.
    """

    __name__ = "context_gain"
    sections = ("context",)

    def __init__(
        self,
        rows: Callable[[], Sequence[Row]],
        score: Callable[[Sequence[EncodedPrompt], Sequence[list[int]]], torch.Tensor],
        encoder: PromptEncoder,
        schema: SectionSchema,
        clip: float | None,
    ) -> None:
        if SECTION not in schema.names:
            raise ValueError(
                f"context_gain_weight: the sections {', '.join(schema.names)} have no {SECTION!r}; choose a "
                "prompt_style or section_schema that has one, or leave context_gain_weight out"
            )
        self.rows, self.score, self.encoder, self.clip = rows, score, encoder, clip or math.inf
        self.place = places_of(schema).index(SECTION)

    def __call__(
        self, prompts: list[Any], completion_ids: list[list[int]], log_metric: Any, **kwargs: Any
    ) -> list[float | None]:
        """The reward, in TRL's calling form: one number a completion, or `None`."""
        rows = self.rows()
        places = [
            [t for t, place in enumerate(row.places) if place == self.place] if any(row.prompt.counts.values()) else []
            for row in rows
        ]
        blank = [without_media(self.encoder, p, row.prompt) for p, row in zip(prompts, rows, strict=True)]
        # Nothing behind the last place is needed, and of a completion without places nothing at all.
        kept = [ids[: max(at, default=-1) + 1] for ids, at in zip(completion_ids, places, strict=True)]
        kept[0] = kept[0] or completion_ids[0][:1]  # the passes are made all the same, other processes wait for them
        logps = [self.score(shown, kept) for shown in ([row.prompt for row in rows], blank)]
        seen, unseen = ([_mean(row, at) for row, at in zip(x.tolist(), places, strict=True)] for x in logps)
        for name, means in (("with_media", seen), ("without_media", unseen)):
            if known := [mean for mean in means if mean is not None]:
                log_metric(f"context_gain/{name}", sum(known) / len(known))
        pairs = zip(seen, unseen, strict=True)
        return [None if a is None or b is None else max(-self.clip, min(self.clip, a - b)) for a, b in pairs]


def without_media(encoder: PromptEncoder, prompt: Any, row: EncodedPrompt) -> EncodedPrompt:
    """
    A prompt's encoding with its media taken out; `row`, its encoding with them, if it has none.

    >>> without_media(None, "Is it?", EncodedPrompt([1, 2])).input_ids
    [1, 2]
    """
    if not any(row.counts.values()):
        return row
    messages: Messages = [
        {**message, "content": [part for part in message["content"] if part["type"] == "text"]}
        for message in as_parts(prompt)
    ]
    # The same keys of features as all other prompts of its batch: no tower runs for what is not there.
    return replace(encoder(messages, row.name), features=dict.fromkeys(row.features))


def _mean(values: Sequence[float], at: Sequence[int]) -> float | None:
    return sum(values[t] for t in at) / len(at) if at else None
