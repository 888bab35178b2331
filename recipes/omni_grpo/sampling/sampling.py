# SPDX-License-Identifier: Apache-2.0
"""Draw many completions of each row and score them; resumable to the row, on any processes, with the same result."""

from __future__ import annotations

import inspect
import math
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import TrainerState
from trl.trainer.utils import get_callable_name

from omni_grpo.config import DataArguments
from omni_grpo.data.dataset import load_sources, preflight, to_dataset
from omni_grpo.data.encoding.encoder import PromptEncoder
from omni_grpo.data.encoding.lookahead import LookAhead
from omni_grpo.data.media.decode_cache import open_decode_cache
from omni_grpo.data.media.settings import MediaSettings
from omni_grpo.data.rows.prompts import PROMPT_STYLES
from omni_grpo.data.rows.trl_rows import PICTURES
from omni_grpo.evaluation.evaluate import Share, batches_left, put_together
from omni_grpo.evaluation.prediction_files import append
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.model.towers import attach_media_embedder
from omni_grpo.rollout.answers import Completion, generate
from omni_grpo.rollout.vllm.answering import AnsweringEngine
from omni_grpo.run.reward_columns import check_reward_columns
from omni_grpo.run.reward_settings import configured_rewards, read_settings
from omni_grpo.sampling.arguments import SampleArguments
from omni_rewards import parse_sections
from omni_rewards.judge.settings import run_blocking

SAMPLES = "samples.jsonl"


# A line of SAMPLES: `id`, `problem_type`, `completions`; each of these: `text`, `num_tokens`, `truncated`, `format_ok`
# (its sections are as the prompt style asks), `rewards` (scores by name, None where a reward gave none).
Row = dict[str, Any]


def sample(data: DataArguments, media: MediaSettings, args: SampleArguments, share: Share, device: Any) -> list[Row]:
    """
    Draw `args.num_completions` completions of each row and write them, scored, to `samples.jsonl`, one row a line.

    Rows are taken in the order of their ids, and the random numbers of a batch begin anew from the seed and its first id:
    a run that was cut, goes on on other processes or has its rows in another order draws what it would have drawn.

    Args:
        data, media, args: The run's fields.
        share ([`~omni_grpo.evaluation.evaluate.Share`]): This process's part.
        device (`torch.device`): Where its model is.

    Returns:
        `list[dict]`: In the order of ids; on processes but the first, none.

    Raises:
        `DataError`: As the checks before training.
        `ValueError`: The folder holds other rows, or a reward is not a finite number.
    """
    folder, count = Path(args.output_dir), args.num_completions
    schema = PROMPT_STYLES[data.prompt_style].schema
    rewards = configured_rewards(args.reward_funcs, read_settings(args.reward_settings), schema)
    examples = load_sources(data.train_file, data.media_root, data.train_split, data.media_roots)
    rows = to_dataset(sorted(examples, key=lambda e: e.id), data.prompt_style, media.load_audio_from_video)
    check_reward_columns(rewards, rows, args.allow_unused_rewards)
    decoded = open_decode_cache(data.decode_cache, data.decode_cache_mb, args.output_dir)
    processor, longest = load_processor(args.model_name_or_path), data.max_prompt_length
    encoder = PromptEncoder(processor, media, longest, args.prompt_cache_mb, decoded, data.escape_control_tokens)
    if share.index == 0:
        preflight(rows, encoder, folder / "preflight")
    share.wait()
    model = load_model(args.model_name_or_path, dtype=args.dtype).to(device).eval()
    embedder = attach_media_embedder(model)
    engine = AnsweringEngine(model, processor, embedder) if args.backend == "vllm" else None

    ids, rows = list(rows["id"]), rows.remove_columns([name for name in rows.column_names if name in PICTURES])
    own, done, left = batches_left(folder / SAMPLES, ids, args.batch_size, share)
    asked = ([(rows[i]["prompt"], ids[i]) for i in batch] for batch in left)
    decoding = {"do_sample": True, "temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p}
    rarely = 0.1 if sys.stderr.isatty() else 30  # seconds between two lines in a file
    shown = tqdm(left, "sampling", leave=False, unit="batch", delay=5, disable=share.index > 0, mininterval=rarely)
    for batch, prompts in zip(shown, LookAhead(asked, encoder.expect), strict=True):
        encoded = [encoder(messages, name) for messages, name in prompts for _ in range(count)]
        torch.manual_seed(random.Random(f"{args.seed} {ids[batch[0]]}").getrandbits(63))
        said = generate(model, processor, embedder, encoded, args.max_new_tokens, engine, **decoding)
        columns = rows[[i for i in batch for _ in range(count)]]
        scores, formed = score(rewards, columns, said), [parse_sections(c.text, schema).ok for c in said]
        drawn = [
            {"text": c.text, "num_tokens": c.num_tokens, "truncated": c.truncated, "format_ok": ok, "rewards": earned}
            for c, ok, earned in zip(said, formed, scores, strict=True)
        ]
        own_draws = zip(batch, columns["problem_type"][::count], range(0, len(drawn), count), strict=True)
        new = [(ids[i], kind, drawn[k : k + count]) for i, kind, k in own_draws if ids[i] not in done]
        append(own, [{"id": i, "problem_type": kind, "completions": draws} for i, kind, draws in new])
    return put_together(folder / SAMPLES, ids, share)


def score(rewards: Sequence[Any], columns: Row, said: Sequence[Completion]) -> Iterator[dict[str, float | None]]:
    """
    Each completion's rewards by name, called as TRL calls them; `columns` are the data's, one value a completion.

    Raises:
        `ValueError`: A reward gave another number of scores, or one that is not finite.
    """
    given = {"prompts" if name == "prompt" else name: values for name, values in columns.items()}
    given["completions"] = [[{"role": "assistant", "content": c.text}] for c in said]
    given["completion_ids"] = [list(c.token_ids) for c in said]
    given |= {"trainer_state": TrainerState(), "log_extra": lambda *_: None, "log_metric": lambda *_: None}
    scores: dict[str, list[float | None]] = {}
    for reward in rewards:
        name, outcome = get_callable_name(reward), reward(**given)
        values = run_blocking(outcome) if inspect.iscoroutine(outcome) else outcome
        scores[name] = [None if value is None else float(value) for value in values]
        if len(values) != len(said) or not all(v is None or math.isfinite(v) for v in scores[name]):
            raise ValueError(
                f"{name}: gave no finite score for each of the completions of row {columns['id'][0]!r}, …"
            )
    return (dict(zip(scores, values, strict=True)) for values in zip(*scores.values(), strict=True))
