# SPDX-License-Identifier: Apache-2.0
"""
`OmniGRPOTrainer` in the place of `trl.GRPOTrainer` on a plain causal language model, option by option: the weights
after three steps are the parent's, to the last bit without sharing, within 1e-6 with it.
"""

from __future__ import annotations

import copy
import gc
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.trainer import grpo_trainer

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, to_dataset
from omni_grpo.data.rows.loading import check_rows
from small_runs import SMALL_RUN
from text_models import tiny_text

WORDS = ["red", "green", "blue", "seven", "a door", "the sea", "noise", "yes"]
TEXTS = [f"What is {word}? Look, listen, think." for word in WORDS]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # each training collects garbage; what the imports have made is none
    yield tiny_text(tmp_path_factory.mktemp("models") / "text", TEXTS)
    gc.unfreeze()


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    return tiny_text(tmp_path_factory.mktemp("models") / "experts", TEXTS, "mixture")


@pytest.fixture(scope="module")
def tokenizer(text):
    return AutoTokenizer.from_pretrained(text, padding_side="left")


def plain(n: int = 8) -> Dataset:
    rows = [{"prompt": f"What is {word}?" + " Think." * (i % 3), "label": word} for i, word in enumerate(WORDS[:n])]
    return Dataset.from_list(rows)


def turns(n: int = 8) -> Dataset:
    """With what TRL's templates take and our own rows may not hold: a special token in a text."""
    asked = [
        [{"role": "system", "content": "Be <|im_start|> brief."}, {"role": "user", "content": t}] for t in TEXTS[:n]
    ]
    return Dataset.from_list([{"prompt": prompt, "label": word} for prompt, word in zip(asked, WORDS, strict=False)])


def said(completion) -> str:
    return completion if isinstance(completion, str) else str(completion[-1].get("content") or "")


def length(completions, **kwargs):
    return [float(len(said(c)) % 7) for c in completions]


def letters(completions, label, log_extra=None, log_metric=None, **kwargs):
    """With a column and a metric of its own; the column has a name that the trainer's table has, too."""
    log_extra("solution", list(label))
    log_metric("letters", 1.0)
    return [float(sum(c in said(text) for c in word)) for text, word in zip(completions, label, strict=True)]


async def later(completions, **kwargs):
    return [float(len(said(c)) % 3) for c in completions]


def of_some(completions, label, **kwargs):
    """Given for some prompts and not for others."""
    return [None if "e" in word else float(len(said(c)) % 5) for c, word in zip(completions, label, strict=True)]


def of_few(completions, **kwargs):
    """Given to some completions of a prompt, as a generator."""
    return (None if len(said(c)) % 2 else float(len(said(c))) for c in completions)


def multiply(a: int, b: int) -> int:
    """
    Multiplies two integers.

    Args:
        a: The first.
        b: The second.
    """
    return a * b


def rolled(prompts, trainer):
    """Completions that a function of the user's writes, with an answer for the rewards and a mask for the loss."""
    generator = torch.Generator().manual_seed(trainer.state.global_step)
    vocabulary = trainer.processing_class
    ids = [vocabulary(p)["input_ids"] for p in prompts]
    written = [torch.randint(3, 200, (4 + i % 3,), generator=generator).tolist() for i in range(len(ids))]
    return {
        "prompt_ids": ids,
        "completion_ids": written,
        "logprobs": [[0.0] * len(w) for w in written],
        "env_mask": [[1] * (len(w) - 1) + [0] for w in written],
        "bonus": [float(i % 4) for i in range(len(ids))],
    }


def bonus(completions, bonus, **kwargs):
    return list(bonus)


READ: list[list[int]] = []


def parsed(tokenizer, ids, **kwargs):
    """In the place of TRL's parser: a tiny model writes no JSON, so that what it writes is read as calls."""
    READ.append(ids)
    call = {"name": "multiply", "arguments": {"a": len(ids), "b" if ids[0] % 3 else "c": ids[0]}}
    said = {"role": "assistant", "content": tokenizer.decode(ids, skip_special_tokens=True)}
    return said | ({"tool_calls": [{"type": "function", "function": call}]} if ids[0] % 2 else {})


class Halved(TrainerCallback):
    """Changes the run while it goes."""

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 / (state.global_step + 1)

    def on_log(self, args, state, control, logs=None, **kwargs):
        logs["twice"] = 2 * logs.get("loss", 0.0)


ROW = {"problem": "Is it red?", "problem_type": "yes_no", "solution": "no"}
LORA = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=True)
FULL = {
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 6,
    "max_steps": 3,
    **SMALL_RUN,
    "adam_epsilon": 1e-4,  # so that rounding, where a gradient is next to nothing, does not become a step
}
TWO = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}

# name -> fields of the configuration, arguments of the trainer
OPTIONS: dict[str, tuple[dict, dict]] = {
    "nothing": ({}, {}),
    **{
        f"loss_type {name}": ({"loss_type": name}, {}) for name in ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo")
    },
    "loss_type luspo": ({"loss_type": "luspo", "importance_sampling_level": "sequence"}, {}),
    "loss_type vespo": ({"loss_type": "vespo"}, {}),
    "bnpo accumulated": ({"loss_type": "bnpo", **TWO}, {}),
    "scale none": ({"scale_rewards": "none"}, {}),
    "scale batch": ({"scale_rewards": "batch"}, {}),
    "beta": ({"beta": 0.1}, {}),
    "beta corrected": ({"beta": 0.1, "use_bias_correction_kl": True, "num_iterations": 2}, {}),
    "reference follows": ({"beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 1}, {}),
    "iterations": ({"num_iterations": 2}, {}),
    "accumulation": (TWO, {}),
    "one generation for two steps": ({"steps_per_generation": 2, "per_device_train_batch_size": 4}, {}),
    "epsilons": ({"epsilon": 0.01, "epsilon_high": 0.02, "delta": 1.5, "num_iterations": 2}, {}),
    "truncated masked": ({"mask_truncated_completions": True, "max_completion_length": 40}, {}),
    "high entropy": ({"top_entropy_quantile": 0.4}, {}),
    "high entropy accumulated": ({"top_entropy_quantile": 0.4, **TWO}, {}),
    "entropy bonus": ({"entropy_coef": 0.01}, {}),
    "adaptive entropy": ({"use_adaptive_entropy": True, "entropy_target": 9.0}, {}),
    "sequences": ({"importance_sampling_level": "sequence", "loss_type": "grpo", "num_iterations": 2}, {}),
    "off-policy mask": ({"off_policy_mask_threshold": 1e-4, "num_iterations": 2}, {}),
    "float32 head": ({"cast_lm_head_to_fp32": True}, {}),
    "padding": ({"pad_to_multiple_of": 8}, {}),
    "unshuffled": ({"shuffle_dataset": False}, {}),
    "checkpointing": ({"gradient_checkpointing": True}, {}),
    "workers": ({"dataloader_num_workers": 1}, {}),
    "lora": ({}, {"peft_config": LORA}),
    "lora and beta": ({"beta": 0.1}, {"peft_config": LORA}),
    "weights": ({"reward_weights": [0.3, 2.0]}, {"reward_funcs": [length, letters]}),
    "normalised one by one": (
        {"multi_objective_aggregation": "normalize_then_sum"},
        {"reward_funcs": [length, letters]},
    ),
    "asynchronous": ({}, {"reward_funcs": [length, later]}),
    "None for a prompt": ({}, {"reward_funcs": [length, of_some]}),
    "None for some": ({}, {"reward_funcs": [length, of_few]}),
    "None alone": ({}, {"reward_funcs": of_few}),
    "turns": ({}, {"train_dataset": turns()}),
    "chat template": ({"chat_template_kwargs": {"brief": True}}, {"train_dataset": turns()}),
    "stream": ({}, {"train_dataset": plain().to_iterable_dataset()}),
    "stream of turns": ({}, {"train_dataset": turns().to_iterable_dataset()}),
    "evaluation": ({"eval_strategy": "steps", "eval_steps": 1}, {"eval_dataset": plain(4)}),
    "evaluations": (
        {"eval_strategy": "steps", "eval_steps": 2, "num_generations_eval": 2},
        {"eval_dataset": {"a": plain(2), "b": turns(2).to_iterable_dataset()}},
    ),
    "sampling": ({"temperature": 0.7, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.1}, {}),
    "generation_kwargs": ({"generation_kwargs": {"no_repeat_ngram_size": 2, "bad_words_ids": [[5], [6]]}}, {}),
    "beams": ({"generation_kwargs": {"num_beams": 2}}, {}),
    "rollout_func": ({}, {"rollout_func": rolled, "reward_funcs": [length, bonus]}),
    "callbacks": ({}, {"callbacks": [Halved()]}),
    "tools": (
        {
            "max_completion_length": 120,
            "max_tool_calling_iterations": 2,
            "generation_kwargs": {"exponential_decay_length_penalty": (3, 1.5)},
        },
        {"tools": [multiply], "train_dataset": turns()},
    ),
    "table": ({"log_completions": True}, {"reward_funcs": [length, letters]}),
    # On a model with routed experts, whose own coefficient is 0.001.
    "router's own loss": ({}, {}),
    "router's loss": ({"router_aux_loss_coef": 0.5, **TWO}, {}),
    "no router's loss": ({"router_aux_loss_coef": 0.0}, {}),
}


def run(trainer_class, config_class, folder, text, tokenizer, fields, given, resume=None):
    given = {"reward_funcs": length, "train_dataset": plain(), **given}
    given["reward_funcs"] = copy.copy(given["reward_funcs"])
    given["processing_class"] = copy.deepcopy(tokenizer)
    if "tools" in given:
        given["processing_class"].response_schema = {"type": "object"}  # what reads it is `parsed`
    if config_class is OmniGRPOConfig:
        fields = {"credit_map": "stock", "agreement": "warn", **fields}
    args = config_class(output_dir=str(folder), **{**FULL, **fields})
    trainer = trainer_class(model=text, args=args, **given)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def apart(ours, parent) -> float:
    pairs = zip(ours.model.state_dict().items(), parent.model.state_dict().items(), strict=True)
    return max((a - b).abs().max().item() for (n, a), (m, b) in pairs if n == m)


def moved(trainer, text) -> bool:
    start = AutoModelForCausalLM.from_pretrained(text).state_dict()
    now = {n.replace("base_model.model.", ""): v for n, v in trainer.model.state_dict().items()}
    lora = any("lora_B" in n and v.abs().max() > 0 for n, v in now.items())
    return lora or any(n in now and not torch.equal(now[n], v) for n, v in start.items())


def logged(trainer) -> list[dict]:
    """All that was logged, but for times."""
    history = trainer.state.log_history
    return [{k: v for k, v in e.items() if not ("time" in k or "per_second" in k)} for e in history]


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_trains_as_under_trl(text, experts, tokenizer, tmp_path, monkeypatch, name):
    """
    Mutants: a stream of tokens drawn beside; turns read by the encoder; groups kept together over steps (`one generation
    for two steps`, `bnpo accumulated`); a missing reward left out; what `rollout_func` adds kept from the rewards; a turn
    after a tool's scored behind the first prompt; a prompt's tokens counted once in the router's loss.
    """
    fields, given = OPTIONS[name]
    text = experts if "router" in name else text
    monkeypatch.setattr(grpo_trainer, "parse_response", parsed)
    READ.clear()
    parent = run(GRPOTrainer, GRPOConfig, tmp_path / "parent", text, tokenizer, fields, given)
    assert moved(parent, text), "nothing was learned, so that nothing is compared"
    off = fields | {"share_prompt": "off"}
    plainly = run(OmniGRPOTrainer, OmniGRPOConfig, tmp_path / "off", text, tokenizer, off, given)
    assert apart(plainly, parent) == 0.0
    for ours, theirs in zip(logged(plainly), logged(parent), strict=True):
        assert {k: v for k, v in ours.items() if k in theirs} == theirs
    if "tools" in given:
        assert len(READ) > 2 * 3 * 8, "no turn after a tool's"
        assert logged(parent)[0]["tools/call_frequency"] > 0 < logged(parent)[0]["tools/failure_frequency"] < 1
    shared = run(OmniGRPOTrainer, GRPOConfig, tmp_path / "auto", text, tokenizer, fields, given)  # the class alone
    assert apart(shared, parent) <= 1e-6


def test_a_reward_model_rewards_as_under_trl(text, tokenizer, tmp_path):
    """By object and by name, with a function beside it. Mutant: a tokenizer of its own kept from it."""
    torch.manual_seed(0)
    judge = AutoModelForSequenceClassification.from_pretrained(text, num_labels=1)
    judge.save_pretrained(tmp_path / "judge")
    tokenizer.save_pretrained(tmp_path / "judge")
    for reward, more in (
        (judge, {"reward_processing_classes": [copy.deepcopy(tokenizer), None]}),
        (str(tmp_path / "judge"), {}),
    ):
        given = {"reward_funcs": [reward, length], **more}
        parent = run(GRPOTrainer, GRPOConfig, tmp_path / "parent", text, tokenizer, {}, given)
        ours = run(OmniGRPOTrainer, GRPOConfig, tmp_path / "ours", text, tokenizer, {}, given)
        assert moved(parent, text) and apart(ours, parent) <= 1e-6


def test_a_cut_run_goes_on_as_under_trl(text, tokenizer, tmp_path):
    """From a checkpoint of either class. Mutant: the order of rows drawn anew."""
    fields = {"save_strategy": "steps", "save_steps": 1, "share_prompt": "off"}
    stock = {name: value for name, value in fields.items() if name != "share_prompt"}
    whole = run(GRPOTrainer, GRPOConfig, tmp_path / "parent", text, tokenizer, stock, {})
    ours = run(OmniGRPOTrainer, OmniGRPOConfig, tmp_path / "ours", text, tokenizer, fields, {})
    assert apart(ours, whole) == 0.0
    parent = run(
        GRPOTrainer, GRPOConfig, tmp_path / "p", text, tokenizer, stock, {}, str(tmp_path / "parent/checkpoint-2")
    )
    for cut in ("parent", "ours"):
        checkpoint = str(tmp_path / cut / "checkpoint-2")
        again = run(
            OmniGRPOTrainer, OmniGRPOConfig, tmp_path / f"again {cut}", text, tokenizer, fields, {}, checkpoint
        )
        assert apart(again, parent) == 0.0 and again.state.global_step == 3


def test_what_cannot_hold_is_refused_at_start(text, tokenizer, tmp_path):
    """Mutant: tools left out without a word where our encoder reads the prompts."""
    args = GRPOConfig(output_dir=str(tmp_path), **FULL)
    read = to_dataset(check_rows([(f"q{i}", ROW | {"id": f"q{i}"}) for i in range(8)], Path()), "short")
    with pytest.raises(NotImplementedError, match="tools: only for text-only models and prompts of TRL's own form"):
        OmniGRPOTrainer(text, length, args, read, processing_class=tokenizer, tools=[multiply])
    server = GRPOConfig(output_dir=str(tmp_path), **FULL, use_vllm=True, vllm_mode="server")
    with pytest.raises(NotImplementedError, match="use_vllm: vllm_mode server"):
        OmniGRPOTrainer(text, length, server, plain())


def test_its_methods_can_be_called_by_themselves(text, tokenizer, tmp_path):
    """As TRL's own tests and scripts do. Mutant: scores of no row."""
    ids = torch.randint(3, 200, (2, 9), generator=torch.Generator().manual_seed(0))
    scores = []
    for trainer_class in (GRPOTrainer, OmniGRPOTrainer):
        args = GRPOConfig(output_dir=str(tmp_path), **FULL)
        trainer = trainer_class(text, length, args, plain(), processing_class=tokenizer, rollout_func=rolled)
        scores.append(trainer._get_per_token_logps_and_entropies(trainer.model, ids, torch.ones_like(ids), 4)[0])
        assert len(trainer._generate(["What is red?"])[1]) == 1
    assert torch.equal(*scores)
