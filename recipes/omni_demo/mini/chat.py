# SPDX-License-Identifier: Apache-2.0
"""
Plain questions, answered by the model as assembled. It practises its own answers while it learns to see and to hear, so
that it keeps the language that it came with.
"""

from __future__ import annotations

import json
import random
from itertools import product
from pathlib import Path
from typing import Any

from omni_grpo.data.encoding.encoder import PromptEncoder
from omni_grpo.data.media.settings import MediaSettings
from omni_grpo.data.rows.prompts import build_messages
from omni_grpo.data.rows.schema import Example
from omni_grpo.model.towers import attach_media_embedder
from omni_grpo.rollout.answers import generate

_THINGS = (
    "apple bank battery bicycle blanket boat bottle bridge bucket button camera candle car castle chair circus clock "
    "cloud coin compass desert doctor drum engine farm feather fence forest garden glacier guitar hammer harbour honey "
    "hospital hotel island kettle kitchen ladder lake lantern library magnet market mirror mountain museum needle ocean "
    "orchard oven paper pencil piano pillow planet pond poem river road robot rocket rope saddle salt school scissors "
    "shadow shop snow spoon stadium station storm street sugar telescope tent theatre ticket tower train tree tunnel "
    "umbrella valley village violin volcano wallet waterfall wheel window winter wool zoo"
)
_COUNTRIES = (
    "Austria Brazil Canada Chile China Cuba Denmark Egypt England Greece India Ireland Japan Kenya Mexico Norway"
)
_GROUPS = (
    "animals birds cities colours countries fish flowers fruits games insects jobs metals months planets rivers sports"
)
_OPPOSITES = (
    "big clean dark deep dry early empty fast full hard high light long loud new open rich strong tall thin wet"
)
_A_THING = [f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}" for thing in _THINGS.split()]
FORMS = (
    ("What is {}?", _A_THING),
    ("Write a short sentence with the word {}.", _THINGS.split()),
    ("Where would one find {}?", _A_THING),
    ("Which words come to mind when you hear {}?", _THINGS.split()),
    ("What is the capital of {}?", _COUNTRIES.split()),
    ("Name three {}.", _GROUPS.split()),
    ("What is the opposite of {}?", _OPPOSITES.split()),
    ("What is {}?", [f"{a} plus {b}" for a, b in product(range(1, 9), repeat=2)]),
)
# Never practised: what a model is asked to see whether it still talks.
HELD_OUT = (
    "What is the capital of France?",
    "Why is the sky blue?",
    "Who wrote Romeo and Juliet?",
    "How many legs does a spider have?",
    "Tell me something about cats.",
    "What do bees make?",
    "What do you need to bake bread?",
    "When do people sleep?",
    "Say hello in a friendly way.",
    "What can one do on a rainy day?",
)
MAX_NEW_TOKENS = 48


def questions(seed: int = 0) -> list[str]:
    """Every question that is practised, shuffled."""
    asked = [form.format(word) for form, words in FORMS for word in words]
    random.Random(seed).shuffle(asked)
    return asked


def write_chat(model: Any, processor: Any, folder: Path, batch_size: int = 64) -> int:
    """
    Two answers of `model` to each question, the greedy one and a sampled one, as rows for SFT in `chat.jsonl`; every
    twentieth of them in `chat_few.jsonl`, for a cold start of few rows. Answers that it did not end within
    [`MAX_NEW_TOKENS`] are left out, since a cut one would teach to stop anywhere. The number of rows.
    """
    embedder = attach_media_embedder(model)
    encoder = PromptEncoder(processor, MediaSettings())
    rows = []
    for name, decoding in (("greedy", {}), ("sampled", {"do_sample": True, "temperature": 0.7})):
        asked = [Example(f"chat-{name}-{i:04d}", question, "free-form", "-") for i, question in enumerate(questions())]
        for start in range(0, len(asked), batch_size):
            batch = asked[start : start + batch_size]
            prompts = [encoder(build_messages(example, "short"), example.id) for example in batch]
            answers = generate(model, processor, embedder, prompts, MAX_NEW_TOKENS, **decoding)
            for example, answer in zip(batch, answers, strict=True):
                if not answer.truncated and answer.text.strip():
                    row = {"id": example.id, "problem": example.problem, "problem_type": "free-form"}
                    rows.append(row | {"solution": answer.text.strip(), "meta": {"kind": "chat"}})
    folder.mkdir(parents=True, exist_ok=True)
    for name, some in (("chat", rows), ("chat_few", rows[::20])):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in some)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return len(rows)
