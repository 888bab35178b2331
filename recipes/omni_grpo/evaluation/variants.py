# SPDX-License-Identifier: Apache-2.0
"""The same questions with other evidence: media taken away, blanked, exchanged between rows, or put out of order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from omni_grpo.data.media.keys import sound_source
from omni_grpo.data.media.segment import Segment, segment_of
from omni_grpo.data.rows.prompts import Messages, Part

Source = tuple[str, Segment]  # a file, and which seconds of it
SENSES: dict[str, tuple[str, ...]] = {"audio": ("audio",), "video": ("video", "image")}


@dataclass(frozen=True)
class Variant:
    """
    What is done to a prompt's media, by modality (`audio`, `video`, `image`); its text stays as it is.

    Args:
        removed (`tuple[str, ...]`): Items taken out.
        blanked (`tuple[str, ...]`): Items whose content becomes silence or grey.
        swapped (`tuple[str, ...]`):
            Items replaced by those of another row. The row's own gold answer is then no longer the truth: accuracy
            against it measures how far the evidence is ignored.
        shuffled (`tuple[str, ...]`): Items whose frames are put into another order.
    """

    removed: tuple[str, ...] = ()
    blanked: tuple[str, ...] = ()
    swapped: tuple[str, ...] = ()
    shuffled: tuple[str, ...] = ()

    @property
    def touched(self) -> frozenset[str]:
        """Modalities that are changed in any way."""
        return frozenset((*self.removed, *self.blanked, *self.swapped, *self.shuffled))


VARIANTS: dict[str, Variant] = {
    "full": Variant(),
    "no_audio": Variant(removed=SENSES["audio"]),
    "no_video": Variant(removed=SENSES["video"]),
    "neither": Variant(removed=(*SENSES["audio"], *SENSES["video"])),
    "silent": Variant(blanked=SENSES["audio"]),
    "blank": Variant(blanked=SENSES["video"]),
    "swapped_audio": Variant(swapped=SENSES["audio"]),
    "swapped_video": Variant(swapped=SENSES["video"]),
    "shuffled_frames": Variant(shuffled=("video",)),
}


def alters(messages: Messages, variant: str) -> bool:
    """Whether a variant changes anything in a prompt."""
    touched = VARIANTS[variant].touched
    return any(modality in touched for modality, _ in items_of(messages))


def items_of(messages: Messages) -> list[tuple[str, Source]]:
    """Modality and source of each item of a prompt; a video's interleaved sound is an item of its own after it."""
    items = []
    for part in (part for message in messages for part in message["content"] if part["type"] != "text"):
        items.append((part["type"], _source(part)))
        if part["audio_in_video"]:
            items.append(("audio", _source(sound_source(part))))
    return items


def vary(messages: Messages, variant: str, name: str = "", donor: Messages | None = None) -> Messages:
    """
    The prompt under a variant. What is blanked is the encoder's to do, see
    [`~omni_grpo.data.encoding.prompt.encode_prompt`].

    Args:
        messages (`list[dict]`): From [`build_messages`].
        variant (`str`): Key of [`VARIANTS`].
        name (`str`): The row's id, which decides the order of shuffled frames.
        donor (`list[dict]`, *optional*): The lending row's prompt, where media are swapped.

    Raises:
        `ValueError`: Media are to be swapped and there is no donor, or its items are not as many.
    """
    done = VARIANTS[variant]
    if done.swapped and donor is None:
        raise ValueError(f"row {name!r}: {variant} needs another row's media")
    lent = iter([_fields(source) for modality, source in items_of(donor or []) if modality in done.swapped])
    varied = [{**m, "content": [v for p in m["content"] for v in _varied(p, done, name, lent)]} for m in messages]
    if next(lent, None) is not None:
        raise ValueError(f"row {name!r}: {variant}: the other row has more items")
    return varied


def _source(part: Part) -> Source:
    return part["path"], segment_of(part)


def _fields(source: Source) -> Part:
    return {"path": source[0], **asdict(source[1])}


def _varied(part: Part, done: Variant, name: str, lent: Iterator[Part]) -> list[Part]:
    if part["type"] == "text":
        return [part]
    varied = {**part, "audio_in_video": part["audio_in_video"] and "audio" not in done.removed}
    if part["type"] in done.removed:  # what was heard inside a picture is still heard without it
        return [{**varied, "type": "audio", "audio_in_video": False}] if varied["audio_in_video"] else []
    try:
        if part["type"] in done.swapped:
            varied |= next(lent)
        if varied["audio_in_video"] and done.swapped:  # the sound of one file inside the picture of another
            varied["sound"] = next(lent) if "audio" in done.swapped else _fields(_source(part))
    except StopIteration as error:
        raise ValueError(f"row {name!r}: the other row has fewer items") from error
    if part["type"] in done.shuffled:
        varied["frame_order"] = name
    return [varied]
