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

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from trl.trainer.utils import pad

from omni_grpo.credit.section_masks import places_of, token_places
from omni_grpo.encoding.encoder import PromptEncoder
from omni_grpo.encoding.inputs import EncodedPrompt
from omni_grpo.model.evaluation_mode import in_evaluation
from omni_grpo.rows.prompts import Messages, as_parts
from omni_rewards import SectionSchema

SECTION = "context"


class ContextGain:
    """
    Mix-in for TRL's `GRPOTrainer`: the reward `context_gain`, in nats a token, within ± `context_gain_clip`; higher is
    better.

    Two passes without gradient and without dropout, through the trainer's own scoring (prompts shared, media checked,
    decoding constrained, weights sharded as in every other pass), over completions cut behind their contexts. All
    processes make the same passes, whatever their rows. Rows that have nothing to score take no place in packed rows.

    `None` for a row without media and for a completion without one clear context section; its own `credit_map` entry
    decides which tokens it moves, the context's where there is none.

    Deviation from PAPO (arXiv 2507.06448), which adds the KL between the two distributions to the loss at every token:
    here it is a reward of what was sampled, so it is relative to the group, credited at the context alone, and no
    gradient flows into the pass without media. A policy could still raise it by writing badly without media, which the
    clip bounds and the logged `context_gain/without_media` shows.
    """

    if TYPE_CHECKING:
        # Upstream's own annotations are unions over every backend.
        args: Any
        model: Any
        accelerator: Any
        _tokenizer: Any
        _get_per_token_logps_and_entropies: Any

    _rows: Sequence[EncodedPrompt]
    _encoder: PromptEncoder
    _section_schema: SectionSchema

    def context_gain(
        self, prompts: list[Any], completion_ids: list[list[int]], log_metric: Any, **kwargs: Any
    ) -> list[float | None]:
        """The reward, in TRL's calling form: one number a completion, or `None`."""
        places = [self._scored_places(row, ids) for row, ids in zip(self._rows, completion_ids, strict=True)]
        blank = [without_media(self._encoder, p, row) for p, row in zip(prompts, self._rows, strict=True)]
        # Nothing behind the last place is needed, and of a completion without places nothing at all.
        kept = [ids[: max(at, default=-1) + 1] for ids, at in zip(completion_ids, places, strict=True)]
        kept[0] = kept[0] or completion_ids[0][:1]  # the passes are made all the same, other processes wait for them
        size = self.args.per_device_train_batch_size if self.model.training else self.args.per_device_eval_batch_size
        with torch.no_grad(), in_evaluation(self.model):
            logps = [self._log_probs(rows, kept, size) for rows in (self._rows, blank)]
        seen, unseen = ([_mean(row, at) for row, at in zip(x.tolist(), places, strict=True)] for x in logps)
        for name, means in (("with_media", seen), ("without_media", unseen)):
            if known := [mean for mean in means if mean is not None]:
                log_metric(f"context_gain/{name}", sum(known) / len(known))
        clip = self.args.context_gain_clip or float("inf")
        pairs = zip(seen, unseen, strict=True)
        return [None if a is None or b is None else max(-clip, min(clip, a - b)) for a, b in pairs]

    def _scored_places(self, row: EncodedPrompt, completion_ids: list[int]) -> list[int]:
        """Which tokens of a completion are its context's; none where there are no media."""
        if not any(row.counts.values()):
            return []
        context = places_of(self._section_schema).index(SECTION)
        found = token_places(self._tokenizer, completion_ids, self._section_schema).indices
        return [t for t, place in enumerate(found) if place == context]

    def _log_probs(self, rows: Sequence[EncodedPrompt], completions: list[list[int]], size: int) -> torch.Tensor:
        """Log-probabilities `(B, T)` of completions behind these prompts, `size` rows a pass."""
        filler = self._tokenizer.pad_token_id
        prompt_ids, prompt_mask = _padded([row.input_ids for row in rows], filler, "left")
        ids, mask = _padded(completions, filler, "right")
        whole, seen = (torch.cat(parts, dim=1) for parts in ((prompt_ids, ids), (prompt_mask, mask)))
        device, before = self.accelerator.device, self._rows
        self._rows = rows  # whose media scoring takes
        try:
            logps, _, _ = self._get_per_token_logps_and_entropies(
                self.model, whole.to(device), seen.to(device), ids.size(1), batch_size=size
            )
        finally:
            self._rows = before
        return logps


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
    return encoder(messages, row.name)


def _padded(rows: Sequence[list[int]], filler: int, side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, `(B, L)` each."""
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    ids = pad(tensors, padding_value=filler, padding_side=side)
    return ids, pad([torch.ones_like(t) for t in tensors], padding_value=0, padding_side=side)


def _mean(values: Sequence[float], at: Sequence[int]) -> float | None:
    return sum(values[t] for t in at) / len(at) if at else None
