# SPDX-License-Identifier: Apache-2.0
"""Answer a test file with a model, under each media variant, and score it; resumable to the batch."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from omni_grpo.encoder import PromptEncoder
from omni_grpo.generation import Completion, generate
from omni_grpo.prompts import PROMPT_STYLES, Messages, build_messages
from omni_grpo.schema import Example
from omni_grpo.scoring import summarise
from omni_grpo.towers import MediaEmbedder
from omni_rewards import SectionSchema, answer_score, parse_sections

logger = logging.getLogger(__name__)

# variant -> (types of media items taken out of the prompt, modalities whose content is blanked)
VARIANTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "full": ((), ()),
    "no_audio": (("audio",), ()),
    "no_video": (("video", "image"), ()),
    "silent": ((), ("audio",)),
    "blank": ((), ("video", "image")),
}


def vary(messages: Messages, variant: str) -> Messages:
    """The prompt without the media types that `variant` removes; the text stays as it is."""
    removed = VARIANTS[variant][0]
    return [
        {
            **m,
            "content": [
                {**p, "audio_in_video": p["audio_in_video"] and "audio" not in removed}
                for p in m["content"]
                if p["type"] not in removed
            ],
        }
        for m in messages
    ]


def predict(
    model: Any,
    embedder: MediaEmbedder,
    encoder: PromptEncoder,
    examples: Sequence[Example],
    prompt_style: str,
    variant: str,
    output_file: Path,
    batch_size: int = 32,
    max_new_tokens: int = 128,
    bare: bool = False,
) -> list[dict[str, Any]]:
    """
    Complete every example greedily and write one prediction a line.

    Batches are the same however often the run is cut: whole batches found in `output_file` are kept, a broken tail is
    written again. `bare` is for models that were never taught sections: where there is no `<answer>`, the whole
    completion is the answer. For any other model a missing `<answer>` is a miss.

    Returns:
        `list[dict]`: The predictions of this variant, in the order of `examples`.
    """
    batches = [examples[i : i + batch_size] for i in range(0, len(examples), batch_size)]
    done = _read_whole_batches(output_file, batches)
    schema = PROMPT_STYLES[prompt_style].schema
    with output_file.open("a", encoding="utf-8") as out:
        for batch in tqdm(batches[len(done) :], desc=f"{output_file.parent.name} · {variant}", unit="batch"):
            rows = []
            for example in batch:
                messages = build_messages(example, prompt_style, encoder.settings.load_audio_from_video)
                rows.append(encoder(vary(messages, variant), example.id, blank=VARIANTS[variant][1]))
            completions = generate(model, encoder.processor, embedder, rows, max_new_tokens)
            records = [_record(e, c, schema, variant, bare) for e, c in zip(batch, completions, strict=True)]
            out.write("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
            out.flush()
            done.append(records)
    return [record for batch in done for record in batch]


def _read_whole_batches(file: Path, batches: Sequence[Sequence[Example]]) -> list[list[dict[str, Any]]]:
    """Batches that an earlier run wrote to the end; the file is cut back to them."""
    if not file.is_file():
        return []
    records = []
    for line in file.read_text(encoding="utf-8").split("\n")[:-1]:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            logger.warning("%s ends in a broken line; that batch is answered again", file)
            break
    whole: list[list[dict[str, Any]]] = []
    for batch in batches:
        found = records[: len(batch)]
        if [r["id"] for r in found] != [e.id for e in batch]:
            break
        whole.append(found)
        records = records[len(batch) :]
    draft = file.with_suffix(".tmp")
    draft.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for b in whole for r in b), encoding="utf-8")
    os.replace(draft, file)
    return whole


def _record(
    example: Example, completion: Completion, schema: SectionSchema, variant: str, bare: bool
) -> dict[str, Any]:
    sections = parse_sections(completion.text, schema)
    answer = sections.texts.get("answer", completion.text if bare else None)
    score = 0.0
    if answer is not None:
        options = list(example.options) if example.options else None
        score = answer_score(answer, example.solution, example.problem_type, options)
    return {
        "id": example.id,
        "problem": example.problem,
        "problem_type": example.problem_type,
        "options": example.options,
        "solution": example.solution,
        "media": [asdict(m) for m in example.media],
        "variant": variant,
        "completion": completion.text,
        "sections": {name: sections.texts.get(name) for name in schema.names},
        "format_ok": sections.ok,
        "format_reason": sections.reason,
        "answer_score": score,
        "num_tokens": completion.num_tokens,
        "seconds": completion.seconds,
        "meta": dict(example.meta),
    }


def evaluate(
    model: Any,
    embedder: MediaEmbedder,
    encoder: PromptEncoder,
    examples: Sequence[Example],
    prompt_style: str,
    output_dir: Path,
    variants: Sequence[str] = ("full",),
    combined: Sequence[str] = (),
    batch_size: int = 32,
    max_new_tokens: int = 128,
    bare: bool = False,
    ablated_rows: int | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """
    Run every variant, write `predictions.jsonl`, `predictions.<variant>.jsonl` and `metrics.json` to `output_dir`.

    Returns:
        `(dict, list[dict])`: Metrics, and the predictions of the first variant.
    """
    start = time.time()
    output_dir.mkdir(parents=True, exist_ok=True)
    results = {}
    for variant in variants:
        file = output_dir / ("predictions.jsonl" if variant == "full" else f"predictions.{variant}.jsonl")
        rows = examples if variant == variants[0] else examples[:ablated_rows]
        results[variant] = predict(
            model, embedder, encoder, rows, prompt_style, variant, file, batch_size, max_new_tokens, bare
        )
    metrics = {
        **summarise(results[variants[0]], combined),
        "variants": {v: summarise(results[v], combined) for v in variants[1:]},
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": time.time() - start,
    }
    (output_dir / "metrics.json").write_text(json.dumps(metrics, indent=1))
    return metrics, results[variants[0]]
