# SPDX-License-Identifier: Apache-2.0
"""Media into the model, counted: every pass sees every item of every row, on every rank, or it stops.

A forward pre-hook on the thinker runs the audio and vision towers itself, always in the same order, and puts their
outputs at the placeholders. It is the one place where three things are held:

- placeholder tokens in the ids = rows that the towers return, per modality. Features that are missing, left over or
  placed elsewhere raise [`MediaError`] with the row's name. (Unhooked, the model takes a prompt with video
  placeholders and no video without a word, and ignores surplus audio features.)
- with several processes, a rank that has no item of some modality runs that tower on a tiny dummy whose output is
  added with weight zero, so that all ranks make the same tower calls: ZeRO-3 gathers a tower's parameters and ZeRO-2
  reduces its gradients collectively, and both hang where one rank stays away.
- during cached decoding the towers are not run again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from omni_grpo.encoding import MODALITIES, EncodedPrompt
from omni_grpo.media import MediaError

FEATURE_KEYS = {"audio": "input_features", "image": "pixel_values", "video": "pixel_values_videos"}


def find_thinker(model: nn.Module) -> Any:
    """The submodule that holds the towers and the language model, through any PEFT or engine wrapping."""
    for module in model.modules():
        if all(hasattr(module, name) for name in ("audio_tower", "visual", "language_model")):
            return module
    raise ValueError(
        f"{type(model).__name__} has no audio tower, vision tower and language model side by side; "
        "supported: Qwen2.5-Omni's thinker (`Qwen2_5OmniThinkerForConditionalGeneration`)"
    )


class MediaEmbedder:
    """
    The pre-hook. Attach it with [`attach_media_embedder`].

    Args:
        everywhere (iterable of `str`): Modalities whose tower runs in every pass, on a dummy where a batch has none.

    Attributes:
        passes (`Counter`): Tower passes since the start, per modality, dummies not counted.
        rows (`Counter`): Rows that towers returned since the start, per modality, dummies not counted.
    """

    def __init__(self, everywhere: Iterable[str] = ()) -> None:
        self.everywhere = frozenset(everywhere)
        self.passes: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self._expected: Sequence[EncodedPrompt] | None = None

    @contextmanager
    def expecting(self, rows: Sequence[EncodedPrompt]):
        """Within: each pass that sees whole prompts must hold exactly these rows, in this order."""
        self._expected, before = rows, self._expected
        try:
            yield self
        finally:
            self._expected = before

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
            features = self._encode(thinker, modality, kwargs)
            if features is not None:
                self._check_count(modality, placed[modality], features.shape[0])
                features = features.to(embeds.device, embeds.dtype)
                embeds = embeds.masked_scatter(placed[modality].unsqueeze(-1), features)
            elif placed[modality].any():
                self._check_count(modality, placed[modality], 0)
            elif modality in self.everywhere:
                embeds = embeds + 0.0 * _dummy(thinker, modality).to(embeds.device, embeds.dtype).sum()
        kwargs.update(dict.fromkeys(FEATURE_KEYS.values()), inputs_embeds=embeds)
        return args[1:] if args else args, kwargs

    def _encode(self, thinker: Any, modality: str, kwargs: dict[str, Any]) -> torch.Tensor | None:
        features = kwargs.get(FEATURE_KEYS[modality])
        if features is None:
            return None
        if modality == "audio":
            out = thinker.get_audio_features(features, kwargs.get("feature_attention_mask"), return_dict=True)
            encoded = out.last_hidden_state
        else:
            encode = thinker.get_image_features if modality == "image" else thinker.get_video_features
            encoded = torch.cat(encode(features, kwargs[f"{modality}_grid_thw"], return_dict=True).pooler_output)
        self.passes[modality] += 1
        self.rows[modality] += encoded.shape[0]
        return encoded

    def _check_rows(self, placed: dict[str, torch.Tensor]) -> None:
        if self._expected is None:
            return
        counts = {m: mask.sum(-1).tolist() for m, mask in placed.items()}
        if len(self._expected) != len(counts["audio"]):
            raise MediaError(f"{len(counts['audio'])} rows in a pass that was given media for {len(self._expected)}")
        for i, row in enumerate(self._expected):
            for modality in MODALITIES:
                if counts[modality][i] != row.counts.get(modality, 0):
                    raise MediaError(
                        f"row {row.name!r}: {counts[modality][i]} {modality} placeholders in the ids of this pass, "
                        f"{row.counts.get(modality, 0)} in its prompt; media and rows have come apart"
                    )

    def _check_count(self, modality: str, mask: torch.Tensor, returned: int) -> None:
        wanted = int(mask.sum())
        if wanted == returned:
            return
        rows = [i for i, n in enumerate(mask.sum(-1).tolist()) if n]
        names = [self._expected[i].name for i in rows] if self._expected is not None else rows
        raise MediaError(
            f"{wanted} {modality} placeholders in rows {names[:8]}, but {returned} encoded {modality} rows: "
            "the pass would not see what the prompt shows"
        )


def _dummy(thinker: Any, modality: str) -> torch.Tensor:
    """
    Encoder output for the smallest item that the tower takes.

    Parameters are looked at through `parameters()` alone: under ZeRO-3 a name such as `conv1.weight` gathers the
    weight from all ranks, and only those that need a dummy come here.
    """
    if modality == "audio":
        parameter = next(thinker.audio_tower.parameters())
        bins = thinker.config.audio_config.num_mel_bins
        mel = torch.zeros(1, bins, 4, device=parameter.device, dtype=parameter.dtype)
        mask = torch.ones(1, 4, dtype=torch.long, device=parameter.device)
        return thinker.get_audio_features(mel, mask, return_dict=True).last_hidden_state
    vision = thinker.config.vision_config
    side = vision.spatial_merge_size
    dim = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    parameter = next(thinker.visual.parameters())
    patches = torch.zeros(side * side, dim, device=parameter.device, dtype=parameter.dtype)
    grid = torch.tensor([[1, side, side]], device=parameter.device)
    encode = thinker.get_image_features if modality == "image" else thinker.get_video_features
    return torch.cat(encode(patches, grid, return_dict=True).pooler_output)


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
