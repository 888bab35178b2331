# SPDX-License-Identifier: Apache-2.0
"""The rewards in TRL's own GRPOTrainer, which knows nothing of this project; text alone, sync and async."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from judge_server import JudgeServer, Request, says
from omni_rewards import (
    AsyncAnswerReward,
    AsyncContextReward,
    AsyncReasoningReward,
    ContextReward,
    ReasoningReward,
    answer_reward,
    context_reward,
    section_format_reward,
)

RIGHT = "<context>The face is sad.</context><think>The face is sad. So yes.</think><answer>yes</answer>"
WRONG = "<context>The face is sad.</context><think>The face is sad. So no.</think><answer>no</answer>"
VOCABULARY = ["<pad>", "<eos>", "sad?", RIGHT, WRONG, "yes", "<think>"]
REPOSITORY = Path(__file__).parents[2]
PAGES = [page for pattern in ("*.md", "docs/*.md", "recipes/configs/*/*.md") for page in REPOSITORY.glob(pattern)]
EXAMPLES = {
    str(page.relative_to(REPOSITORY)): re.findall(r"```py(?:thon)?\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    for page in sorted(PAGES)
}
CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A token is a whole completion, so that a random model writes good, wrong and malformed ones from the start."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", padding_side="left", chat_template=CHAT
    )


@pytest.fixture
def make(tokenizer, tmp_path: Path):
    def build(rewards: list[Any], conversational: bool = False, **fields: Any) -> GRPOTrainer:
        torch.manual_seed(0)
        torch.set_num_threads(1)
        size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = Qwen2Config(vocab_size=len(VOCABULARY), num_key_value_heads=1, eos_token_id=1, pad_token_id=0, **size)
        prompt = [{"role": "user", "content": "sad?"}] if conversational else "sad?"
        row = {"prompt": prompt, "solution": "yes", "problem_type": "yes_no", "context": "The face is sad."}
        fields = {"max_steps": 12, "learning_rate": 0.05, "lr_scheduler_type": "constant", "beta": 0.0, **fields}
        args = GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=32,
            num_generations=16,
            max_completion_length=1,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            **fields,
        )
        return GRPOTrainer(
            Qwen2ForCausalLM(config), rewards, args, Dataset.from_list([row] * 64), processing_class=tokenizer
        )

    return build


def logged(trainer: GRPOTrainer, key: str) -> list[float]:
    return [log[key] for log in trainer.state.log_history if key in log]


@pytest.fixture(scope="module")
def rewards() -> Iterator[dict[str, list[Any]]]:
    """Every reward in both forms; the judge of the reasoning finds one answer convincing."""

    async def grade(request: Request) -> bytes:
        return says('{"score": 5}' if request.texts["ANSWER"] == "yes" else '{"score": 1}')

    with JudgeServer(grade) as server:
        judge = {"endpoint": server.endpoint, "model": "m"}
        yield {
            "sync": [
                *(answer_reward, section_format_reward, context_reward),
                ReasoningReward(judge),
            ],
            "async": [
                *(AsyncAnswerReward(), section_format_reward, AsyncContextReward()),
                AsyncReasoningReward(judge),
            ],
        }


@pytest.mark.parametrize("page", [name for name, blocks in EXAMPLES.items() if blocks])
def test_the_python_on_a_page_runs_and_learns(make, page) -> None:
    """`...` stands for a model and rows of one's own. Mutants: a name that is not exported; a misspelt argument."""
    for block in EXAMPLES[page]:
        told: dict[str, Any] = {
            "GRPOTrainer": lambda *own, reward_funcs: make(reward_funcs) if own == (...,) else None
        }
        exec(block, told)
        told["trainer"].train()
        names = [reward.__name__ for reward in told["trainer"].reward_funcs]
        assert names and all(logged(told["trainer"], f"rewards/{name}/mean")[-1] == 1.0 for name in names)


def test_the_readme_has_an_example() -> None:
    assert len(EXAMPLES["README.md"]) == 1


@pytest.mark.parametrize(("form", "conversational"), [("sync", False), ("async", True)])
def test_a_stock_run_learns_from_every_reward(make, rewards, form, conversational) -> None:
    """What is logged rises to the maximum, so the numbers reach the loss; metrics come under each reward's name."""
    trainer = make(list(rewards[form]), conversational)
    trainer.train()
    for reward in rewards["sync"]:
        means = logged(trainer, f"rewards/{reward.__name__}/mean")
        assert len(means) == 12 and min(means) >= 0.0 and max(means) <= 1.0
        assert means[0] < 0.75 and means[-1] == 1.0, reward.__name__
    assert {"answer/accuracy_without_reasoning", "format/blank_think_rate"} <= {
        key for log in trainer.state.log_history for key in log
    }


def test_sync_and_async_rewards_train_the_same_weights(make, rewards) -> None:
    weights: list[list[torch.Tensor]] = []
    for form in ("sync", "async"):
        trainer = make(list(rewards[form]), max_steps=2)
        trainer.train()  # before the next is made: making a trainer seeds the sampling
        weights.append([parameter.detach() for parameter in trainer.model.parameters()])
    for ours, other in zip(*weights, strict=True):
        assert torch.equal(ours, other)


class Judged:
    """A judge that cannot be reached for wrong answers; `missing` is what it says of them."""

    __name__ = "judged"

    def __init__(self, missing: float | None) -> None:
        self.missing = missing

    def __call__(self, completions: list[str], **kwargs: Any) -> list[float | None]:
        return [self.missing if completion == WRONG else float(len(completion) % 5) for completion in completions]


def one_batch(make, missing: float | None, aggregation: str) -> tuple[list[str], torch.Tensor]:
    """Completions of one step and their advantages."""
    trainer = make([answer_reward, Judged(missing)], max_steps=1, multi_objective_aggregation=aggregation)
    trainer.train()
    return list(trainer._logs["completion"]), torch.tensor(list(trainer._logs["advantages"]))


def test_stock_trl_counts_a_missing_judge_score_as_0(make) -> None:
    """Under its default, the advantages are those of a judge that said 0; only `normalize_then_sum` leaves it out."""
    (texts, default), (same, zero) = (one_batch(make, missing, "sum_then_normalize") for missing in (None, 0.0))
    assert texts == same and WRONG in texts and RIGHT in texts
    assert torch.equal(default, zero)

    (texts, left_out), (same, zero) = (one_batch(make, missing, "normalize_then_sum") for missing in (None, 0.0))
    assert texts == same
    assert not torch.allclose(left_out, zero, atol=1e-2)

    # What "left out" is, written apart: each reward standardised over the rows that have it, then added up.
    answers = torch.tensor(answer_reward(texts, ["yes"] * len(texts), ["yes_no"] * len(texts)))
    judged = torch.tensor([float("nan") if r is None else r for r in Judged(None)(texts)])
    total = torch.zeros(2, 16)
    for reward in (answers.view(2, 16), judged.view(2, 16)):
        for group, row in enumerate(reward):
            there = ~row.isnan()
            total[group, there] += (row[there] - row[there].mean()) / (row[there].std() + 1e-4)
    expected = (total - total.mean()) / (total.std() + 1e-4)
    torch.testing.assert_close(left_out, expected.flatten(), atol=1e-4, rtol=1e-4)


def test_a_judge_that_is_never_there_leaves_a_run_going(make, tmp_path: Path) -> None:
    """Replay of nothing: every readable row is `None`; stock TRL trains on what the other reward says."""
    judge = {
        "endpoint": "http://localhost:9/v1",
        "model": "none",
        "cache_dir": str(tmp_path / "empty"),
        "replay": True,
    }
    trainer = make([answer_reward, ContextReward(judge=judge)])
    trainer.train()
    assert logged(trainer, "rewards/answer_reward/mean")[-1] == 1.0
    assert logged(trainer, "judge/failed")[-1] == 32
    last = logged(trainer, "rewards/context_reward/mean")[-1]
    assert last is None or last != last, "the mean of nothing"
