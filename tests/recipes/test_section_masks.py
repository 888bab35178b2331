# SPDX-License-Identifier: Apache-2.0
"""Every token in exactly one place, whatever the tokenizer and however the text was cut into tokens."""

from __future__ import annotations

import random
from unittest import mock

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from omni_grpo import section_token_masks
from omni_grpo.credit import section_masks
from omni_grpo.credit.section_masks import hidden_tags, places_of
from omni_rewards import CONTEXT_THINK_ANSWER, THINK_ANSWER, SectionSchema, parse_sections
from section_tokenizers import BYTES, END, START, byte_level, cut_at_random, token_bytes, tokenizer

BYTE_LEVEL = ["qwen", "smollm2", "bytes", "byt5", "added_tags"]
ALL = [*BYTE_LEVEL, "spaces"]
PIECES = [
    ".",
    "</",
    "><",
    "<",
    ">",
    "</b>",
    ">\n",
    "日本語",
    "🎉",
    "👩‍👩‍👧",
    "é",
    "\u200b",
    "\n",
    " ",
    "He frowns.",
    "\ufffd",
]

# Texts that put every kind of character next to a tag.
inner = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), min_size=1, max_size=5).map("".join)
space = st.sampled_from(["", "", "\n", "\n\n", " ", "\u3000"])


@st.composite
def completions(draw):
    """A well-formed text and its sections."""
    texts = {name: draw(inner) for name in CONTEXT_THINK_ANSWER.names}
    text = "".join(draw(space) + f"<{name}>{texts[name]}</{name}>" for name in CONTEXT_THINK_ANSWER.names)
    text += draw(space)
    assume(parse_sections(text).ok)
    return text, texts


def ids_of(name: str, text: str, seed: int) -> list[int]:
    """The tokenizer's own cut, or with a seed above 0 a random one where the vocabulary allows."""
    made = tokenizer(name)
    if seed and name not in ("byt5", "spaces", "added_tags"):
        return cut_at_random(made, text, random.Random(seed))
    return made(text, add_special_tokens=False)["input_ids"]


def places(masks: dict[str, torch.Tensor]) -> list[str]:
    """The one place of each token; fails where a token has none or two."""
    table = torch.stack(list(masks.values()))
    assert (table.sum(0) == 1).all()
    return [list(masks)[i] for i in table.int().argmax(0).tolist()]


@pytest.mark.parametrize("name", BYTE_LEVEL)
@given(completion=completions(), seed=st.integers(0, 5))
@settings(max_examples=60)
def test_sections_hold_exactly_the_tokens_that_carry_their_bytes(name, completion, seed):
    """Against byte ranges, which need no decoding; so also: none empty, none too long, none shifted."""
    text, texts = completion
    ids, made = ids_of(name, text, seed), tokenizer(name)
    masks, spans = section_token_masks(made, ids), parse_sections(text).spans
    found, position = places(masks), 0
    for token, place in zip(token_bytes(made, ids), found, strict=True):
        start, position = position, position + len(token)
        ranges = {s: [len(text[:c].encode()) for c in spans[s]] for s in spans}
        carried = [s for s, (a, b) in ranges.items() if start < b and position > a]
        if carried:
            assert place == carried[0], (token, place)
        else:
            in_tag = any(
                start < b and position > a
                for s, (c, d) in ranges.items()
                for a, b in ((c - len(s) - 2, c), (d, d + len(s) + 3))
            )
            assert place == ("tag" if in_tag else "outside"), (token, place)
    assert position == len(text.encode()), "the tokens spell the text"
    for section, section_text in texts.items():
        assert section_text in made.decode(torch.tensor(ids)[masks[section]].tolist())


@given(completion=completions())
@settings(max_examples=40)
def test_pieces_that_depend_on_their_neighbours(completion):
    """SentencePiece's way: a token alone decodes without its space, so no sum of lengths would do."""
    made = tokenizer("spaces")
    ids = made(completion[0], add_special_tokens=False)["input_ids"]
    decoded = made.decode(ids)
    masks = section_token_masks(made, ids)
    places(masks)
    for section, text in parse_sections(decoded).texts.items():
        chosen = torch.tensor(ids)[masks[section]].tolist()
        assert text.strip() in made.decode(chosen)
        assert masks[section].int().diff().abs().sum() <= 2, "one run of tokens"
        assert len(made.decode(chosen)) <= len(text) + 20, "and not much beside it: a straddling token at each end"


@pytest.mark.parametrize("name", ALL)
@given(ids=st.lists(st.integers(0, 380), max_size=40), cut=completions(), seed=st.integers(0, 5))
@settings(max_examples=40)
def test_any_ids_at_all_have_one_place_each(name, ids, cut, seed):
    """What an untrained policy samples: broken characters, special tokens, tags in the wrong place."""
    good = ids_of(name, cut[0], seed)
    for mixed in (ids, good[: len(good) // 2] + ids, ids + good):
        masks = section_token_masks(tokenizer(name), mixed)
        assert len(places(masks)) == len(mixed)


@pytest.mark.parametrize("name", ["qwen", "smollm2", "bytes"])
@given(completion=completions(), seed=st.integers(0, 5), share=st.floats(0, 1))
@settings(max_examples=40)
def test_a_truncated_completion_keeps_the_sections_it_closed(name, completion, seed, share):
    ids = ids_of(name, completion[0], seed)
    kept = ids[: int(share * len(ids))]
    whole, cut = section_token_masks(tokenizer(name), ids), section_token_masks(tokenizer(name), kept)
    closed = parse_sections(tokenizer(name).decode(kept)).spans
    for section in CONTEXT_THINK_ANSWER.names:
        expected = whole[section][: len(kept)] if section in closed else torch.zeros(len(kept), dtype=torch.bool)
        # The cut may fall inside a token's character, which is then another one.
        assert torch.equal(cut[section], expected)


def test_the_merges_that_hide_tags_from_token_patterns():
    """`.</` and `><` are one token each in Qwen's vocabulary: looking for the ids of `</context>` finds nothing."""
    made = tokenizer("qwen")
    ids = made("<context>He frowns.</context><think>So no.</think><answer>B</answer>")["input_ids"]
    tokens = made.convert_ids_to_tokens(ids)
    closing = made("</context>")["input_ids"]
    assert not any(ids[i : i + len(closing)] == closing for i in range(len(ids)))
    found = places(section_token_masks(made, ids))
    assert found[tokens.index(".</")] == "context"
    assert found[tokens.index("><")] == "tag"
    assert {"context", "think", "answer"} <= set(found)


def test_a_token_that_ends_in_part_of_a_character_has_a_part_in_it():
    """`>` merged with the first of three bytes: the section's first character would lose that token to the tag."""
    merged = BYTES[ord(">")] + BYTES["。".encode()[0]]
    made = byte_level([" ".join(merged)], [])
    ids = made("<think>。</think><answer>B</answer>")["input_ids"]
    masks = section_token_masks(made, ids, THINK_ANSWER)
    inside = torch.tensor(ids)[masks["think"]].tolist()
    assert made.convert_ids_to_tokens(inside)[0] == merged
    assert "。" in made.decode(inside)


def test_special_tokens_belong_to_what_is_around_them():
    made = tokenizer("qwen")
    end, start = made.convert_tokens_to_ids([END, START])
    ids = made("<think>So no.</think><answer>B</answer>")["input_ids"]
    inside = made.convert_ids_to_tokens(ids).index("Ġno")
    masks = section_token_masks(made, [*ids[:inside], start, *ids[inside:], end], THINK_ANSWER)
    found = places(masks)
    assert found[inside] == "think"
    assert found[-1] == "outside"
    assert [*found[:inside], *found[inside + 1 : -1]] == places(section_token_masks(made, ids, THINK_ANSWER))


def test_byte_level_rows_are_not_decoded_prefix_by_prefix():
    """Prefixes of a whole row cost its square; only the few tokens of a split character may be decoded so."""
    made, seen = tokenizer("smollm2"), []
    original = section_masks._spans_by_prefixes

    def spy(tokenizer, ids, *args):
        seen.append(len(ids))
        return original(tokenizer, ids, *args)

    text = "<context>" + "He frowns 🎉 and 日本語. " * 20 + "</context><think>x</think><answer>y</answer>"
    with mock.patch.object(section_masks, "_spans_by_prefixes", spy):
        section_token_masks(made, made(text)["input_ids"])
    assert seen
    assert max(seen) < 16


def test_tags_that_decoding_drops_are_named():
    made = tokenizer("qwen").__class__(tokenizer_object=tokenizer("qwen").backend_tokenizer)
    made.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    assert hidden_tags(made, CONTEXT_THINK_ANSWER) == ["<think>", "</think>"]
    assert hidden_tags(tokenizer("added_tags"), CONTEXT_THINK_ANSWER) == []


def test_places_follow_the_schema_and_keep_their_names():
    assert places_of(SectionSchema(("plan", "answer"))) == ("plan", "answer", "tag", "outside")
    with pytest.raises(ValueError, match="'tag' and 'outside'"):
        places_of(SectionSchema(("tag", "answer")))
    masks = section_token_masks(tokenizer("qwen"), [], THINK_ANSWER)
    assert {name: len(mask) for name, mask in masks.items()} == dict.fromkeys(("think", "answer", "tag", "outside"), 0)
