# SPDX-License-Identifier: Apache-2.0
"""What a prompt is to the model: token ids and media features of one row, and their collation over rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from omni_grpo.data.media.keys import MediaKey
from omni_grpo.data.media.settings import MediaError
from omni_grpo.families import MODALITIES
from omni_grpo.families.family import cat_padded


@dataclass(frozen=True)
class EncodedPrompt:
    """
    One prompt, ready for the model.

    Args:
        input_ids (`list[int]`): Token ids, generation header included, placeholders expanded; not padded.
        media (`dict[str, Tensor]`):
            Processor outputs of this row's media, e.g. `pixel_values_videos` `(patches, dim)`, `video_grid_thw`
            `(videos, 3)`, `input_features` `(sounds, mel bins, frames)`.
        lengths (`dict[str, tuple[int, ...]]`):
            Placeholder tokens of each item by modality, in the order of `media`; as many as its encoder returns rows.
        name (`str`): What errors call this row.
        items (`dict[str, tuple[MediaKey, ...]]`): What each item is, by modality, in the same order.
        features (`dict[str, Tensor | None]`): What the encoders made of the media already, `(placeholders, width)` by
            modality, `None` where this prompt has no such item. The prompts of a batch have the same keys, on all
            processes: whether a pass runs a tower never depends on a process's rows.
    """

    input_ids: list[int]
    media: dict[str, torch.Tensor] = field(default_factory=dict)
    lengths: dict[str, tuple[int, ...]] = field(default_factory=dict)
    name: str = ""
    items: dict[str, tuple[MediaKey, ...]] = field(default_factory=dict)
    features: dict[str, torch.Tensor | None] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Placeholder tokens by modality."""
        return {modality: sum(self.lengths.get(modality, ())) for modality in MODALITIES}

    def keys(self, modality: str) -> Sequence[Any]:
        """What its items of a modality are recognised by in other rows."""
        if self.items or not self.media:
            return self.items.get(modality, ())
        return [
            (id(self.media), i) for i in range(len(self.lengths.get(modality, ())))
        ]  # made by hand: known by itself

    def keeping(self, modalities: Collection[str]) -> EncodedPrompt:
        """Without the features of other modalities than these."""
        return replace(self, features={m: found for m, found in self.features.items() if m in modalities})

    @property
    def identity(self) -> Any:
        """Equal for rows that show the model the same prompt: the same tokens and the same media."""
        # A row that was made by hand does not say what its media are.
        media = tuple(sorted(self.items.items())) if self.items or not self.media else id(self.media)
        return tuple(self.input_ids), media


def collate_media(rows: Sequence[EncodedPrompt], without: Collection[str] = ()) -> dict[str, torch.Tensor]:
    """
    Media of several rows as one batch of model inputs, in row order, less the keys in `without`; empty for text-only
    rows.

    Raises:
        `MediaError`: Rows with and without interleaved sound meet (the model takes one flag for a whole batch).
    """
    videos = [row for row in rows if "pixel_values_videos" in row.media]
    names = [row.name for row in videos if "use_audio_in_video" not in row.media]
    if names and len(names) < len(videos):
        raise MediaError(
            f"rows {names[:5]} have videos without interleaved sound in a batch with videos that have it; "
            "one run takes one kind: give all their sound, or set `load_audio_from_video: false`"
        )
    batch: dict[str, torch.Tensor] = {}
    for key in dict.fromkeys(key for row in rows for key in row.media if key not in without):
        tensors = [row.media[key] for row in rows if key in row.media]
        batch[key] = cat_padded(tensors) if tensors[0].ndim else tensors[0]  # the flag of the batch
    return batch
