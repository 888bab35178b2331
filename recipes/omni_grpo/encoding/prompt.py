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
from transformers import ProcessorMixin

from omni_grpo.encoding.checks import control_token_problems, escaped, refuse_long_sounds, without_escapes
from omni_grpo.encoding.inputs import MODALITIES, EncodedPrompt, feature_rows, placeholder_ids
from omni_grpo.media.keys import media_keys, sound_source
from omni_grpo.media.reader import MediaReader, read_media
from omni_grpo.media.segment import segment_of
from omni_grpo.media.settings import MediaError, MediaSettings
from omni_grpo.rows.prompts import Messages, Part


def _load(
    messages: Messages, settings: MediaSettings, blank: Collection[str], read: MediaReader
) -> tuple[dict[str, list[Any]], list[float], list[int | None]]:
    """Decoded media of a prompt by modality, in order; each video's sampled rate; each interleaved sound's video."""
    loaded: dict[str, list[Any]] = {m: [] for m in MODALITIES}
    rates: list[float] = []
    video_of_sound: list[int | None] = []
    for message in messages:
        for part in message["content"]:
            if part["type"] == "video":
                video = read("video", part["path"], settings, segment_of(part))
                loaded["video"].append(_ordered(video.frames, part))
                rates.append(video.fps)
                if part["audio_in_video"]:
                    source = sound_source(part)
                    loaded["audio"].append(read("audio", source["path"], settings, segment_of(source)))
                    video_of_sound.append(len(loaded["video"]) - 1)
            elif part["type"] == "audio":
                loaded["audio"].append(read("audio", part["path"], settings, segment_of(part)))
                video_of_sound.append(None)
            elif part["type"] == "image":
                loaded["image"].append(read("image", part["path"], settings))
    for modality in blank:  # silence, or mid-grey
        loaded[modality] = [np.full_like(item, 0 if modality == "audio" else 128) for item in loaded[modality]]
    return loaded, rates, video_of_sound


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


def _check_audible(sounds: list[Any], mask: torch.Tensor, rate: int, name: str) -> None:
    """A sound of a few milliseconds becomes no token at all, and the model would not hear it."""
    for sound, heard in zip(sounds, mask, strict=True):
        if not feature_rows({"feature_attention_mask": heard[None]}, 1)["audio"]:
            raise MediaError(
                f"row {name!r}: a sound lasts {len(sound) / rate:.3f} s, too short for this model to hear; "
                "take a longer one, or drop the row"
            )


def _interleaved(messages: Messages, rates: list[float], name: str) -> bool:
    flags = {part["audio_in_video"] for m in messages for part in m["content"] if part["type"] == "video"}
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
        read ([`~omni_grpo.media.reader.MediaReader`]): Reads files; [`~omni_grpo.media.decode_cache.DecodeCache.read`] from disk.

    Raises:
        `MediaError`: A file cannot be read as asked or is too long, or a text holds a special token.
        `ValueError`: The prompt is longer than `max_prompt_length`.
    """
    tokenizer = processor.tokenizer
    texts = [part["text"] for message in messages for part in message["content"] if part["type"] == "text"]
    if not escape and (problem := next(control_token_problems(tokenizer, texts), None)):
        raise MediaError(f"row {name!r}: {problem}")
    try:
        loaded, rates, video_of_sound = _load(messages, settings, blank, read)
        refuse_long_sounds(processor, loaded["audio"])
    except MediaError as error:
        raise MediaError(f"row {name!r}: {error}") from error
    interleaved = _interleaved(messages, rates, name)
    # The template sees type and text alone: some templates test for keys such as 'audio', not for their values.
    conversation = [
        {
            "role": m["role"],
            "content": [
                {"type": p["type"]} | ({"text": escaped(tokenizer, p["text"])} if p["type"] == "text" else {})
                for p in m["content"]
            ],
        }
        for m in messages
    ]
    text = processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    videos_kwargs: dict[str, Any] = {"do_sample_frames": False, "cap_pixels_per_frame": True}
    images_kwargs: dict[str, Any] = {}
    if settings.min_pixels or settings.max_pixels:  # sized by `read_video` and `read_image` already
        videos_kwargs["do_resize"] = images_kwargs["do_resize"] = False
    if interleaved:
        videos_kwargs["fps"] = rates[0]
    inputs = processor(
        text=[text],
        images=loaded["image"] or None,
        videos=loaded["video"] or None,
        audio=loaded["audio"] or None,
        load_audio_from_video=interleaved,
        audio_from_video_indices=video_of_sound,
        videos_kwargs=videos_kwargs,
        images_kwargs=images_kwargs,
        return_tensors="pt",
    )
    input_ids = without_escapes(tokenizer, inputs.pop("input_ids")[0].tolist())
    inputs.pop("attention_mask", None)
    media = {k: v if isinstance(v, torch.Tensor) else torch.tensor(v) for k, v in inputs.items()}
    media.pop("num_audio_tokens", None)
    if rates:
        patch = processor.video_processor.temporal_patch_size
        media["video_second_per_grid"] = torch.tensor([patch / rate for rate in rates])
    if "input_features" in media:  # keep what is heard, not the padding to the longest sound the model knows
        _check_audible(
            loaded["audio"], media["feature_attention_mask"], processor.feature_extractor.sampling_rate, name
        )
        media.update(_trim_sounds(media["input_features"], media["feature_attention_mask"].bool()))
    if interleaved:
        media["use_audio_in_video"] = torch.tensor(True)
    counts = _counts(processor, input_ids, media, name)
    encoded = EncodedPrompt(input_ids, media, counts, name, media_keys(messages, settings, blank))
    if max_prompt_length is not None and len(input_ids) > max_prompt_length:
        media_tokens = ", ".join(f"{n} {m}" for m, n in encoded.counts.items() if n)
        raise ValueError(
            f"row {name!r}: the prompt has {len(input_ids)} tokens ({media_tokens or 'no media'}), "
            f"`max_prompt_length` is {max_prompt_length}; lower frames or pixels, shorten the row, or raise the limit"
        )
    return encoded


def _trim_sounds(features: torch.Tensor, heard: torch.Tensor) -> dict[str, torch.Tensor]:
    """Sounds `(N, mel, T)` cut to what `heard` `(N, T)` marks, whichever side was padded, padded anew on the right."""
    sounds = [f[:, mask].T for f, mask in zip(features, heard, strict=True)]
    pad = torch.nn.utils.rnn.pad_sequence
    mask = pad([torch.ones(len(s), dtype=torch.long) for s in sounds], batch_first=True)
    return {"input_features": pad(sounds, batch_first=True).transpose(1, 2), "feature_attention_mask": mask}


def _counts(
    processor: ProcessorMixin, input_ids: Sequence[int], media: dict[str, torch.Tensor], name: str
) -> dict[str, int]:
    rows = feature_rows(media, processor.image_processor.merge_size)
    counts = {m: input_ids.count(token) for m, token in placeholder_ids(processor).items()}
    if counts != rows:
        raise MediaError(
            f"row {name!r}: placeholders {counts} and features {rows} differ; this processor and its chat template "
            "do not fit each other"
        )
    return counts
