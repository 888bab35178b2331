# SPDX-License-Identifier: Apache-2.0
"""Which tokens may come next: every spelling of every completion is offered, and no way leads nowhere."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_grpo import SectionConstraint, section_pattern
from omni_grpo.rollout.constrained.token_bytes import token_bytes
from omni_rewards import CONTEXT_THINK_ANSWER, parse_sections
from section_texts import near_misses, sampled
from section_tokenizers import END, cut_at_random, tokenizer

NAMES = ["qwen", "smollm2", "bytes", "added_tags", "spaces"]


def constraint_of(name: str, **kwargs) -> SectionConstraint:
    made = tokenizer(name)
    return SectionConstraint.from_tokenizer(made, len(made) + 3, **{"max_tokens": 60, **kwargs})


def shortest_of(name: str) -> int:
    """Length of the shortest completion, as the refusal of a shorter one states it."""
    with pytest.raises(ValueError, match="the shortest takes") as refusal:
        constraint_of(name, max_tokens=2)
    return int(re.findall(r"takes (\d+) tokens", str(refusal.value))[0])


@pytest.mark.parametrize("name", NAMES)
def test_every_completion_is_well_formed_and_in_time(name):
    """Random choices under limits from the shortest upwards, read back by the tokenizer's own decoding."""
    made, shortest = tokenizer(name), shortest_of(name)
    for max_tokens in (shortest, shortest + 1, shortest + 7, 3 * shortest):
        constraint = constraint_of(name, max_tokens=max_tokens)
        for seed in range(40):
            ids = sampled(constraint, seed)
            text = made.decode(ids, skip_special_tokens=True)
            assert parse_sections(text).ok, (text, parse_sections(text).reason)
            assert len(ids) <= max_tokens
            assert ids[-1] == made.eos_token_id
            assert made.eos_token_id not in ids[:-1]
    with pytest.raises(ValueError, match=f"shortest takes {shortest} tokens"):
        constraint_of(name, max_tokens=shortest - 1)


@pytest.fixture(scope="module", params=["qwen", "smollm2", "bytes"])
def roomy(request):
    """A tokenizer that cuts at random, and a constraint that leaves room."""
    return tokenizer(request.param), constraint_of(request.param, max_tokens=1000)


@given(case=near_misses().filter(lambda case: case[0] == CONTEXT_THINK_ANSWER), seed=st.integers(0, 9))
@settings(max_examples=150)
def test_every_spelling_of_every_text_is_offered(roomy, case, seed):
    """The other side: nothing well-formed is kept from the policy, however it is cut; and nothing else is let through."""
    made, constraint = roomy
    schema, text = case
    ids = (*cut_at_random(made, text, random.Random(seed)), made.eos_token_id)
    if re.fullmatch(section_pattern(schema), text):
        assert len(constraint.trace(ids)) == len(ids)
    else:
        with pytest.raises(ValueError, match="not allowed"):
            constraint.trace(ids)


@pytest.mark.parametrize("name", ["qwen", "bytes"])
def test_a_completion_may_use_all_its_room_and_no_more(name):
    made, text = tokenizer(name), "<context>He frowns <</context><think>日本.</think><answer>no</answer>"
    ids = (*made(text)["input_ids"], made.eos_token_id)
    assert len(constraint_of(name, max_tokens=len(ids)).trace(ids)) == len(ids)
    with pytest.raises(ValueError, match="not allowed"):
        constraint_of(name, max_tokens=len(ids) - 1).trace(ids)


@pytest.mark.parametrize("name", ["qwen", "bytes"])
def test_budgets_hold_and_what_is_left_passes_on(name):
    made, shortest = tokenizer(name), shortest_of(name)
    budgets = [shortest + 4, shortest, shortest + 2]
    constraint = constraint_of(name, max_tokens=4 * shortest + 8, budgets=budgets)
    ends = np.cumsum(budgets)
    counts = []
    for seed in range(40):
        ids = sampled(constraint, seed)
        text = made.decode(ids, skip_special_tokens=True)
        assert parse_sections(text).ok
        for section, end in zip(CONTEXT_THINK_ANSWER.names, ends, strict=True):
            assert f"</{section}>" in made.decode(ids[:end], skip_special_tokens=True)
        counts.append(
            [f"</{s}>" in made.decode(ids[: e - 1]) for s, e in zip(CONTEXT_THINK_ANSWER.names, ends, strict=True)]
        )
    assert not all(map(all, counts)), "no section ever used its budget, so nothing was held"
    with pytest.raises(ValueError, match="budgets"):
        constraint_of(name, max_tokens=sum(budgets), budgets=budgets)
    with pytest.raises(ValueError, match="shortest takes"):
        constraint_of(name, max_tokens=200, budgets=[2, 90, 90])


def test_force_tags_keeps_order_but_not_length():
    """Sections may be blank or cut, tags may not be out of place."""
    made = tokenizer("qwen")
    constraint = constraint_of("qwen", mode="force_tags", max_tokens=12)
    reasons = set()
    for seed in range(200):
        ids = sampled(constraint, seed, limit=random.Random(seed).choice([6, 25, 60, 400]))
        reasons.add(parse_sections(made.decode(ids, skip_special_tokens=True)).reason)
        assert made.eos_token_id not in ids[:-1]
    assert "truncated" in reasons
    assert reasons <= {"ok", "truncated", "empty_section", "missing_section"}
    blank = tuple(made("<context></context><think></think><answer></answer>")["input_ids"])
    assert len(constraint.trace(blank)) == len(blank)
    with pytest.raises(ValueError, match="not allowed"):
        constraint_of("qwen").trace(blank)


def test_forbidden_and_unknown_ids_are_never_allowed():
    made = tokenizer("qwen")
    forbidden = [made.get_vocab()["x"], made.get_vocab()["Ġ"]]
    constraint = constraint_of("qwen", forbidden=forbidden)
    special = [*made.all_special_ids, *range(len(made), len(made) + 3)]
    masks = {mask for seed in range(20) for mask in constraint.trace(tuple(sampled(constraint, seed)))}
    for mask in masks:
        allowed = constraint.allowed(mask)
        assert not allowed[forbidden].any()
        assert not allowed[[i for i in special if i != made.eos_token_id]].any()
        assert not allowed[made.eos_token_id] or allowed.sum() == 1
    assert len(masks) > 30


def test_tags_that_cannot_be_spelled_are_refused():
    table = [bytes([b]) for b in range(256)] + [None]
    with pytest.raises(ValueError, match="cannot spell"):
        SectionConstraint([None if t == b"<" else t for t in table], [256])
    with pytest.raises(ValueError, match="no end token"):
        SectionConstraint(table, [256], forbidden=[256])
    with pytest.raises(ValueError, match="unknown"):
        SectionConstraint(table, [256], mode="soft")
    plain = SectionConstraint(table, [256])
    assert plain.count(plain.mask(plain.start, 0)) == 1, "the first byte of the first tag"


@pytest.mark.parametrize("name", NAMES)
def test_token_bytes_join_to_what_the_tokenizer_decodes(name):
    made = tokenizer(name)
    table = token_bytes(made, len(made) + 5)
    text = "<context>He frowns, é 日本 🎉.</context><think>No.</think>"
    ids = made(text, add_special_tokens=False)["input_ids"]
    assert b"".join(table[i] or b"?" for i in ids).decode().strip() == made.decode(ids).strip()
    assert table[len(made) :] == [None] * 5
    assert table[made.convert_tokens_to_ids(END)] is None


def test_a_tokenizer_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="byte-level"):
        token_bytes(tokenizer("byt5"))
