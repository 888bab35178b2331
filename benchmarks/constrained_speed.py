# SPDX-License-Identifier: Apache-2.0
"""
What constrained decoding costs: a step of the logits processor, and an update with the renormalised head.

    python benchmarks/constrained_speed.py [--tiktoken qwen.tiktoken] [--repeats 15] [--threads 1]

1. Processor: 32 rows sampled at random over a vocabulary of 152,064 tokens (of a tiktoken file, else made up), timed
   call by call while the rows wander through their sections; states met for the first time are timed apart.
2. Update: forward and backward of one batch with TRL's fused head and with ours, in turns on the same completions,
   finding the allowed sets included. Ratios are medians of paired rounds, with the interval of their quartiles.

CPU seconds are those of this process, so that a busy machine does not show.
"""

import argparse
import base64
import platform
import random
import statistics
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from trl.trainer.utils import add_fused_lm_head

from omni_grpo.rollout.constrained.decoding import SectionLogitsProcessor
from omni_grpo.rollout.constrained.head import add_constrained_head, allowed_sets
from omni_grpo.rollout.constrained.section_constraint import SectionConstraint

QWEN = 152_064
END = 151_645
PIECES = ["</", "context", "think", "answer", "><", ".</", ">\n", "<context", "</think"]


def vocabulary(file: Path | None, size: int = QWEN) -> list[bytes | None]:
    """Bytes by id: of a tiktoken file, or 256 bytes, pieces of tags and words of random letters."""
    table: list[bytes | None] = [None] * size
    if file is not None:
        for line in file.read_bytes().splitlines():
            token, rank = line.split()
            table[int(rank)] = base64.b64decode(token)
        return table
    chance = random.Random(0)
    words = {bytes([b]): None for b in range(256)} | {piece.encode(): None for piece in PIECES}
    while len(words) < min(size, END) - 1 and size > 1000:
        word = "".join(chance.choices("etaoinshrdlu", k=chance.randint(2, 9)))
        words[(chance.choice(["", " ", " "]) + word).encode()] = None
    table[: len(words)] = words
    return table


def completions(constraint: SectionConstraint, rows: int, length: int) -> list[list[int]]:
    """Random choices, as a policy without any knowledge would make them."""
    made, generator = [], np.random.default_rng(0)
    for _ in range(rows):
        ids, state = [], constraint.start
        while state != constraint.done and len(ids) < length:
            ways = np.flatnonzero(constraint.allowed(constraint.mask(state, len(ids))))
            ids.append(int(generator.choice(ways)))
            state = constraint.advance(state, len(ids) - 1, ids[-1])
        made.append(ids)
    return made


def time_processor(table: list[bytes | None], rows: int, length: int) -> None:
    start = time.process_time()
    constraint = SectionConstraint(table, [END], max_tokens=length)
    print(f"\nbuilding the constraint: {time.process_time() - start:.1f} s of CPU, once a run")
    batch = completions(constraint, rows, length)
    ids = torch.tensor([[0, *row] + [END] * (length - len(row)) for row in batch])
    scores = torch.randn(rows, len(table))
    for name in ("the first batch, whose states are new", "the same rows again"):
        processor, seconds = SectionLogitsProcessor(constraint, prompt_length=1), []
        for step in range(length):
            fresh = scores.clone()
            start = time.process_time()
            processor(ids[:, : step + 1], fresh)
            seconds.append(1000 * (time.process_time() - start))
        seconds.sort()
        print(
            f"{name}: median {statistics.median(seconds):.2f} ms a step, mean {statistics.mean(seconds):.2f}, "
            f"90 % below {seconds[int(0.9 * length)]:.2f}, worst {seconds[-1]:.2f}"
        )


def update(model, ids: torch.Tensor, labels: torch.Tensor, find_sets, keep: int) -> float:
    """CPU seconds of one forward and backward."""
    model.zero_grad(set_to_none=True)
    start = time.process_time()
    sets = dict(zip(("allowed_sets", "set_index"), find_sets(), strict=True)) if find_sets else {}
    output = model(input_ids=ids, labels=labels, fused_lm_head=True, **sets)
    output.log_probs[:, -keep:].sum().backward()
    return time.process_time() - start


def time_update(
    title: str, table: list[bytes | None], shape: dict, rows: int, prompt: int, keep: int, repeats: int
) -> None:
    constraint = SectionConstraint(table, [len(table) - 2 if len(table) < QWEN else END], max_tokens=keep)
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(table), tie_word_embeddings=False, **shape))
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    add_constrained_head(model)
    sampled = completions(constraint, rows, keep)
    mask = torch.tensor([[1] * len(row) + [0] * (keep - len(row)) for row in sampled])
    completion = torch.tensor([row + [0] * (keep - len(row)) for row in sampled])
    ids = torch.cat([torch.randint(len(table), (rows, prompt)), completion], dim=1)
    labels = torch.cat([torch.full((rows, prompt), -100), completion.masked_fill(mask == 0, -100)], dim=1)
    find_sets = partial(allowed_sets, constraint, completion, mask)
    for finder in (None, find_sets):
        update(model, ids, labels, finder, keep)
    rounds = []
    for i in range(repeats):
        order = [None, find_sets] if i % 2 else [find_sets, None]
        took = {finder: update(model, ids, labels, finder, keep) for finder in order}
        rounds.append((took[find_sets], took[None]))
    start = time.process_time()
    constraint.trace.cache_clear()
    find_sets()
    cold = time.process_time() - start
    ratios = sorted(ours / plain for ours, plain in rounds)
    low, high = ratios[len(ratios) // 4], ratios[-len(ratios) // 4]
    print(
        f"{title}: plain {statistics.median(p for _, p in rounds):.3f} s, constrained "
        f"{statistics.median(o for o, _ in rounds):.3f} s, ratio {statistics.median(ratios):.3f} [{low:.3f}, {high:.3f}] "
        f"over {repeats} rounds; finding the sets anew, once a batch: {cold:.3f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiktoken", type=Path, help="vocabulary as a tiktoken file, e.g. Qwen's")
    parser.add_argument("--only", choices=["processor", "update"])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f"{platform.processor() or platform.machine()}, {args.threads} thread(s), torch {torch.__version__}")
    large = vocabulary(args.tiktoken)
    if args.only != "update":
        time_processor(large, rows=32, length=96)
    if args.only == "processor":
        return
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    demo = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, **heads}
    wide = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, **heads}
    print("\nupdate; off CUDA, TRL's head scores prompts too, which ours does not: hence also prompts of one token")
    for prompt in (60, 1):
        time_update(
            f"the demo's shape, 64 rows of {prompt} + 80", vocabulary(None, 768), demo, 64, prompt, 80, args.repeats
        )
        time_update(f"152,064 tokens, 4 rows of {prompt} + 80", large, wide, 4, prompt, 80, args.repeats)


if __name__ == "__main__":
    main()
