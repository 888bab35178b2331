# SPDX-License-Identifier: Apache-2.0
"""What a media item is, so that it is recognised wherever it comes again: under another question, or in another row."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from omni_grpo.data.media.segment import WHOLE, Segment, segment_of
from omni_grpo.data.media.settings import MediaSettings


@dataclass(frozen=True)
class MediaKey:
    """
    Equal for items that make equal inputs of an encoder, within a run that has one processor.

    Args:
        modality (`str`): Whose encoder takes it: `audio`, `image` or `video`.
        path (`str`): The file.
        is_blank (`bool`): Whether its content was replaced by silence or grey.
        settings ([`MediaSettings`]): How it was read.
        frame_order (`str`): What decided the order of its frames, where it is another than the file's.
        segment ([`Segment`]): Which seconds of the file.
    """

    modality: str
    path: str
    is_blank: bool
    settings: MediaSettings
    frame_order: str = ""
    segment: Segment = WHOLE


def media_keys(
    messages: list[dict[str, Any]], settings: MediaSettings, blank: Collection[str] = ()
) -> dict[str, tuple[MediaKey, ...]]:
    """
    Items of a prompt by modality, in the order in which the model meets them; modalities without items are left out.

    Args:
        messages (`list[dict]`): From [`build_messages`].
        settings ([`MediaSettings`]): How the items are read.
        blank (collection of `str`): Modalities whose content is replaced.
    """
    keys: dict[str, tuple[MediaKey, ...]] = {}
    for modality, source, part in media_items(messages):
        order = part.get("frame_order", "") if modality == "video" else ""
        key = MediaKey(modality, str(source["path"]), modality in blank, settings, order, segment_of(source))
        keys[modality] = (*keys.get(modality, ()), key)
    return keys


def media_items(messages: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """
    Each medium of a prompt in the order in which the model meets it: its modality, what holds its `path`, `start` and
    `end`, and the part that it belongs to (a video's, for a sound that is interleaved with its frames).
    """
    for part in (part for message in messages for part in message["content"] if part["type"] != "text"):
        yield part["type"], part, part
        if part["audio_in_video"]:
            yield "audio", sound_source(part), part


def sound_source(part: dict[str, Any]) -> dict[str, Any]:
    """What holds `path`, `start` and `end` of a video's interleaved sound: the part, or for diagnostics its `sound`."""
    return part.get("sound") or part
