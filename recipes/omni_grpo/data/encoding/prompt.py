# SPDX-License-Identifier: Apache-2.0
"""Messages to model inputs.

A prompt is encoded once, whoever asks (SFT, sampling, scoring, evaluation), and every encoding is checked: as many
placeholder tokens as the encoders will return rows, for each modality.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch

from omni_grpo.data.encoding.checks import (
    can_escape,
    control_token_problems,
    escaped,
    refuse_long_sounds,
    without_escapes,
)
from omni_grpo.data.encoding.inputs import EncodedPrompt
from omni_grpo.data.media.keys import media_items, media_keys
from omni_grpo.data.media.reader import MediaReader, read_media
from omni_grpo.data.media.segment import segment_of
from omni_grpo.data.media.settings import MediaError, MediaSettings
from omni_grpo.data.rows.prompts import Messages, Part
from omni_grpo.families import MODALITIES, Family, family_of_processor, tokenizer_of


def _load(
    messages: Messages, settings: MediaSettings, blank: Collection[str], read: MediaReader
) -> tuple[dict[str, list[Any]], list[float], list[int | None]]:
    """Decoded media of a prompt by modality, in order; each video's sampled rate; each interleaved sound's video."""
    loaded: dict[str, list[Any]] = {m: [] for m in MODALITIES}
    rates: list[float] = []
    video_of_sound: list[int | None] = []
    for modality, source, part in media_items(messages):
        item = read(modality, source["path"], settings, segment_of(source))
        if modality == "video":
            rates.append(item.fps)
            item = _ordered(item.frames, part)
        elif modality == "audio":
            video_of_sound.append(len(loaded["video"]) - 1 if part["audio_in_video"] else None)
        loaded[modality].append(item)
    for modality in blank:  # silence, or mid-grey
        loaded[modality] = [np.full_like(item, 0 if modality == "audio" else 128) for item in loaded[modality]]
    return loaded, rates, video_of_sound


def _shown(part: Part, tokenizer: Any) -> Part:
    """A part as the chat template sees it."""
    return {"type": part["type"]} | ({"text": escaped(tokenizer, part["text"])} if part["type"] == "text" else {})


def _ordered(frames: np.ndarray, part: Part) -> np.ndarray:
    """Frames `(T, H, W, 3)` as they come; or, for diagnostics, in the order that the text in `frame_order` decides."""
    if not (seed := part.get("frame_order")):
        return frames
    if len(frames) < 2:
        raise MediaError(f"{part['path']}: a single frame has no other order; raise `num_frames`")
    rng, order = random.Random(seed), list(range(len(frames)))
    while order == sorted(order):
        rng.shuffle(order)
    return frames[order]


def _interleaved(messages: Messages, rates: list[float], name: str) -> bool:
    flags = {part["audio_in_video"] for modality, _, part in media_items(messages) if modality == "video"}
    if flags == {True, False}:
        raise MediaError(
            f"row {name!r} mixes videos with and without interleaved sound, which one forward pass cannot hold; "
            "give every video its sound, or set `load_audio_from_video: false`"
        )
    if True in flags and len(set(rates)) > 1:
        raise MediaError(
            f"row {name!r} interleaves the sound of several videos sampled at different rates {rates}; "
            "use `video_sampling: fps` or `load_audio_from_video: false`"
        )
    return True in flags


def encode_prompt(
    processor: Any,
    messages: Messages,
    settings: MediaSettings,
    name: str = "",
    max_prompt_length: int | None = None,
    blank: Collection[str] = (),
    read: MediaReader = read_media,
    escape: bool = False,
) -> EncodedPrompt:
    """
    Decode a prompt's media and run the processor on it.

    Args:
        processor (`ProcessorMixin`): The model's processor.
        messages (`list[dict]`): From [`build_messages`].
        settings ([`MediaSettings`]): How media are sampled and capped.
        name (`str`): The row's id, for errors.
        max_prompt_length (`int`, *optional*): Longest prompt allowed, in tokens, media included.
        blank (collection of `str`): Modalities whose content is replaced by silence or grey, for diagnostics.
        escape (`bool`): Whether control tokens in texts are written as ordinary text, not refused.
        read ([`~omni_grpo.data.media.reader.MediaReader`]): Reads files; [`~omni_grpo.data.media.decode_cache.DecodeCache.read`] from disk.

    Raises:
        `MediaError`: A file cannot be read as asked or is too long, or a text holds a special token.
        `ValueError`: The prompt is longer than `max_prompt_length`.
    """
    family, tokenizer = family_of_processor(processor), tokenizer_of(processor)
    texts = [part["text"] for message in messages for part in message["content"] if part["type"] == "text"]
    if not (escape and can_escape(tokenizer)) and (problem := next(control_token_problems(tokenizer, texts), None)):
        raise MediaError(f"row {name!r}: {problem}")
    if problem := family.cannot_take(modality for modality, _, _ in media_items(messages)):
        raise MediaError(f"row {name!r}: {problem}")
    if problem := family.cannot_take(modality for modality, _, _ in media_items(messages)):
        raise MediaError(f"row {name!r}: {problem}")
    try:
        loaded, rates, video_of_sound = _load(messages, settings, blank, read)
        refuse_long_sounds(processor, loaded["audio"])
    except MediaError as error:
        raise MediaError(f"row {name!r}: {error}") from error
    # The template sees type and text alone: some templates test for keys such as 'audio', not for their values.
    conversation = [
        {"role": m["role"], "content": family.content([_shown(p, tokenizer) for p in m["content"]])} for m in messages
    ]
    text = processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    sized = bool(settings.min_pixels or settings.max_pixels)  # by `read_video` and `read_image`
    inputs = family.process(
        processor,
        text=[text],
        images=loaded["image"] or None,
        videos=loaded["video"] or None,
        audio=loaded["audio"] or None,
        return_tensors="pt",
        return_text_replacement_offsets=True,
        **family.processor_kwargs(loaded, rates, sized, video_of_sound),
    )
    input_ids = without_escapes(tokenizer, inputs.pop("input_ids")[0].tolist())
    replaced = inputs.pop("text_replacement_offsets", [[]])[0]
    for of_tokens in ("attention_mask", "mm_token_type_ids"):  # made anew for a batch
        inputs.pop(of_tokens, None)
    media = {k: v if isinstance(v, torch.Tensor) else torch.tensor(v) for k, v in inputs.items()}
    media.pop("num_audio_tokens", None)
    media = family.finish(media, rates, processor)
    if _interleaved(messages, rates, name):
        media["use_audio_in_video"] = torch.tensor(True)
    lengths = _lengths(family, processor, input_ids, replaced, loaded, name)
    encoded = EncodedPrompt(input_ids, media, lengths, name, media_keys(messages, settings, blank))
    if max_prompt_length is not None and len(input_ids) > max_prompt_length:
        media_tokens = ", ".join(f"{n} {m}" for m, n in encoded.counts.items() if n)
        raise ValueError(
            f"row {name!r}: the prompt has {len(input_ids)} tokens ({media_tokens or 'no media'}), "
            f"`max_prompt_length` is {max_prompt_length}; lower frames or pixels, shorten the row, or raise the limit"
        )
    return encoded


def _lengths(
    family: Family,
    processor: Any,
    input_ids: Sequence[int],
    replaced: Sequence[dict[str, Any]],
    loaded: dict[str, list[Any]],
    name: str,
) -> dict[str, tuple[int, ...]]:
    """Placeholders of each item, as the processor wrote them in its place; proved by the ids."""
    lengths: dict[str, tuple[int, ...]] = {}
    for modality, token in family.placeholders(processor).items():
        mark = tokenizer_of(processor).convert_ids_to_tokens(token)
        # A video whose sound is interleaved stands for both.
        found = tuple(n for part in replaced if (n := part["replacement"].count(mark)))
        if len(found) < len(loaded[modality]) and modality == "audio":
            seconds = min(map(len, loaded["audio"])) / processor.feature_extractor.sampling_rate
            raise MediaError(
                f"row {name!r}: a sound lasts {seconds:.3f} s, too short for this model to hear; take a longer one, or "
                "drop the row"
            )
        if len(found) != len(loaded[modality]) or sum(found) != input_ids.count(token):
            raise MediaError(
                f"row {name!r}: {len(loaded[modality])} {modality} items, placeholders of {len(found)}, "
                f"{sum(found)} tokens of {input_ids.count(token)}; this processor and its chat template do not fit "
                "each other"
            )
        if found:
            lengths[modality] = found
    return lengths
