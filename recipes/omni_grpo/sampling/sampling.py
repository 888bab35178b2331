# SPDX-License-Identifier: Apache-2.0
"""Draw many completions of each row and score them; resumable to the row, on any processes, with the same result."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

import torch
from datasets import Dataset
from transformers import TrainerState
from trl.trainer.utils import get_callable_name

from omni_grpo.data.encoding.encoder import PromptEncoder
from omni_grpo.data.encoding.lookahead import LookAhead
from omni_grpo.data.rows.trl_rows import PICTURES
from omni_grpo.evaluation.evaluate import Share, in_shares
from omni_grpo.model.towers import MediaEmbedder
from omni_grpo.rollout.answers import Completion, generate
from omni_grpo.sampling.arguments import SampleArguments
from omni_rewards import SectionSchema, parse_sections

SAMPLES = "samples.jsonl"


class Drawn(TypedDict):
    """One completion: its text and length in tokens, whether its sections are well-formed, its rewards by name."""

    text: str
    num_tokens: int
    truncated: bool
    format_ok: bool
    rewards: dict[str, float | None]


class Sample(TypedDict):
    """A row's line of `samples.jsonl`."""

    id: str
    problem_type: str | None
    completions: list[Drawn]


def sample(
    model: Any,
    embedder: MediaEmbedder,
    encoder: PromptEncoder,
    dataset: Dataset,
    reward_funcs: Sequence[Callable[..., Any]],
    schema: SectionSchema,
    file: Path,
    args: SampleArguments,
    share: Share | None = None,
) -> list[Sample]:
    """
    Draw `args.num_completions` completions of each row and write them to `file`, scored, one row a line.

    The random numbers of a batch begin anew from the seed and its first row, so that a run that was cut, or that goes
    on on other processes, draws what it would have drawn.

    Args:
        model (`PreTrainedModel`): In evaluation mode, with its `embedder` and `encoder`.
        dataset (`Dataset`): From [`~omni_grpo.data.dataset.to_dataset`].
        reward_funcs (sequence of `Callable`): In TRL's calling form; asynchronous ones are awaited.
        schema ([`SectionSchema`]): The prompt style's, for `format_ok`.
        file (`Path`): Where the lines go; those that are there are kept.
        args ([`SampleArguments`]): How completions are drawn.
        share ([`~omni_grpo.evaluation.evaluate.Share`], *optional*): This process's part.

    Returns:
        `list[Sample]`: In the order of the rows; on processes but the first, none.

    Raises:
        `ValueError`: `file` holds other rows, or a reward is not a finite number.
    """
    ids, count = list(dataset["id"]), args.num_completions or 0
    dataset = dataset.select_columns([name for name in dataset.column_names if name not in PICTURES])
    decoding = {"do_sample": True, "temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p}

    def complete(batches: Sequence[range]) -> Iterator[list[list[Completion]]]:
        asked = ([(dataset[i]["prompt"], ids[i]) for i in batch] for batch in batches)
        for prompts in LookAhead(asked, encoder.expect):
            rows = [encoder(messages, name) for messages, name in prompts for _ in range(count)]
            begun = hashlib.sha256(f"{args.seed} {prompts[0][1]}".encode()).digest()
            torch.manual_seed(int.from_bytes(begun[:7]))
            drawn = generate(model, encoder.processor, embedder, rows, args.max_new_tokens, **decoding)
            yield [drawn[i : i + count] for i in range(0, len(drawn), count)]

    def rows_of(found: Sequence[tuple[int, list[Completion]]]) -> list[Sample]:
        flat = [(dataset[i], completion) for i, own in found for completion in own]
        scores = score(reward_funcs, [row for row, _ in flat], [completion for _, completion in flat])
        drawn: list[Drawn] = [
            {
                "text": completion.text,
                "num_tokens": completion.num_tokens,
                "truncated": completion.truncated,
                "format_ok": parse_sections(completion.text, schema).ok,
                "rewards": {name: values[k] for name, values in scores.items()},
            }
            for k, (_, completion) in enumerate(flat)
        ]
        return [
            {"id": ids[i], "problem_type": dataset[i]["problem_type"], "completions": drawn[k * count :][:count]}
            for k, (i, _) in enumerate(found)
        ]

    return in_shares(file, ids, args.batch_size, share or Share(), complete, rows_of, "sampling")


def score(
    reward_funcs: Sequence[Callable[..., Any]], rows: Sequence[dict[str, Any]], completions: Sequence[Completion]
) -> dict[str, list[float | None]]:
    """
    Rewards by name, one a completion, each reward called as TRL calls it; `rows` has each completion's row.

    Raises:
        `ValueError`: A reward gave another number of scores, or one that is not finite.
    """
    given: dict[str, Any] = {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
    given |= {
        "prompts": given.pop("prompt", []),
        "completions": [[{"role": "assistant", "content": c.text}] for c in completions],
        "completion_ids": [list(c.token_ids) for c in completions],
        "trainer_state": TrainerState(),
        "log_extra": lambda *_: None,
        "log_metric": lambda *_: None,
    }
    scores: dict[str, list[float | None]] = {}
    for reward in reward_funcs if rows else ():
        name, outcome = get_callable_name(reward), reward(**given)
        values = asyncio.run(outcome) if inspect.iscoroutine(outcome) else outcome
        scores[name] = [None if value is None else float(value) for value in values]
        if len(values) != len(rows) or not all(value is None or math.isfinite(value) for value in scores[name]):
            raise ValueError(f"{name}: gave no finite score for each of the completions of rows {rows[0]['id']!r}, …")
    return scores
