# SPDX-License-Identifier: Apache-2.0
"""
Scoring that computes a prompt once for all its completions, exactly.

In all passes the completions of one prompt in one micro-batch become segments of one packed row. TRL's scoring runs
unchanged: its model packs what it is given and unpacks what comes back. Nothing is taken on trust: the first batch of a
run, and each that is longer than all before, is scored both ways.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from transformers import PreTrainedModel

from omni_grpo.encoding.inputs import EncodedPrompt
from omni_grpo.model.evaluation_mode import in_evaluation
from omni_grpo.model.towers import MediaEmbedder, find_thinker
from omni_grpo.sharing.packed_attention import packed_mask, prepare_attention
from omni_grpo.sharing.packing import PackedRows, pack_rows
from omni_grpo.sharing.row_order import (
    interchangeable_micro_batches,
    padding_shares,
    shuffle_by_length,
    shuffle_groups,
    used_columns,
)

logger = logging.getLogger(__name__)

# Mean difference of a row's log-probabilities, in nats, that rounding alone can make.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}


class SharedPrompt:
    """
    Mix-in for TRL's `GRPOTrainer`: scores each chunk with the media of its own rows, and shares prompts
    (`share_prompt: auto | off | verify`).

    With `auto`, a model that cannot take packed rows, rows that cannot be packed, and a model whose packed scores differ
    from its plain ones are scored row by row; the log says which and why. The rows are then dealt by length, and no pass
    computes columns that are padding alone. With `verify` every batch is scored both ways; with `off` passes and order are TRL's own.

    Raises:
        `RuntimeError`: In `verify`, when packed and plain scores differ, or rows cannot be packed.
    """

    if TYPE_CHECKING:
        args: Any
        model: Any
        ref_model: Any
        accelerator: Any
        _metrics: dict[str, Any]

    _rows: Sequence[EncodedPrompt]
    media_embedder: MediaEmbedder
    _ref_embedder: MediaEmbedder | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._shares_prompts, self._verified_length = self.args.share_prompt != "off", 0
        self._last_packed: tuple[Any, Any] = None, None
        models = [m for m in (self.model, self.ref_model) if m is not None] if self._shares_prompts else []
        for reason in filter(None, (prepare_attention(find_thinker(model)) for model in models)):
            self._stop_sharing(reason)

    def _stop_sharing(self, reason: str) -> None:
        if self.args.share_prompt == "verify":
            raise RuntimeError(f"share_prompt: {reason}")
        if self._shares_prompts:
            logger.warning("share_prompt: off, every completion is scored with a prompt of its own: %s", reason)
        self._shares_prompts = False

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """Shuffle groups where TRL shuffles rows, or deal the rows by length where no prompt is shared."""
        if self.args.share_prompt == "off":
            return super()._prepare_inputs(generation_batch)  # type: ignore[misc]
        shuffle = shuffle_groups if self._shares_prompts else self._deal_rows
        with mock.patch("trl.trainer.grpo_trainer.shuffle_sequence_dict", shuffle):
            return super()._prepare_inputs(generation_batch)  # type: ignore[misc]

    def _deal_rows(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Rows of like length into one micro-batch, as far as the optimiser's steps keep their samples."""
        size = self.args.per_device_train_batch_size
        batch = shuffle_by_length(batch, size, interchangeable_micro_batches(self))
        for name, share in padding_shares(batch, size).items():
            self._metrics["train"][f"padding/{name}"].append(share)
        return batch

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, **kwargs
    ):
        """Score chunk by chunk, each with the media of its own rows."""
        batch_size, chunks = batch_size or input_ids.size(0), []
        for start in range(0, input_ids.size(0), batch_size):
            span = slice(start, start + batch_size)
            batch = self._rows[span], input_ids[span], attention_mask[span], logits_to_keep
            self._verify(model, *batch)
            share, trim = self._shares_prompts, not self._shares_prompts and self.args.share_prompt != "off"
            chunks.append(self._score(model, *batch, share=share, trim=trim, **kwargs))
        logps, entropies, aux_losses = zip(*chunks, strict=True)
        return (
            torch.cat(logps),
            torch.cat(entropies) if entropies[0] is not None else None,
            torch.stack(aux_losses).mean() if aux_losses[0] is not None else None,
        )

    def _score(
        self, model, rows, input_ids, attention_mask, kept, *, share: bool, trim: bool = False, **kwargs: Any
    ) -> tuple[Any, ...]:
        """One chunk, packed or plain; with `trim` plain without the columns that are padding alone."""
        if trim:
            left, right = used_columns(attention_mask, kept)
            ids, mask = (x[:, left : x.size(1) - kept + right] for x in (input_ids, attention_mask))
            *scores, aux_loss = self._score(model, rows, ids, mask, right, share=False, **kwargs)
            return *(None if x is None else torch.nn.functional.pad(x, (0, kept - right)) for x in scores), aux_loss
        embedder = self._ref_embedder if model is self.ref_model and self._ref_embedder else self.media_embedder
        scored = model
        if share:
            thinker = find_thinker(model)
            packed = self._pack(thinker, rows, input_ids, attention_mask, kept)
            scored, rows = functools.partial(_score_packed, model, packed, thinker), packed.prompts
        media = embedder.inputs(model, rows, input_ids.device)
        with embedder.expecting(rows, packed=share):
            return super()._get_per_token_logps_and_entropies(  # type: ignore[misc]
                functools.partial(scored, **media), input_ids, attention_mask, kept, **kwargs
            )

    def _pack(self, thinker, rows, input_ids, *rest) -> PackedRows:
        """The rows packed, once for all passes over them."""
        if self._last_packed[0] is not input_ids:
            self._last_packed = input_ids, pack_rows(thinker, rows, input_ids, *rest)
        return self._last_packed[1]

    def _verify(self, model, *batch) -> None:
        """
        Pack a batch; where it is longer than what was verified on any process, score it both ways, and compare. What
        cannot be packed anywhere is packed nowhere: the processes go one way.
        """
        if not self._shares_prompts:
            return
        _, input_ids, attention_mask, kept = batch
        reason = None
        try:
            self._pack(find_thinker(model), *batch)
        except Exception as error:  # whatever it is, rows can be scored one by one
            reason = f"rows cannot be packed: {error!r}"
        facts = torch.tensor([input_ids.size(1), reason is not None], device=input_ids.device)
        longest, failed = self.accelerator.gather(facts[None]).amax(dim=0).tolist()
        if failed:
            self._stop_sharing(reason or "rows of another process cannot be packed")
        if failed or (longest <= self._verified_length and self.args.share_prompt != "verify"):
            return
        with torch.no_grad(), in_evaluation(model):
            plain = self._score(model, *batch, share=False)[0]
            try:
                packed = self._score(model, *batch, share=True)[0]
            except Exception as error:
                packed, reason = torch.full_like(plain, torch.nan), f"packed rows cannot be scored: {error!r}"
        scored = attention_mask[:, -kept:].bool()
        apart = ((plain - packed).abs() * scored).sum(dim=1) / scored.sum(dim=1).clamp(min=1)  # (B,), in nats
        worst = self.accelerator.gather(apart.max().float()[None]).max().item()
        allowed = TOLERANCE[_dtype(self.accelerator, model)]
        if not worst <= allowed:  # not a number is no agreement
            self._stop_sharing(
                reason or f"packed and plain log-probabilities differ by {worst:.2g} a token ({allowed:g} allowed)"
            )
        elif not self._verified_length:
            logger.info("share_prompt: on; packed and plain log-probabilities agree within %.2g a token", worst)
        self._verified_length = longest


def _score_packed(model: Any, packed: PackedRows, thinker: Any, *, input_ids, attention_mask, labels, **kwargs: Any):
    """The model as TRL's scoring calls it, on the packed row: rows in, rows out."""
    del attention_mask  # the layout holds what it said
    if (index := kwargs.get("set_index")) is not None:  # of a constraint, (B, completion)
        index = torch.nn.functional.pad(index, (labels.size(1) - index.size(1), 0), value=-1)
        kwargs["set_index"] = packed.pack(index, -1)
    implementation = thinker.language_model.config._attn_implementation
    output = model(
        input_ids=packed.input_ids,
        position_ids=packed.position_ids,
        attention_mask={"full_attention": packed_mask(packed.layout, implementation, input_ids.device)},
        shift_labels=packed.pack(labels, -100),
        **kwargs,
    )
    for name in ("log_probs", "entropy"):
        if (values := getattr(output, name)) is not None:
            setattr(output, name, packed.unpack(values, input_ids.shape)[:, 1:])
    return output


def _dtype(accelerator: Any, model: Any) -> torch.dtype:
    """In which the model computes."""
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
