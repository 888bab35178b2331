# SPDX-License-Identifier: Apache-2.0
"""Media taken apart into items, and what their encoders made of them, kept for as long as a generation batch lives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch

from omni_grpo.encoding.inputs import EncodedPrompt
from omni_grpo.media.keys import MediaKey
from omni_grpo.media.settings import MediaError
from omni_grpo.model.feature_cache import FeatureCache

Item = dict[str, torch.Tensor]  # model inputs of one item: its features and what tells their shape
Mode = Literal["train", "eval"]

FEATURE_KEYS = {"audio": "input_features", "image": "pixel_values", "video": "pixel_values_videos"}
SHAPE_KEYS = {"audio": "feature_attention_mask", "image": "image_grid_thw", "video": "video_grid_thw"}


def split_items(media: Mapping[str, torch.Tensor], modality: str) -> list[Item]:
    """The items of a modality in model inputs of one row or several, in order, as views; none gives `[]`."""
    features, shapes = media.get(FEATURE_KEYS[modality]), media.get(SHAPE_KEYS[modality])
    if features is None or shapes is None:
        return []
    # sounds are (N, mel, T); patches of all images or clips stand one after another, (patches, dim)
    parts = features.split(1) if modality == "audio" else features.split(shapes.prod(-1).tolist())
    keys = FEATURE_KEYS[modality], SHAPE_KEYS[modality]
    return [dict(zip(keys, pair, strict=True)) for pair in zip(parts, shapes.split(1), strict=True)]


def join_items(items: Sequence[Item], modality: str, device: torch.device) -> Item:
    """Items as model inputs, [`split_items`] backwards; sounds are padded to the longest."""
    joined: Item = {}
    for key in (FEATURE_KEYS[modality], SHAPE_KEYS[modality]):
        tensors = [item[key] for item in items]
        if modality == "audio":
            longest = max(t.shape[-1] for t in tensors)
            tensors = [torch.nn.functional.pad(t, (0, longest - t.shape[-1])) for t in tensors]
        joined[key] = torch.cat(tensors).to(device, non_blocking=True)
    return joined


class FeatureStore:
    """
    Encoder outputs of the current generation batch, by item.

    A batch of evaluation does not drop that of training, which may still have iterations to go.

    Args:
        cache ([`FeatureCache`], *optional*): Where outputs are kept beyond the batch.

    Attributes:
        mode (`str`): `"train"` or `"eval"`: whose batch is being worked on.
        filling (`bool`): Whether the pass that encodes the batch is still to come.
    """

    def __init__(self, cache: FeatureCache | None = None) -> None:
        self.cache = cache
        self.mode: Mode = "train"
        self.filling = False
        self._kept: dict[Mode, dict[MediaKey, torch.Tensor]] = {"train": {}, "eval": {}}

    def begin(self, mode: Mode) -> None:
        """A new generation batch: outputs of the one before are dropped."""
        self.mode, self.filling = mode, True
        for dropped in ("train", "eval") if mode == "train" else ("eval",):
            self._kept[dropped] = {}

    def get(self, key: MediaKey, device: torch.device) -> torch.Tensor | None:
        """Encoder output `(rows, width)` of an item, from memory, else from disk."""
        for kept in self._kept.values():
            if key in kept:
                return kept[key]
        if self.cache is None or (features := self.cache.load(key)) is None:
            return None
        self._kept[self.mode][key] = features.to(device)
        return self._kept[self.mode][key]

    def put(self, key: MediaKey, features: torch.Tensor, is_lasting: bool) -> torch.Tensor:
        """Keep an item's output until the next batch; on disk too, if there is a cache and the encoder is frozen."""
        kept = features.detach().clone()  # a view would keep the outputs of all items alive
        self._kept[self.mode][key] = kept
        if self.cache is not None and is_lasting:
            self.cache.save(key, kept)
        return kept

    def features_of(
        self,
        rows: Sequence[EncodedPrompt],
        modality: str,
        device: torch.device,
        encode: Callable[[Sequence[Item]], Sequence[torch.Tensor]],
        *,
        may_encode: bool = True,
        is_lasting: bool = True,
    ) -> torch.Tensor | None:
        """
        Encoder outputs `(rows, width)` of a modality for prompts in their order; `None` if they have no such item.

        Args:
            rows (sequence of [`EncodedPrompt`]): Prompts.
            modality (`str`): Modality.
            device (`torch.device`): Where the outputs are wanted.
            encode (`Callable`): Items to their outputs, one each; called at most once, with the items that are missing.
            may_encode (`bool`): Whether it may be called now.
            is_lasting (`bool`): Whether the encoder is frozen, so that outputs may be kept on disk.

        Raises:
            `MediaError`: An item is missing and may not be encoded now, or what is kept does not fit a prompt.
        """
        sources: dict[MediaKey, Item] = {}
        names: dict[MediaKey, str] = {}
        for row in rows:
            for key, item in zip(row.items.get(modality, ()), split_items(row.media, modality), strict=True):
                sources.setdefault(key, item)
                names.setdefault(key, row.name)
        known = {key: self.get(key, device) for key in sources}
        if missing := [key for key, features in known.items() if features is None]:
            if not may_encode:
                raise MediaError(
                    f"row {names[missing[0]]!r}: its {modality} was not encoded with the generation batch, and with "
                    "several processes it cannot be encoded later; sample with the model's `generate`"
                )
            for key, features in zip(missing, encode([sources[key] for key in missing]), strict=True):
                known[key] = self.put(key, features, is_lasting)
        parts = [known[key] for row in rows for key in row.items.get(modality, ())]
        for row in rows:
            kept = sum(len(features) for key in row.items.get(modality, ()) if (features := known[key]) is not None)
            if kept != row.counts.get(modality, 0):
                raise MediaError(
                    f"row {row.name!r}: its {modality} items have {kept} encoded rows, its prompt has "
                    f"{row.counts.get(modality, 0)} placeholders"
                )
        return torch.cat([part for part in parts if part is not None]) if parts else None
