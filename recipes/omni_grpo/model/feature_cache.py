# SPDX-License-Identifier: Apache-2.0
"""Outputs of frozen encoders on disk, across epochs and runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from omni_grpo.data.media.entry_store import EntryStore
from omni_grpo.data.media.keys import MediaKey
from omni_grpo.data.media.reader import media_fingerprint


class FeatureCache:
    """
    One safetensors entry an item, named after what it was made from: the media file's bytes and settings, the
    processor, and the encoder's weights. Several processes may share a folder; [`EntryStore`] says how entries are
    written, checked and dropped.

    Args:
        folder (`str` or `Path`): Made if it is not there.
        encoders (`dict[str, str]`): What stands for processor and weights, by modality; see [`encoder_fingerprint`].
        max_gb (`float`, defaults to `20.0`): Limit of the folder, in GB.

    Attributes:
        loaded, saved (`int`): Entries read and written so far.
    """

    def __init__(self, folder: str | Path, encoders: Mapping[str, str], max_gb: float = 20.0) -> None:
        self.encoders = dict(encoders)
        self.loaded = self.saved = 0
        self._store = EntryStore(Path(folder), int(max_gb * 2**30))
        self._names: dict[MediaKey, str] = {}  # a file's content is taken to stay as it is while a run lasts

    def load(self, key: MediaKey) -> torch.Tensor | None:
        """Encoder output `(rows, width)` of an item; `None` if it is not there, or damaged."""
        if key.modality not in self.encoders or (content := self._store.read(self.name_of(key))) is None:
            return None
        self.loaded += 1
        return load(content)["features"]

    def save(self, key: MediaKey, features: torch.Tensor) -> None:
        """Write an item's output `(rows, width)`."""
        if key.modality in self.encoders:
            self._store.write(self.name_of(key), save({"features": features.detach().cpu().contiguous()}))
            self.saved += 1

    def name_of(self, key: MediaKey) -> str:
        """The entry's name, 64 hexadecimal digits."""
        if key not in self._names:
            parts = [media_fingerprint(key.path, key.settings, key.segment), key.modality, key.is_blank]
            parts += [key.frame_order] if key.frame_order else []
            whole = json.dumps([*parts, self.encoders[key.modality]])
            self._names[key] = hashlib.sha256(whole.encode()).hexdigest()
        return self._names[key]


def encoder_fingerprint(tower: Sequence[Any], *settings: Any) -> str:
    """
    Equal for towers of equal configuration, weights, types of weights and `settings`; 64 hexadecimal digits.

    Under ZeRO-3 all ranks call it together, since each weight is gathered from all.
    """
    configs = [part.config.to_dict() | {"_name_or_path": None} for part in tower if hasattr(part, "config")]
    digest = hashlib.sha256(json.dumps([configs, *settings], sort_keys=True, default=str).encode())
    for name, parameter in (named for part in tower for named in part.named_parameters()):
        digest.update(f"{name} {parameter.dtype}".encode())
        if hasattr(parameter, "ds_id"):
            import deepspeed

            with deepspeed.zero.GatheredParameters([parameter]):
                digest.update(_bytes(parameter))
        else:
            digest.update(_bytes(parameter))
    return digest.hexdigest()


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
