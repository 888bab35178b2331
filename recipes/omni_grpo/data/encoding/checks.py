# SPDX-License-Identifier: Apache-2.0
"""
Control tokens in texts of the user's, and everything that is wrong with a row at once.

A control token is any special token of the tokenizer: the marks of turns and of media, the end of a text. Written out in
a row it would be taken for the real one. It is refused, or, where the run says so, written as ordinary text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from omni_grpo.data.media.keys import media_items
from omni_grpo.data.media.reader import MediaReader
from omni_grpo.data.media.segment import segment_of
from omni_grpo.data.media.settings import MediaError, MediaSettings
from omni_grpo.data.rows.prompts import Messages
from omni_grpo.families import family_of_processor
from omni_rewards import CONTEXT_THINK_ANSWER
from omni_rewards.sections import find_tags

TEXTS = ("problem", "options", "solution", "context", "reference_reasoning", "target")
REMEDY = "take it out of the row, or set `escape_control_tokens: true` to have it as ordinary text"
NO_ESCAPE = "take it out of the row; as ordinary text it needs a tokenizer whose `pad_token` is not its end"


def control_tokens(tokenizer: Any) -> list[str]:
    """Every special token, as the tokenizer itself has them."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return list(dict.fromkeys([*added, *tokenizer.all_special_tokens]))


def control_token_problems(tokenizer: Any, texts: Mapping[str, str] | Sequence[str]) -> Iterator[str]:
    """A problem for each text, by its field where it is known, that holds control tokens."""
    tokens, remedy = control_tokens(tokenizer), REMEDY if can_escape(tokenizer) else NO_ESCAPE
    for field, text in texts.items() if isinstance(texts, Mapping) else (("", text) for text in texts):
        if found := [token for token in tokens if token in text]:
            where = f"{field}: " if field else ""
            yield f"{where}its text holds the special token {', '.join(map(repr, found))}; {remedy}"


def escaped(tokenizer: Any, text: str) -> str:
    """`text` with the padding token inside each control token, which [`without_escapes`] takes out of the ids again."""
    tokens = sorted(control_tokens(tokenizer), key=len, reverse=True)
    return re.sub("|".join(map(re.escape, tokens)), lambda m: f"{m[0][0]}{tokenizer.pad_token}{m[0][1:]}", text)


def without_escapes(tokenizer: Any, ids: list[int]) -> list[int]:
    """Ids of an [`escaped`] text: those of its characters, ordinary tokens alone."""
    return [token for token in ids if token != tokenizer.pad_token_id] if can_escape(tokenizer) else ids


def can_escape(tokenizer: Any) -> bool:
    """Whether the padding token is that and nothing else; of many text-only models it ends texts, too."""
    return tokenizer.pad_token_id not in (None, tokenizer.eos_token_id, tokenizer.bos_token_id)


def target_ids(tokenizer: Any, target: str, name: str, escape: bool = False) -> list[int]:
    """
    Ids of what SFT imitates, without the end of the turn.

    Raises:
        `ValueError`: It holds a control token, and `escape` is not set; the message names the row.
    """
    problem = next(control_token_problems(tokenizer, {"target": target}), None)
    if problem and not (escape and can_escape(tokenizer)):
        raise ValueError(f"row {name!r}: {problem}")
    return without_escapes(tokenizer, tokenizer(escaped(tokenizer, target), add_special_tokens=False)["input_ids"])


def text_problems(tokenizer: Any, row: Mapping[str, Any], escape: bool = False) -> Iterator[str]:
    """
    What must not stand in the texts of a row of [`~omni_grpo.data.dataset.to_dataset`]: control tokens anywhere, section tags in
    the question. `escape` allows both. (A prompt of the user's own, TRL's form, may say in tags how to answer.)
    """
    if escape and can_escape(tokenizer):
        return
    tokens = control_tokens(tokenizer)
    turns = [(m["role"], "\n".join(p["text"] for p in m["content"] if p["type"] == "text")) for m in row["prompt"]]
    own_words = "\n".join(text for role, text in turns if role == "user") == row.get("problem")
    asked = {"problem": row["problem"]} if row.get("problem") and not own_words else {}
    asked |= {f"options[{k}]": option for k, option in enumerate(row.get("options") or ())}
    texts = asked | {name: row[name] for name in TEXTS[2:] if row.get(name)}
    told = [text for text in asked.values() if any(token in text for token in tokens)]
    for role, text in turns:
        for said in told:
            text = text.replace(said, "")
        texts[f"prompt ({role})"] = text
    for field, text in asked.items():
        if tags := [text[tag.start : tag.end] for tag in find_tags(text, CONTEXT_THINK_ANSWER) if tag.is_exact]:
            yield f"{field}: holds the section tag {tags[0]}, which the answer alone may hold; {REMEDY}"
    yield from control_token_problems(tokenizer, texts)


def media_problems(processor: Any, messages: Messages, settings: MediaSettings, read: MediaReader) -> Iterator[str]:
    """What is wrong with each medium of a prompt, whatever is wrong with the others."""
    family, items = family_of_processor(processor), list(media_items(messages))
    if problem := family.cannot_take(kind for kind, _, _ in items):
        yield problem
        items = [item for item in items if item[0] in family.modalities]
    cut = replace(settings, max_audio_seconds=longest_sound(processor) + 1.0, long_audio="truncate")
    for kind, source, _ in items:
        item, path, segment = None, source["path"], segment_of(source)
        try:
            item = read(kind, path, settings, segment)
        except MediaError as error:
            yield str(error)
        if kind == "audio":
            try:
                sound = read(kind, path, cut, segment) if item is None else item
                refuse_long_sounds(processor, [sound], f"{path}: its sound lasts at least")
            except MediaError as error:
                yield str(error)


def refuse_long_sounds(processor: Any, sounds: list[Any], which: str = "a sound lasts") -> None:
    """The feature extractor would cut longer sounds without a word; raises `MediaError`."""
    longest = longest_sound(processor)
    for sound in sounds:
        seconds = len(sound) / processor.feature_extractor.sampling_rate
        if seconds > longest:
            raise MediaError(
                f"{which} {seconds:.2f} s and this model's feature extractor hears {longest:g} s; shorten it or lower "
                f"`max_audio_seconds` to {longest:g} with `long_audio: truncate`"
            )


def longest_sound(processor: Any) -> float:
    """Seconds beyond which the processor would cut a sound; infinite where it does not."""
    if (samples := family_of_processor(processor).longest_sound(processor)) is None:
        return math.inf
    return samples / processor.feature_extractor.sampling_rate
