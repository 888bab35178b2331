# SPDX-License-Identifier: Apache-2.0
"""Media into the model, counted: every pass sees every item of every row, on every rank, or it stops.

A forward pre-hook on the thinker runs the audio and vision towers itself, always in the same order, and puts their
outputs at the placeholders. It is the one place where four things are held:

- placeholder tokens in the ids = rows that the towers return, per modality. Features that are missing, left over or
  placed elsewhere raise [`MediaError`] with the row's name. (Unhooked, the model takes a prompt with video
  placeholders and no video without a word, and ignores surplus audio features.)
- an item is encoded once, however many rows show it: once per pass where its tower trains; where the tower is frozen,
  once per generation batch, in the pass that samples.
- with several processes, a rank that has no item of some modality runs that tower on a tiny dummy whose output is
  added with weight zero, so that all ranks make the same tower calls: ZeRO-3 gathers a tower's parameters and ZeRO-2
  reduces its gradients collectively, and both hang where one rank stays away.
- during cached decoding the towers are not run again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from omni_grpo.encoding.inputs import MODALITIES, EncodedPrompt, collate_media
from omni_grpo.media.settings import MediaError
from omni_grpo.model.encoded_media import FEATURE_KEYS, FeatureStore, Item, join_items, split_items
from omni_grpo.model.tower_calls import (
    by_item,
    find_thinker,
    has_adapters,
    is_frozen,
    run_on_dummy,
    run_tower,
    tower_of,
)

__all__ = ["MediaEmbedder", "attach_media_embedder", "find_thinker"]


class MediaEmbedder:
    """
    The pre-hook. Attach it with [`attach_media_embedder`].

    Args:
        everywhere (iterable of `str`): Modalities whose tower runs in every pass, on a dummy where a batch has none.

    Attributes:
        passes (`Counter`): Tower passes since the start, per modality, dummies not counted.
        items (`Counter`): Media items that went through a tower since the start, per modality.
        rows (`Counter`): Rows that towers returned since the start, per modality, dummies not counted.
        placed (`Counter`): Rows that stand in the passes' prompts since the start, per modality, new or kept.
        store ([`FeatureStore`], *optional*): Features of frozen towers; with it they run in the first pass alone.
        shared (`frozenset[str]`, *optional*): Modalities taken from the store whatever the tower; else by [`is_frozen`].
        encodes_once (`bool`): Whether an item that several rows of a pass show is encoded once in it.
    """

    def __init__(self, everywhere: Iterable[str] = ()) -> None:
        self.everywhere = frozenset(everywhere)
        self.passes: Counter[str] = Counter()
        self.items: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.placed: Counter[str] = Counter()
        self.store: FeatureStore | None = None
        self.shared: frozenset[str] | None = None
        self.encodes_once = True
        self._expected: Sequence[EncodedPrompt] | None = None
        self._packed = False

    @contextmanager
    def expecting(self, rows: Sequence[EncodedPrompt], packed: bool = False):
        """
        Within: each pass that sees whole prompts must hold exactly these, in this order: one a row, or with `packed`
        all in one row.
        """
        before = self._expected, self._packed
        self._expected, self._packed = rows, packed
        try:
            yield self
        finally:
            self._expected, self._packed = before

    def inputs(self, model: nn.Module, rows: Sequence[EncodedPrompt], device: torch.device) -> dict[str, torch.Tensor]:
        """Model inputs of the rows' media, less the features that come from the store."""
        thinker = find_thinker(model)
        kept = [FEATURE_KEYS[m] for m in MODALITIES if self._is_kept(thinker, m)]
        return {k: v.to(device, non_blocking=True) for k, v in collate_media(rows, without=kept).items()}

    def repeat(self, rows: Sequence[EncodedPrompt], index: Iterable[int]) -> None:
        """Count prompts whose cache was repeated: `rows` have been seen, and stand now as `index` says."""
        for modality in MODALITIES:
            counts = [row.counts.get(modality, 0) for row in rows]
            self.placed[modality] += sum(counts[i] for i in index) - sum(counts)

    def __call__(self, thinker: Any, args: tuple[Any, ...], kwargs: dict[str, Any]):
        input_ids = kwargs.get("input_ids", args[0] if args else None)
        cache = kwargs.get("past_key_values")
        if input_ids is None or (cache is not None and cache.get_seq_length() > 0):
            return None
        kwargs = {**kwargs, "input_ids": input_ids}
        embeds = kwargs.get("inputs_embeds")
        if embeds is None:
            embeds = thinker.get_input_embeddings()(input_ids)
        placed = {m: input_ids == getattr(thinker.config, f"{m}_token_id") for m in MODALITIES}
        self._check_rows(placed)
        for modality in MODALITIES:
            is_kept = self._expected is not None and self._is_kept(thinker, modality)
            ran = self.passes[modality]
            features = (self._kept if is_kept else self._encoded)(thinker, modality, kwargs)
            if features is not None:
                self._check_count(modality, placed[modality], features.shape[0])
                features = features.to(embeds.device, embeds.dtype)
                embeds = embeds.masked_scatter(placed[modality].unsqueeze(-1), features)
                self.placed[modality] += features.shape[0]
            elif placed[modality].any():
                self._check_count(modality, placed[modality], 0)
            if ran == self.passes[modality] and self._all_ranks_run(modality, is_kept):
                embeds = embeds + 0.0 * run_on_dummy(thinker, modality).to(embeds.device, embeds.dtype).sum()
        if self.store is not None and self._expected is not None:
            self.store.filling = False
        kwargs.update(dict.fromkeys(FEATURE_KEYS.values()), inputs_embeds=embeds)
        return args[1:] if args else args, kwargs

    def _is_kept(self, thinker: Any, modality: str) -> bool:
        """Whether features come from the store. In evaluation no tower trains."""
        if self.store is None:
            return False
        if self.shared is not None:
            return modality in self.shared
        tower = tower_of(thinker, modality)
        if self.store.mode == "eval" and not torch.is_grad_enabled():
            return not has_adapters(tower)
        return is_frozen(tower)

    def _all_ranks_run(self, modality: str, is_kept: bool) -> bool:
        """Whether every rank calls the modality's tower in this pass."""
        return modality in self.everywhere and (not is_kept or (self.store is not None and self.store.filling))

    def _kept(self, thinker: Any, modality: str, kwargs: Mapping[str, Any]) -> torch.Tensor | None:
        """Features of the expected rows from the store; items that it lacks are encoded, all in one call."""
        if self.store is None:
            return None
        device = kwargs["input_ids"].device

        def encode(items: Sequence[Item]) -> Sequence[torch.Tensor]:
            with torch.no_grad():
                encoded = self._encode(thinker, modality, join_items(items, modality, device), len(items))
            return by_item(thinker, modality, items, encoded)

        return self.store.features_of(
            self._expected or (),
            modality,
            device,
            encode,
            may_encode=self.store.filling or not self.everywhere,
            is_lasting=is_frozen(tower_of(thinker, modality)),
        )

    def _encoded(self, thinker: Any, modality: str, kwargs: Mapping[str, Any]) -> torch.Tensor | None:
        """Features of what the pass was given; items that come more than once are encoded once."""
        if kwargs.get(FEATURE_KEYS[modality]) is None:
            return None
        rows = self._expected if self._expected and self.encodes_once else ()
        keys = [key for row in rows for key in row.items.get(modality, ())]
        items = split_items(kwargs, modality)
        first = {key: items[i] for i, key in reversed(list(enumerate(keys)))} if len(keys) == len(items) else {}
        distinct = list(dict.fromkeys(keys))
        if len(first) in (0, len(items)):
            return self._encode(thinker, modality, kwargs, len(items))
        chosen = [first[key] for key in distinct]
        device = kwargs["input_ids"].device
        encoded = self._encode(thinker, modality, join_items(chosen, modality, device), len(chosen))
        parts = dict(zip(distinct, by_item(thinker, modality, chosen, encoded), strict=True))
        return torch.cat([parts[key] for key in keys])

    def _encode(self, thinker: Any, modality: str, media: Mapping[str, Any], count: int) -> torch.Tensor:
        encoded = run_tower(thinker, modality, media)
        self.passes[modality] += 1
        self.items[modality] += count
        self.rows[modality] += encoded.shape[0]
        return encoded

    def _check_rows(self, placed: dict[str, torch.Tensor]) -> None:
        if self._expected is None:
            return
        counts = {m: mask.sum(-1).tolist() for m, mask in placed.items()}
        if self._packed:
            self._check_packed({m: sum(found) for m, found in counts.items()})
            return
        if len(self._expected) != len(counts["audio"]):
            raise MediaError(f"{len(counts['audio'])} rows in a pass that was given media for {len(self._expected)}")
        for i, row in enumerate(self._expected):
            for modality in MODALITIES:
                if counts[modality][i] != row.counts.get(modality, 0):
                    raise MediaError(
                        f"row {row.name!r}: {counts[modality][i]} {modality} placeholders in the ids of this pass, "
                        f"{row.counts.get(modality, 0)} in its prompt; media and rows have come apart"
                    )

    def _check_packed(self, found: dict[str, int]) -> None:
        rows = self._expected or ()
        for modality in MODALITIES:
            if found[modality] != (wanted := sum(row.counts.get(modality, 0) for row in rows)):
                raise MediaError(
                    f"rows {[row.name for row in rows][:8]}: {found[modality]} {modality} placeholders in the packed row "
                    f"of this pass, {wanted} in their prompts; media and rows have come apart"
                )

    def _check_count(self, modality: str, mask: torch.Tensor, returned: int) -> None:
        wanted = int(mask.sum())
        if wanted == returned:
            return
        rows = [i for i, n in enumerate(mask.sum(-1).tolist()) if n]
        names: Sequence[Any] = rows
        if self._expected is not None:
            names = [row.name for row in (self._expected if self._packed else (self._expected[i] for i in rows))]
        raise MediaError(
            f"{wanted} {modality} placeholders in rows {names[:8]}, but {returned} encoded {modality} rows: "
            "the pass would not see what the prompt shows"
        )


def attach_media_embedder(model: nn.Module, everywhere: Iterable[str] = ()) -> MediaEmbedder:
    """
    Hook a [`MediaEmbedder`] into a model (through PEFT wrapping too) and return it.

    Args:
        model (`nn.Module`): A Qwen2.5-Omni thinker, bare or wrapped.
        everywhere (iterable of `str`): See [`MediaEmbedder`]; give it the modalities of the data with several processes.
    """
    embedder = MediaEmbedder(everywhere)
    find_thinker(model).register_forward_pre_hook(embedder, with_kwargs=True)
    for module in model.modules():  # `generate` would run the vision tower before the pass, in an order of its own
        if hasattr(module, "_supports_mm_encoder_outputs"):
            setattr(module, "_supports_mm_encoder_outputs", _never)  # noqa: B010 (a method, which nn.Module does not type)
    return embedder


def _never() -> bool:
    return False
