# SPDX-License-Identifier: Apache-2.0
"""
Log-probabilities of completions, with the media of their prompts in every pass.

The completions of one prompt in one micro-batch become segments of one packed row, so that a prompt is computed once
for all of them. Nothing is taken on trust: the first batch of a run, and each that is longer than all before, is scored
both ways.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad
from transformers import PreTrainedModel
from trl.trainer.utils import pad as pad_rows

from omni_grpo.data.encoding.inputs import EncodedPrompt
from omni_grpo.families import base_of, family_of
from omni_grpo.model.evaluation_mode import in_evaluation
from omni_grpo.model.towers import MediaEmbedder
from omni_grpo.rollout.constrained.head import allowed_sets
from omni_grpo.rollout.constrained.section_constraint import SectionConstraint
from omni_grpo.scoring.packed_attention import packed_as, prepare_attention
from omni_grpo.scoring.packing import PackedRows, pack_rows
from omni_grpo.scoring.row_order import used_columns

logger = logging.getLogger(__name__)

# Mean difference of a row's log-probabilities, in nats, that rounding alone can make.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}


class Batch(NamedTuple):
    """
    Prompts and their completions.

    Args:
        prompts (sequence of [`EncodedPrompt`]): One a row.
        input_ids (`Tensor` `(B, L)`): Prompts padded on the left, completions on the right.
        attention_mask (`Tensor` `(B, L)`): 1 at tokens.
        kept (`int`): Columns of the completions, the last ones.
    """

    prompts: Sequence[EncodedPrompt]
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    kept: int


class Scores(NamedTuple):
    """Log-probabilities and entropies `(B, kept)` and the router's loss, as TRL's own scoring returns them."""

    logps: torch.Tensor
    entropies: torch.Tensor | None
    aux_loss: torch.Tensor | None


class Scorer:
    """
    Scores completions under a policy, or under its reference.

    With `share="auto"`, a model that cannot take packed rows, rows that cannot be packed, and a model whose packed scores
    differ from its plain ones are scored row by row; the log says which and why. No pass computes columns that are padding alone. With `verify` every
    batch is scored both ways; with `off` passes are as wide as TRL's own.

    Args:
        accelerator (`Accelerator`): The run's.
        policy (`nn.Module`): What is trained.
        media ([`MediaEmbedder`]): The policy's.
        share (`str`): `auto`, `verify` or `off`.
        constraint ([`SectionConstraint`], *optional*): Under which completions were sampled: the softmax is then over
            what it allowed.
        reference (`nn.Module`, *optional*): Another model to score with.
        reference_media ([`MediaEmbedder`], *optional*): Its own.
        reference_takes (collection of `str`): Modalities of which it takes the features that prompts bring.

    Attributes:
        shares (`bool`): Whether prompts are computed once; `auto` turns it off by itself.

    Raises:
        `RuntimeError`: In `verify`, when prompts cannot be shared, or packed and plain scores differ.
    """

    def __init__(
        self,
        accelerator: Any,
        policy: Any,
        media: MediaEmbedder,
        share: str = "auto",
        constraint: SectionConstraint | None = None,
        reference: Any = None,
        reference_media: MediaEmbedder | None = None,
        reference_takes: Collection[str] = (),
    ) -> None:
        self.accelerator, self.media, self.constraint = accelerator, media, constraint
        self.reference, self.reference_media, self.reference_takes = reference, reference_media, reference_takes
        self.mode, self.shares, self._verified = share, share != "off", 0
        for model in (policy, reference) if self.shares else ():
            if model is not None:
                base = base_of(model)
                if reason := family_of(model).cannot_pack(base) or prepare_attention(base):
                    self._stop_sharing(reason)

    def _stop_sharing(self, reason: str) -> None:
        if self.mode == "verify":
            raise RuntimeError(f"share_prompt: {reason}")
        if self.shares:
            logger.warning("share_prompt: off, every completion is scored with a prompt of its own: %s", reason)
        self.shares = False

    def __call__(
        self, model: Any, batch: Batch, size: int | None = None, *, entropy: bool = False, aux_loss: bool = False
    ) -> Scores:
        """
        Score chunk by chunk.

        Args:
            model (`nn.Module`): Policy or reference, wrapped or not.
            batch ([`Batch`]): What is scored.
            size (`int`, *optional*): Rows of a chunk; all by default.
            entropy, aux_loss (`bool`): Whether these are wanted, too.
        """
        size, chunks = size or len(batch.prompts), []
        for start in range(0, len(batch.prompts), size):
            span = slice(start, start + size)
            chunk = Batch(batch.prompts[span], batch.input_ids[span], batch.attention_mask[span], batch.kept)
            packed = self._packed(model, chunk, aux_loss)
            chunks.append(self.score(model, chunk, packed, entropy=entropy, aux_loss=aux_loss))
        logps, entropies, aux_losses = zip(*chunks, strict=True)
        return Scores(
            torch.cat(logps),
            torch.cat(entropies) if entropy else None,
            torch.stack(aux_losses).mean() if aux_loss else None,
        )

    def completions(
        self, model: Any, prompts: Sequence[EncodedPrompt], completion_ids: Sequence[list[int]], filler: int, size: int
    ) -> torch.Tensor:
        """Log-probabilities `(B, T)` of completions behind prompts, `size` rows a pass; `filler` is a token to pad with."""
        sides = []
        for rows, side in (([p.input_ids for p in prompts], "left"), (completion_ids, "right")):
            ids = [torch.tensor(row, dtype=torch.long) for row in rows]
            masks = [torch.ones_like(row) for row in ids]
            sides.append([pad_rows(ids, filler, padding_side=side), pad_rows(masks, 0, padding_side=side)])
        ids, mask = (torch.cat(parts, dim=1).to(self.accelerator.device) for parts in zip(*sides, strict=True))
        return self(model, Batch(prompts, ids, mask, sides[1][0].size(1)), size).logps

    def score(
        self,
        model: Any,
        batch: Batch,
        packed: PackedRows | None = None,
        *,
        entropy: bool = False,
        aux_loss: bool = False,
    ) -> Scores:
        """One chunk in one pass, packed or plain."""
        if packed is None and self.mode != "off":
            return self._trimmed(model, batch, entropy=entropy, aux_loss=aux_loss)
        return self._pass(model, batch, packed, entropy=entropy, aux_loss=aux_loss)

    def _trimmed(self, model: Any, batch: Batch, **asked: bool) -> Scores:
        """A plain pass without the columns that are padding alone."""
        prompts, ids, mask, kept = batch
        left, right = used_columns(mask, kept)
        ids, mask = (x[:, left : x.size(1) - kept + right] for x in (ids, mask))
        *scores, aux_loss = self._pass(model, Batch(prompts, ids, mask, right), None, **asked)
        return Scores(*(None if x is None else pad(x, (0, kept - right)) for x in scores), aux_loss)  # type: ignore[arg-type]

    def _pass(self, model: Any, batch: Batch, packed: PackedRows | None, *, entropy: bool, aux_loss: bool) -> Scores:
        prompts, ids, mask, kept = batch
        labels = ids.masked_fill(mask == 0, -100)
        labels[:, :-kept] = -100
        inputs: dict[str, Any] = {"output_router_logits": True} if aux_loss else {}
        if self.constraint is not None:
            inputs["allowed_sets"], inputs["set_index"] = allowed_sets(
                self.constraint, ids[:, -kept:], mask[:, -kept:]
            )
        if packed is None:
            inputs |= {"input_ids": ids, "attention_mask": mask, "labels": labels}
            # Some text models would count the padding as positions, too; TRL's own pass lets them.
            if self.mode != "off" and not self.media.family.modalities:
                inputs["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
        else:
            if "set_index" in inputs:
                index = pad(inputs["set_index"], (labels.size(1) - kept, 0), value=-1)
                inputs["set_index"] = packed.pack(index, -1)
            inputs |= {"input_ids": packed.input_ids, "position_ids": packed.position_ids}
            inputs["attention_mask"] = (
                packed.counts
            )  # the router's loss weighs tokens by it; what sees what, the layout
            inputs["shift_labels"], prompts = packed.pack(labels, -100), packed.prompts
        is_reference = model is self.reference and self.reference_media is not None
        media = self.reference_media if is_reference and self.reference_media else self.media
        if is_reference:
            prompts = [prompt.keeping(self.reference_takes) for prompt in prompts]
        layout = packed_as(packed.layout if packed else None)
        with media.expecting(prompts, packed=packed is not None), layout, self.accelerator.autocast():
            output = model(**inputs, **media.inputs(prompts, ids.device), fused_lm_head=True)
        scores = [output.log_probs, output.entropy if entropy else None]
        if packed is not None:
            scores = [None if x is None else packed.unpack(x, (len(ids), ids.size(1)))[:, 1:] for x in scores]
        logps, entropies = (None if x is None else x[:, -kept:] for x in scores)
        return Scores(logps, entropies, output.aux_loss if aux_loss else None)  # type: ignore[arg-type]

    def _packed(self, model: Any, batch: Batch, aux_loss: bool = False) -> PackedRows | None:
        """The batch as a packed row, once all processes know that theirs can be packed, and are scored right."""
        if not self.shares:
            return None
        packed, reason = None, "rows of another process cannot be packed"
        try:
            packed = pack_rows(model, *batch, aux_loss)
        except Exception as error:  # whatever it is, rows can be scored one by one
            reason = f"rows cannot be packed: {error!r}"
        told = torch.tensor([[batch.input_ids.size(1), packed is None]], device=batch.input_ids.device)
        longest, failed = self.accelerator.gather(told).amax(dim=0).tolist()
        if packed is None or failed:
            self._stop_sharing(reason)
            return None
        if longest > self._verified or self.mode == "verify":
            self._verify(model, batch, packed)
            self._verified = longest
        return packed if self.shares else None

    def _verify(self, model: Any, batch: Batch, packed: PackedRows) -> None:
        """Score a batch both ways and compare."""
        reason = None
        with torch.no_grad(), in_evaluation(model):
            one_by_one = self._pass(model, batch, None, entropy=False, aux_loss=False).logps
            try:
                together = self._pass(model, batch, packed, entropy=False, aux_loss=False).logps
            except Exception as error:
                together, reason = torch.full_like(one_by_one, torch.nan), f"packed rows cannot be scored: {error!r}"
        scored = batch.attention_mask[:, -batch.kept :].bool()
        apart = ((one_by_one - together).abs() * scored).sum(dim=1) / scored.sum(dim=1).clamp(min=1)  # (B,), in nats
        worst = self.accelerator.gather(apart.max().float()[None]).max().item()
        allowed = TOLERANCE[computing_dtype(self.accelerator, model)]
        if not worst <= allowed:  # not a number is no agreement
            self._stop_sharing(
                reason or f"packed and plain log-probabilities differ by {worst:.2g} a token ({allowed:g} allowed)"
            )
        elif not self._verified:
            logger.info("share_prompt: on; packed and plain log-probabilities agree within %.2g a token", worst)


def computing_dtype(accelerator: Any, model: Any) -> torch.dtype:
    """In which the model computes; float16 for TF32, which has as many digits."""
    if (low := {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision)) is not None:
        return low
    policy: PreTrainedModel = accelerator.unwrap_model(model)
    dtype = next(p.dtype for p in policy.parameters() if p.is_floating_point())
    tf32 = (
        dtype == torch.float32
        and accelerator.device.type == "cuda"
        and torch.get_float32_matmul_precision() != "highest"
    )
    return torch.float16 if tf32 else dtype  # as many digits
