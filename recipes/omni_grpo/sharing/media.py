# SPDX-License-Identifier: Apache-2.0
"""Encode once, prefill once: the media of a generation batch go through frozen towers once, its prompts are sampled from once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from omni_grpo.encoding.encoder import PromptEncoder, processing_key
from omni_grpo.encoding.inputs import MODALITIES, EncodedPrompt
from omni_grpo.model.encoded_media import FeatureStore
from omni_grpo.model.feature_cache import FeatureCache, encoder_fingerprint
from omni_grpo.model.tower_calls import find_thinker, is_frozen, tower_of
from omni_grpo.model.towers import MediaEmbedder
from omni_grpo.sharing.prefill import notice, shared_prefill

logger = logging.getLogger(__name__)


class SharedMedia:
    """
    Mix-in for TRL's `GRPOTrainer`: features of frozen towers are kept for a generation batch, and shared by all passes
    (`share_media: auto | off`); sampling computes each prompt once (`share_prompt`).

    The features are made while sampling, in a pass that holds the whole batch and that all processes make together, so
    that no process calls a tower alone later. The reference takes part where its towers equal the policy's.

    Raises:
        `ValueError`: `media_feature_cache` is set and a tower trains.
    """

    if TYPE_CHECKING:
        # Upstream's own annotations are unions over every backend.
        args: Any
        model: Any
        model_wrapped: Any
        ref_model: Any
        accelerator: Any

    _rows: Sequence[EncodedPrompt]
    _encoder: PromptEncoder
    media_embedder: MediaEmbedder
    _ref_embedder: MediaEmbedder | None

    def _share_features(self, modalities: frozenset[str]) -> None:
        """Give the embedders their store, once they are attached; `modalities` are those of the data."""
        if self.args.share_media == "off":
            for embedder in filter(None, (self.media_embedder, self._ref_embedder)):
                embedder.store, embedder.shared, embedder.encodes_once = FeatureStore(), frozenset(), False
            return
        thinker = find_thinker(self.model)
        frozen = {m for m in MODALITIES if is_frozen(tower_of(thinker, m))}
        store = FeatureStore(self._feature_cache(thinker, modalities, frozen))
        self.media_embedder.store = store
        if self._ref_embedder is not None and frozen:
            reference = find_thinker(self.ref_model)
            equal = torch.tensor([_equal_weights(tower_of(thinker, m), tower_of(reference, m)) for m in MODALITIES])
            everywhere = self.accelerator.gather(equal.int()[None].to(self.accelerator.device)).all(dim=0).tolist()
            shared = frozenset(m for m, is_equal in zip(MODALITIES, everywhere, strict=True) if is_equal) & frozen
            self._ref_embedder.store, self._ref_embedder.shared = store, shared
            if apart := sorted(frozen - shared):
                logger.info("the reference encodes for itself, its towers are not seen to be equal: %s", apart)

    def _feature_cache(self, thinker: Any, modalities: frozenset[str], frozen: set[str]) -> FeatureCache | None:
        if (folder := getattr(self.args, "media_feature_cache", None)) is None:
            return None
        if trained := sorted(modalities - frozen):
            fields = " and ".join(sorted({f"freeze_{'audio' if m == 'audio' else 'vision'}: true" for m in trained}))
            raise ValueError(
                f"media_feature_cache: the encoder of {', '.join(trained)} trains or has adapters, and its features of "
                f"one step are not those of the next; set {fields}, or leave media_feature_cache out"
            )
        processor = processing_key(self._encoder.processor)
        precision = self.accelerator.mixed_precision
        prints = {m: encoder_fingerprint(tower_of(thinker, m), m, processor, precision) for m in sorted(modalities)}
        return FeatureCache(folder, prints, self.args.media_feature_cache_gb)

    def _generate_and_score_completions(self, inputs):
        """A new generation batch begins: features of the one before are dropped."""
        assert self.media_embedder.store is not None
        self.media_embedder.store.begin("train" if self.model.training else "eval")
        return super()._generate_and_score_completions(inputs)  # type: ignore[misc]

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, *args, **kwargs):
        """Sample from each distinct prompt once, with the media of the batch's rows."""
        if [row.input_ids for row in self._rows] != prompt_ids:  # a later turn, after a tool has answered
            return super()._generate_single_turn(prompt_ids, images, multimodal_fields, *args, **kwargs)  # type: ignore[misc]
        share = self.args.share_prompt != "off"
        if share and self.args.use_transformers_continuous_batching:
            notice("continuous batching has a cache of its own")
        model = self.accelerator.unwrap_model(self.model_wrapped)
        with shared_prefill(model, self.media_embedder, self._rows, share):
            return super()._generate_single_turn(prompt_ids, images, multimodal_fields, *args, **kwargs)  # type: ignore[misc]

    def _compute_loss(self, model, inputs):
        """After an evaluation, training goes on with its own batch."""
        assert self.media_embedder.store is not None
        self.media_embedder.store.mode = "train" if self.model.training else "eval"
        return super()._compute_loss(model, inputs)  # type: ignore[misc]


def _equal_weights(a: nn.Module, b: nn.Module) -> bool:
    """Whether two modules hold the same numbers, as far as this process has them; what cannot be compared is not equal."""
    pairs = list(zip(a.parameters(), b.parameters(), strict=True))
    held = [tuple(getattr(p, "ds_tensor", p).detach() for p in pair) for pair in pairs]
    return all(type(x) is type(y) and x.shape == y.shape and x.dtype == y.dtype and torch.equal(x, y) for x, y in held)
