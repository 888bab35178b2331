# SPDX-License-Identifier: Apache-2.0
"""
The expected gradient of the constrained loss is the policy gradient of the policy that was sampled.

By enumeration: the vocabulary is cut to six tokens, so that every completion can be listed. What is true is computed
without any of our code but the parser: a token is allowed if some well-formed completion goes on with it.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from datasets import Dataset

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.rollout.constrained import head as head
from omni_grpo.rollout.record import Rollout, Row
from omni_rewards import SectionSchema, parse_sections

SCHEMA = SectionSchema(("a",))
POOL = ["<", ">", "a", "</", "e"]
LENGTH = 9  # at most two tokens of content: `<a>…</a>` takes six and the end token one


@pytest.fixture(scope="module")
def trainer(tiny, tmp_path_factory):
    """A trainer whose policy can write `POOL` alone, with sharpened logits, so that the masked share matters."""
    model, processor = load_model(tiny), load_processor(tiny)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    tokens = processor.tokenizer
    pool = {*tokens.convert_tokens_to_ids(POOL), tokens.eos_token_id}
    others = [i for i in range(model.config.get_text_config().vocab_size) if i not in pool]
    made = OmniGRPOTrainer(
        model,
        lambda completions, **kwargs: [0.0] * len(completions),
        OmniGRPOConfig(
            output_dir=str(tmp_path_factory.mktemp("gradient")),
            num_generations=4,
            per_device_train_batch_size=4,
            max_completion_length=LENGTH,
            constrained_decoding="strict",
            credit_map="uniform",
            generation_kwargs={"suppress_tokens": others},
            temperature=0.9,
            loss_type="dr_grpo",
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
        ),
        Dataset.from_dict({"prompt": [[{"role": "user", "content": "Does the voice agree?"}]]}),
        processing_class=processor,
        section_schema=SCHEMA,
    )
    made.current_gradient_accumulation_steps = 1
    return made


@pytest.fixture(scope="module")
def language(trainer):
    """Every completion of at most `LENGTH` tokens, each with its end token."""
    tokens = trainer._tokenizer
    pool, start = tokens.convert_tokens_to_ids(POOL), tokens.convert_tokens_to_ids(["<", "a", ">"])
    found = []
    for n in range(LENGTH - 3):
        for rest in itertools.product(pool, repeat=n):
            text = tokens.decode([*start, *rest])
            if parse_sections(text, SCHEMA).ok and text == text.strip():
                found.append((*start, *rest, tokens.eos_token_id))
    assert len(found) > 15
    return found


@pytest.fixture(scope="module")
def prompt(trainer):
    with trainer._at(Rollout([Row("asked")])) as rollout:
        ids, _, _ = trainer._tokenize_prompts([[{"role": "user", "content": "Does the voice agree?"}]])
    return ids[0], rollout.rows[0]


def true_logps(trainer, language, prompt, renormalised=True):
    """Log-probability of each completion `(N,)`: the product over its tokens of softmax over what may follow."""
    children: dict[tuple, set[int]] = {}
    for completion in language:
        for i, token in enumerate(completion):
            children.setdefault(completion[:i], set()).add(token)
    logps = []
    for completion in language:
        ids = torch.tensor([[*prompt, *completion]])
        logits = (
            trainer.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, len(prompt) - 1 : -1] / 0.9
        )
        total = torch.zeros((), dtype=torch.float64)
        for i, token in enumerate(completion):
            row = logits[i].double()
            allowed = sorted(children[completion[:i]]) if renormalised else range(len(row))
            total = total + row[token] - row[list(allowed)].logsumexp(0)
        logps.append(total)
    return torch.stack(logps)


def gradient(trainer, value) -> torch.Tensor:
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    return torch.cat(
        [torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(parameters, found, strict=True)]
    )


def loss_gradient(trainer, language, prompt, weights) -> torch.Tensor:
    """Gradient of TRL's loss on all completions with `weights` as advantages, as a sum over them that rises."""
    n = len(language)
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(c) for c in language], batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(c), dtype=torch.long) for c in language], batch_first=True)
    inputs = {
        "prompt_ids": torch.tensor([prompt[0]] * n),
        "prompt_mask": torch.ones(n, len(prompt[0]), dtype=torch.long),
        "completion_ids": ids,
        "completion_mask": mask,
        "advantages": weights.float(),
        "num_items_in_batch": mask.sum(),
        "rows": [prompt[1]] * n,
    }
    if trainer.scorer.constraint is not None:
        chosen = [torch.tensor(trainer.scorer.constraint.choices(c)) for c in language]
        inputs["tool_mask"] = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True)
    return gradient(trainer, trainer._compute_loss(trainer.model, inputs)) * -n * LENGTH


@pytest.fixture(scope="module")
def truth(trainer, language, prompt):
    """Rewards, probabilities, and the gradient of the expected reward."""
    logps = true_logps(trainer, language, prompt[0])
    rewards = torch.rand(len(language), generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    assert torch.isclose(logps.exp().sum(), torch.ones((), dtype=torch.float64), atol=1e-9), (
        "all completions are listed"
    )
    return rewards, logps.detach().exp(), gradient(trainer, (logps.exp() * rewards).sum())


def distance(a, b) -> float:
    return float((a - b).norm() / b.norm())


def test_the_expected_gradient_is_the_policy_gradient(trainer, language, prompt, truth):
    rewards, probabilities, true = truth
    assert distance(loss_gradient(trainer, language, prompt, probabilities * rewards), true) < 1e-4


def test_the_naive_gradient_is_not(trainer, language, prompt, truth, monkeypatch):
    """Sampled under the mask, scored by the whole vocabulary's softmax: with and without the tokens that were forced."""
    rewards, probabilities, true = truth
    constraint = trainer.scorer.constraint
    monkeypatch.setattr(trainer.scorer, "constraint", None)
    naive = loss_gradient(trainer, language, prompt, probabilities * rewards)
    monkeypatch.setattr(trainer.scorer, "constraint", constraint)
    monkeypatch.setattr("omni_grpo.scoring.scorer.allowed_sets", whole_vocabulary)
    without_forced = loss_gradient(trainer, language, prompt, probabilities * rewards)
    assert distance(naive, true) > 0.1
    assert distance(without_forced, true) > 0.1


def whole_vocabulary(constraint, ids, mask):
    return torch.ones(1, constraint.vocab_size, dtype=torch.bool), torch.where(mask.bool(), 0, -1)


def test_a_baseline_changes_nothing_in_expectation(trainer, language, prompt, truth):
    """What makes group-relative rewards legitimate; it fails where the scored distribution is not the sampled one."""
    rewards, probabilities, true = truth
    shifted = loss_gradient(trainer, language, prompt, probabilities * (rewards - 3.0))
    assert distance(shifted, true) < 1e-3


def test_forced_tokens_have_no_gradient_and_do_not_count(trainer, language, prompt):
    """Their log-probability is zero whatever the weights."""
    choices = [trainer.scorer.constraint.choices(completion) for completion in language]
    assert all(chosen[:3] == [0, 0, 0] and chosen[-1] == 0 for chosen in choices), "`<`, `a`, `>` and the end token"
    children = {completion[:i] for completion in language for i in range(len(completion))}
    several = {p for p in children if len({c[len(p)] for c in language if c[: len(p)] == p}) > 1}
    for completion, chosen in zip(language, choices, strict=True):
        assert chosen == [int(completion[:i] in several) for i in range(len(completion))]


def test_slices_and_direct_computation_agree(monkeypatch):
    """The head in slices that are computed again, against one softmax in float64: values and both gradients."""
    torch.manual_seed(0)
    hidden = torch.randn(13, 8, requires_grad=True)
    linear = torch.nn.Linear(8, 30, bias=False)
    sets = torch.rand(4, 30) < 0.4
    index = torch.randint(4, (13,))
    targets = torch.stack([torch.multinomial(sets[i].float(), 1)[0] for i in index])
    logits = hidden.double() @ linear.weight.double().T / 0.7
    rows = [(row[sets[i]].log_softmax(0), sets[i][:t].sum()) for row, i, t in zip(logits, index, targets, strict=True)]
    logps = torch.stack([row[place] for row, place in rows])
    entropy = torch.stack([-(row.exp() * row).sum() for row, _ in rows])
    weights = torch.randn(13, dtype=torch.float64)
    wanted = torch.autograd.grad((weights * (logps + entropy)).sum(), (hidden, linear.weight))
    for slice_size in (1 << 25, 90, 1):
        monkeypatch.setattr(head, "SLICE", slice_size)
        ours = head.masked_log_probs(hidden, linear, targets, sets, index, 0.7)
        torch.testing.assert_close(ours[0].double(), logps, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours[1].double(), entropy, rtol=1e-5, atol=1e-5)
        found = torch.autograd.grad((weights * (ours[0] + ours[1])).sum(), (hidden, linear.weight))
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a.double(), b.double(), rtol=1e-4, atol=1e-5)
