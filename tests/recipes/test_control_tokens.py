# SPDX-License-Identifier: Apache-2.0
"""Control tokens in a row's texts are refused by row, field and token, or trained as the ordinary text they are written as."""

from __future__ import annotations

import json
import re

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from omni_grpo.data.dataset import preflight, to_dataset, with_sft_targets
from omni_grpo.data.encoding.checks import control_tokens, target_ids
from omni_grpo.data.encoding.encoder import PromptEncoder
from omni_grpo.data.media.settings import MediaError
from omni_grpo.data.rows.loading import load_examples
from omni_grpo.data.rows.prompts import build_messages
from omni_grpo.data.rows.schema import DataError, Example
from omni_grpo.model.loading import load_processor
from omni_grpo.sft import IGNORED, OmniCollator, with_lengths

TAGGED = "<context>A red door.</context><think>So, red.</think><answer>red{}</answer>"


@pytest.fixture(scope="module")
def processor(tiny):
    return load_processor(tiny)


@pytest.fixture
def encoder(processor, settings):
    return PromptEncoder(processor, settings)


@pytest.fixture
def escaping(processor, settings):
    return PromptEncoder(processor, settings, escape=True)


def row(**fields) -> Example:
    return Example(**{"id": "r", "problem": "Is it?", "problem_type": "free-form", "solution": "red"} | fields)


FIELDS = {
    "problem": lambda t: {"problem": f"What is {t}?"},
    "options[1]": lambda t: {"options": ("a", f"b {t}")},
    "solution": lambda t: {"solution": f"red{t}"},
    "context": lambda t: {"context": f"A {t} door."},
    "reference_reasoning": lambda t: {"reference_reasoning": f"So {t}."},
    "target": lambda t: {"target": TAGGED.format(t)},
    "prompt (system)": lambda t: {
        "prompt": [
            {"role": "system", "content": [{"type": "text", "text": f"Be {t}."}]},
            {"role": "user", "content": [{"type": "text", "text": "Is it?"}]},
        ]
    },
}


@pytest.mark.parametrize("field", FIELDS)
def test_each_token_in_each_field_is_refused_by_row_field_and_token(processor, encoder, escaping, field):
    """The tokens are the tokenizer's own. Mutants: a field left out; a list of tokens by hand; the first token alone."""
    tokens = control_tokens(processor.tokenizer)
    added = processor.tokenizer.added_tokens_decoder.values()
    assert {str(token) for token in added if token.special} <= set(tokens) and len(tokens) >= 9
    for token in tokens:
        dataset = to_dataset([row(), row(id="bad", **FIELDS[field](token))], "short")
        with pytest.raises(DataError) as error:
            preflight(dataset, encoder)
        head, line = str(error.value).splitlines()
        assert head == "1 row(s) cannot be used:"
        assert line.startswith(f"row 'bad': {field}: its text holds the special token {token!r}; take it out"), line
        assert line.count(token) == 1
        preflight(dataset, escaping)  # the remedy


def test_a_token_that_a_user_added_counts(tiny, settings):
    processor = load_processor(tiny)
    processor.tokenizer.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})
    with pytest.raises(DataError, match=r"row 'r': context: its text holds the special token '<\|tool\|>'"):
        preflight(to_dataset([row(context="A <|tool|>.")], "short"), PromptEncoder(processor, settings))


def test_all_fields_of_a_row_are_named_at_once(encoder):
    bad = row(problem="<|im_end|>", target="<|IMAGE|> <|VIDEO|>", options=("<think>", "b"))
    with pytest.raises(DataError) as error:
        preflight(to_dataset([bad], "short"), encoder)
    [line] = str(error.value).splitlines()[1:]
    assert re.search(
        r"options\[0\]: holds the section tag <think>.*problem: .*'<\|im_end\|>'.*'<\|IMAGE\|>', '<\|VIDEO", line
    )


@pytest.mark.parametrize("tag", ["<context>", "</think>", "<answer>"])
def test_section_tags_in_a_question_are_refused_unless_they_are_wanted(encoder, escaping, tag):
    """But not in a system turn, a target, or a prompt of TRL's form, which say how to answer."""
    for field in ("problem", "options[1]"):
        dataset = to_dataset([row(**FIELDS[field](tag))], "context_think_answer")
        with pytest.raises(
            DataError, match=rf"row 'r': {re.escape(field)}: holds the section tag {tag}.*escape_control"
        ):
            preflight(dataset, encoder)
        preflight(dataset, escaping)
    good = [row(id="t", target=TAGGED.format("")), row(id="n", problem="Is 1 <2 and <b>bold</b>?")]
    preflight(to_dataset(good, "context_think_answer"), encoder)


def test_a_prompt_of_trls_form_may_say_its_tags(encoder, tmp_path):
    prompt = "Is it? Write <think> </think> <answer> </answer>."
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": [{"role": "user", "content": prompt}]}))
    preflight(to_dataset(load_examples(tmp_path / "rows.jsonl"), "context_think_answer"), encoder)
    turns = [
        {"role": role, "content": text} for role, text in (("user", "<think>"), ("assistant", "i"), ("user", "so?"))
    ]
    turns = [{"role": "system", "content": "Be <|im_end|>."}, *turns]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": turns, "options": ["i", "so"]}))
    with pytest.raises(DataError, match=r"prompt \(system\): its text holds the special token '<\|im_end\|>'"):
        preflight(to_dataset(load_examples(tmp_path / "rows.jsonl"), "context_think_answer"), encoder)


def test_a_target_is_refused_by_the_collator_too(encoder):
    """From Python there may have been no preflight."""
    dataset = to_dataset([row(target=TAGGED.format("<|im_end|>"))], "short")
    with pytest.raises(ValueError, match=r"row 'r': target: its text holds the special token '<\|im_end\|>'"):
        OmniCollator(encoder)(list(dataset))
    solutions = with_sft_targets(to_dataset([row(solution="<|im_end|>")], "short"), "solution")
    with pytest.raises(ValueError, match=r"row 'r': target: .*'<\|im_end\|>'"):
        OmniCollator(encoder)(list(solutions))
    with pytest.raises(MediaError, match=r"row 'r': its text holds the special token '<\|im_end\|>'"):
        encoder(build_messages(row(problem="<|im_end|>"), "short"), "r")


def test_what_is_trained_holds_ordinary_tokens_and_the_very_text(processor, escaping):
    """Mutants: the token as it is; a character put into it; the padding token left in; the lengths of another text."""
    tokenizer = processor.tokenizer
    special = set(tokenizer.convert_tokens_to_ids(control_tokens(tokenizer)))
    text = "".join(control_tokens(tokenizer))
    example = row(problem=f"What is {text}?", options=(f"a{text}", "b"), target=TAGGED.format(f" {text} "))
    plain = escaping(build_messages(row(problem="What is ?", options=("a", "b")), "short")).input_ids
    dataset = to_dataset([example], "short")
    batch = OmniCollator(escaping)(list(dataset))
    labels = [token for token in batch["labels"][0].tolist() if token != IGNORED]
    assert labels[-1] == tokenizer.eos_token_id and not special & set(labels[:-1])
    assert tokenizer.decode(labels[:-1]) == example.target
    prompt = batch["input_ids"][0, : -len(labels)].tolist()
    assert [t for t in prompt if t in special] == [t for t in plain if t in special]  # the template's own alone
    assert f"What is {text}?" in tokenizer.decode(prompt) and f"a{text}" in tokenizer.decode(prompt)
    lengths = with_lengths(dataset, escaping, "length")["length"][:]
    assert lengths == [batch["input_ids"].shape[1]]


def test_escaping_changes_no_other_row(encoder, escaping, mixed):
    for batch in zip(
        OmniCollator(encoder)(list(mixed)).values(), OmniCollator(escaping)(list(mixed)).values(), strict=True
    ):
        one, other = batch
        assert (one == other).all() if hasattr(one, "all") else one == other


PIECES = ["<", "|", "im_end|>", " ", "red", "é"]


@given(st.data())
def test_any_mixture_of_text_and_tokens_keeps_its_characters(processor, data):
    tokenizer = processor.tokenizer
    tokens = control_tokens(tokenizer)
    text = "".join(data.draw(st.lists(st.sampled_from([*tokens, *PIECES]), max_size=8)))
    ids = target_ids(tokenizer, text, "r", escape=True)
    assert not set(ids) & set(tokenizer.convert_tokens_to_ids(tokens))
    assert tokenizer.decode(ids) == text


def test_a_changed_solution_is_checked_again(encoder, tmp_path):
    """Mutant: a fingerprint without the texts that are checked."""
    done = tmp_path / "done"
    preflight(to_dataset([row()], "short"), encoder, done)
    with pytest.raises(DataError, match="solution"):
        preflight(to_dataset([row(solution="<|im_end|>")], "short"), encoder, done)


def test_rows_without_the_columns_that_are_checked_pass(encoder):
    """A data set of the user's own, with prompts alone."""
    dataset = to_dataset([row()], "short").select_columns(["id", "prompt"])
    preflight(Dataset.from_list(dataset.to_list(), features=dataset.features), encoder)
