# SPDX-License-Identifier: Apache-2.0
"""Which token of a completion stands in which section: the strict parser's spans, followed through decoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch

from omni_rewards import CONTEXT_THINK_ANSWER, SectionSchema, parse_sections

# Places beside the sections. A section may not carry their names.
TAG, OUTSIDE = "tag", "outside"
BROKEN = "\ufffd"  # what bytes that make no character decode to

Span = tuple[int, int]  # first character, one past the last


class TokenPlaces(NamedTuple):
    """Where each token of one completion stands: `indices` `(T,)` count through [`places_of`]; `ok`: well formed."""

    ok: bool
    indices: list[int]


def places_of(schema: SectionSchema) -> tuple[str, ...]:
    """
    The places a token can have: the schema's sections in their order, then `tag`, then `outside`.

    Raises:
        `ValueError`: A section is called `tag` or `outside`.
    """
    if {TAG, OUTSIDE} & set(schema.names):
        raise ValueError(f"section_schema: {TAG!r} and {OUTSIDE!r} mean what is not a section; got {schema.names}")
    return (*schema.names, TAG, OUTSIDE)


def section_token_masks(
    tokenizer: Any, completion_ids: Sequence[int], schema: SectionSchema = CONTEXT_THINK_ANSWER
) -> dict[str, torch.Tensor]:
    """
    One boolean mask a place over the tokens of one completion: each section, `tag`, `outside`; no token is in two.

    The text is the one that TRL's rewards read, special tokens left out, and the spans are those of
    [`~omni_rewards.parse_sections`]: in a malformed text only the sections that are complete and unambiguous have
    tokens; all else there, broken tags included, is outside. A token that straddles a border belongs to the section
    whose text it carries (`.</` to the section before the tag), one of tag and outside (`>` with a line break) to the
    tag. A character split over tokens takes all of them along. A special token belongs to what is around it, at a
    border to `outside`, and so does the end of the turn.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Any that decodes. Byte-level ones take linear time, others that join
            pieces by rules of their own (SentencePiece's spaces) quadratic.
        completion_ids (`Sequence[int]`): Ids of the completion, without padding.
        schema ([`SectionSchema`], *optional*): Its sections.

    Returns:
        `dict[str, Tensor]`: Masks `(T,)` by name, in the order of [`places_of`].

    Raises:
        `ValueError`: A section is called `tag` or `outside`.
    """
    indices = torch.tensor(token_places(tokenizer, completion_ids, schema).indices, dtype=torch.long)
    return {name: indices == place for place, name in enumerate(places_of(schema))}


def token_places(tokenizer: Any, completion_ids: Sequence[int], schema: SectionSchema) -> TokenPlaces:
    """As [`section_token_masks`], in the form that the trainer uses."""
    ids = [int(i) for i in completion_ids]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    sections = parse_sections(text, schema)
    tag, outside = (places_of(schema).index(name) for name in (TAG, OUTSIDE))
    # Sections come before tags and tags before outside, so the smallest index of a token's characters is its place.
    by_character = [outside] * len(text)
    for place, name in enumerate(schema.names):
        if name in sections.spans:
            start, end = sections.spans[name]
            opening, closing = start - len(f"<{name}>"), end + len(f"</{name}>")
            by_character[opening:closing] = [tag] * (closing - opening)
            by_character[start:end] = [place] * (end - start)
    indices = []
    for start, end in _token_spans(tokenizer, ids, text):
        if start < end:
            indices.append(min(by_character[start:end]))
        else:
            around = by_character[start - 1 : start + 1] if start else []
            indices.append(around[0] if len(set(around)) == 1 and len(around) == 2 else outside)
    return TokenPlaces(sections.ok, indices)


def hidden_tags(tokenizer: Any, schema: SectionSchema) -> list[str]:
    """Tags of the schema that are special tokens: decoding leaves them out, so no reward could see them."""
    special = set(tokenizer.all_special_tokens)
    return [tag for name in schema.names for tag in (f"<{name}>", f"</{name}>") if tag in special]


def _token_spans(tokenizer: Any, ids: list[int], text: str) -> Iterator[Span]:
    """The characters that each token has a part in; empty for a token without text."""
    pieces: list[str] = tokenizer.batch_decode([[i] for i in ids], skip_special_tokens=True)
    # Each token of a split character decodes to U+FFFD by itself: neighbours that do are decoded together.
    runs = [list(run) for _, run in groupby(range(len(ids)), key=lambda i: -1 if BROKEN in pieces[i] else i)]
    texts = [
        pieces[run[0]] if len(run) == 1 else tokenizer.decode(ids[run[0] : run[-1] + 1], skip_special_tokens=True)
        for run in runs
    ]
    if "".join(texts) != text:  # pieces that depend on their neighbours, such as SentencePiece's spaces
        runs, texts = [list(range(len(ids)))], [text]
    position = 0
    for run, part in zip(runs, texts, strict=True):
        if len(run) == 1:
            yield position, position + len(part)
        else:
            yield from _spans_by_prefixes(tokenizer, [ids[i] for i in run], part, position)
        position += len(part)


def _spans_by_prefixes(tokenizer: Any, ids: list[int], text: str, offset: int) -> Iterator[Span]:
    """As [`_token_spans`] from what each prefix decodes to: where it leaves `text`, a character is unfinished."""
    special = set(tokenizer.all_special_ids)
    done = 0  # characters of `text` that the tokens so far complete
    for count in range(1, len(ids) + 1):
        start, prefix = done, tokenizer.decode(ids[:count], skip_special_tokens=True)
        while done < min(len(prefix), len(text)) and prefix[done] == text[done]:
            done += 1
        end = min(done + (len(prefix) > done), len(text))
        if start == done and ids[count - 1] not in special:
            if start and text[start - 1] == BROKEN:
                start -= 1  # perhaps a further byte of that character; there is no border between them
            elif start == end:
                end = min(
                    end + 1, len(text)
                )  # a byte of the next character, which this decoder shows when it is whole
        yield offset + start, offset + end
