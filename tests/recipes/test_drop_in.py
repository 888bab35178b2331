# SPDX-License-Identifier: Apache-2.0
"""
`OmniGRPOTrainer` in the place of `trl.GRPOTrainer` on a plain causal language model, option by option: the weights
after three steps are the parent's, to the last bit without sharing, within 1e-6 with it.
"""

from __future__ import annotations

import copy

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer
from omni_grpo.data.dataset import to_dataset
from omni_grpo.data.rows.loading import load_examples
from omni_grpo.data.rows.schema import DataError
from small_runs import SMALL_RUN
from text_models import tiny_text

WORDS = ["red", "green", "blue", "seven", "a door", "the sea", "noise", "yes"]
TEXTS = [f"What is {word}? Look, listen, think." for word in WORDS]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    torch.set_num_threads(1)
    return tiny_text(tmp_path_factory.mktemp("models") / "text", TEXTS)


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


class Doubled(TrainerCallback):
    """Reads and changes the run while it goes."""

    def __init__(self):
        self.losses = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.losses.append(logs.get("loss"))

    def on_step_end(self, args, state, control, **kwargs):
        args.temperature = 0.9


LORA = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=True)
FULL = {
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 6,
    "max_steps": 3,
    **SMALL_RUN,
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
    "None alone": ({}, {"reward_funcs": of_some}),
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
    "generation_kwargs": ({"generation_kwargs": {"no_repeat_ngram_size": 2, "suppress_tokens": [5, 6]}}, {}),
    "greedy beams": ({"generation_kwargs": {"num_beams": 2, "do_sample": False, "top_k": None}}, {}),
    "rollout_func": ({}, {"rollout_func": rolled, "reward_funcs": [length, bonus]}),
    "table": ({"log_completions": True}, {"reward_funcs": [length, letters]}),
}


def run(trainer_class, config_class, folder, text, tokenizer, fields, given, **more):
    given = {"reward_funcs": length, "train_dataset": plain(), **given, **more}
    given["reward_funcs"] = copy.copy(given["reward_funcs"])
    if config_class is OmniGRPOConfig:
        fields = {"credit_map": "stock", **fields}
    args = config_class(output_dir=str(folder), **{**FULL, **fields})
    trainer = trainer_class(model=text, args=args, processing_class=copy.deepcopy(tokenizer), **given)
    trainer.train()
    return trainer


def apart(ours, parent) -> float:
    pairs = zip(ours.model.state_dict().items(), parent.model.state_dict().items(), strict=True)
    return max((a - b).abs().max().item() for (n, a), (m, b) in pairs if n == m)


def moved(trainer, text) -> bool:
    start = AutoModelForCausalLM.from_pretrained(text).state_dict()
    now = {n.replace("base_model.model.", ""): v for n, v in trainer.model.state_dict().items()}
    lora = any("lora_B" in n and v.abs().max() > 0 for n, v in now.items())
    return lora or any(n in now and not torch.equal(now[n], v) for n, v in start.items())


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_trains_as_under_trl(text, tokenizer, tmp_path, name):
    """
    Mutants: a stream of tokens drawn beside; turns read by the encoder; groups kept together over steps (`one generation
    for two steps`, `bnpo accumulated`); a missing reward left out; what `rollout_func` adds kept from the rewards.
    """
    fields, given = OPTIONS[name]
    parent = run(GRPOTrainer, GRPOConfig, tmp_path / "parent", text, tokenizer, fields, given)
    assert moved(parent, text), "nothing was learned, so that nothing is compared"
    plainly = run(
        OmniGRPOTrainer, OmniGRPOConfig, tmp_path / "off", text, tokenizer, fields | {"share_prompt": "off"}, given
    )
    assert apart(plainly, parent) == 0.0
    shared = run(OmniGRPOTrainer, GRPOConfig, tmp_path / "auto", text, tokenizer, fields, given)  # the class alone
    assert apart(shared, parent) <= 1e-6
    logs = [{k: v for k, v in t.state.log_history[0].items()} for t in (parent, plainly)]
    assert set(logs[0]) <= set(logs[1])
    assert {k: v for k, v in logs[0].items() if "time" not in k} == {k: logs[1][k] for k in logs[0] if "time" not in k}
