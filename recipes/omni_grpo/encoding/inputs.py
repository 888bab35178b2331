# SPDX-License-Identifier: Apache-2.0
"""What a prompt is to the model: token ids and media features of one row, and their collation over rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import ProcessorMixin

from omni_grpo.media.keys import MediaKey
from omni_grpo.media.settings import MediaError

MODALITIES = ("audio", "image", "video")  # in the order in which the model runs its towers


@dataclass(frozen=True)
class EncodedPrompt:
    """
    One prompt, ready for the model.

    Args:
        input_ids (`list[int]`): Token ids, generation header included, placeholders expanded; not padded.
        media (`dict[str, Tensor]`):
            Processor outputs of this row's media, e.g. `pixel_values_videos` `(patches, dim)`, `video_grid_thw`
            `(videos, 3)`, `input_features` `(sounds, mel bins, frames)`.
        counts (`dict[str, int]`): Placeholder tokens per modality, equal to the rows its encoder returns.
        name (`str`): What errors call this row.
        items (`dict[str, tuple[MediaKey, ...]]`): What each item is, by modality, in the order of `media`.
    """

    input_ids: list[int]
    media: dict[str, torch.Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    name: str = ""
    items: dict[str, tuple[MediaKey, ...]] = field(default_factory=dict)

    @property
    def identity(self) -> Any:
        """Equal for rows that show the model the same prompt: the same tokens and the same media."""
        # A row that was made by hand does not say what its media are.
        media = tuple(sorted(self.items.items())) if self.items or not self.media else id(self.media)
        return tuple(self.input_ids), media


def placeholder_ids(processor: ProcessorMixin) -> dict[str, int]:
    """Token id of each modality's placeholder."""
    return {m: getattr(processor, f"{m}_token_id") for m in MODALITIES}


def media_control_ids(processor: ProcessorMixin) -> list[int]:
    """
    Every token id that means media to the model: placeholders and their begin and end marks.

    None of them may ever be sampled: one that is makes the next forward pass fail or misplace features.
    """
    names = [f"{m}_token" for m in MODALITIES]
    names += ["vision_bos_token", "vision_eos_token", "audio_bos_token", "audio_eos_token"]
    ids = processor.tokenizer.convert_tokens_to_ids([getattr(processor, name) for name in names])
    return sorted(set(ids))


def feature_rows(media: dict[str, torch.Tensor], merge_size: int) -> dict[str, int]:
    """Rows that each encoder returns for these features (Qwen2.5-Omni: merged patches; pooled audio frames)."""
    rows: dict[str, int] = dict.fromkeys(MODALITIES, 0)
    for modality in ("image", "video"):
        if (grid := media.get(f"{modality}_grid_thw")) is not None:
            rows[modality] = int((grid.prod(-1) // merge_size**2).sum())
    if (mask := media.get("feature_attention_mask")) is not None:
        lengths = (mask.sum(-1) - 1) // 2 + 1
        rows["audio"] = int(((lengths - 2) // 2 + 1).sum())
    return rows


def collate_media(rows: Sequence[EncodedPrompt], without: Collection[str] = ()) -> dict[str, torch.Tensor]:
    """
    Media of several rows as one batch of model inputs, in row order, less the keys in `without`; empty for text-only
    rows.

    Raises:
        `MediaError`: Rows with and without interleaved sound meet (the model takes one flag for a whole batch).
    """
    flags = {"use_audio_in_video" in row.media for row in rows if "pixel_values_videos" in row.media}
    if flags == {True, False}:
        names = [
            row.name for row in rows if "pixel_values_videos" in row.media and "use_audio_in_video" not in row.media
        ]
        raise MediaError(
            f"rows {names[:5]} have videos without interleaved sound in a batch with videos that have it; "
            "one run takes one kind: give all their sound, or set `load_audio_from_video: false`"
        )
    batch: dict[str, torch.Tensor] = {}
    keys = dict.fromkeys(key for row in rows for key in row.media if key not in without)
    for key in keys:
        tensors = [row.media[key] for row in rows if key in row.media]
        if key in ("input_features", "feature_attention_mask"):
            longest = max(t.shape[-1] for t in tensors)
            tensors = [torch.nn.functional.pad(t, (0, longest - t.shape[-1])) for t in tensors]
        batch[key] = tensors[0] if key == "use_audio_in_video" else torch.cat(tensors)
    return batch
