# SPDX-License-Identifier: Apache-2.0
"""Answer a test file with a model, under each media variant, and score it; resumable to the row, on any processes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from omni_grpo.encoding.encoder import PromptEncoder
from omni_grpo.encoding.lookahead import LookAhead
from omni_grpo.evaluation.perception_judge import judged
from omni_grpo.evaluation.prediction_files import append, finished, merge, part_file
from omni_grpo.evaluation.prediction_rows import prediction_row
from omni_grpo.evaluation.protocol import Protocol
from omni_grpo.evaluation.scoring import summarise
from omni_grpo.generation import generate
from omni_grpo.model.towers import MediaEmbedder
from omni_grpo.rows.prompts import PROMPT_STYLES, Messages, build_messages
from omni_grpo.rows.schema import Example

# variant -> (types of media items taken out of the prompt, modalities whose content is blanked)
VARIANTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "full": ((), ()),
    "no_audio": (("audio",), ()),
    "no_video": (("video", "image"), ()),
    "silent": ((), ("audio",)),
    "blank": ((), ("video", "image")),
}


@dataclass(frozen=True)
class Share:
    """
    A process's part of the work: every `count`-th batch, from `index` on.

    Args:
        index (`int`): Which of the processes this is; 0 is the one that puts the parts together.
        count (`int`): How many there are.
        wait (`Callable`): Returns when all processes have called it.
    """

    index: int = 0
    count: int = 1
    wait: Callable[[], None] = lambda: None


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
    protocol: Protocol | None = None,
    share: Share | None = None,
) -> list[dict[str, Any]]:
    """
    Complete every example greedily and write one prediction a line.

    Batches are the same however often the run is cut and on however many processes it goes on: a batch of which some
    rows are written is generated whole again, and its other rows are added. `bare` is for models that were never
    taught sections: where there is no `<answer>`, the whole completion is the answer. For any other model a missing
    `<answer>` is a miss.

    Returns:
        `list[dict]`: The predictions of this variant, in the order of `examples`; on processes but the first, none.

    Raises:
        `ValueError`: `output_file` holds rows of another test file.
    """
    protocol, share = protocol or Protocol(), share or Share()
    ids, own = [e.id for e in examples], part_file(output_file, share.index, share.count)
    done = finished(output_file, own, ids)
    schema = PROMPT_STYLES[prompt_style].schema
    batches = [examples[i : i + batch_size] for i in range(0, len(examples), batch_size)][share.index :: share.count]
    left = [batch for batch in batches if any(e.id not in done for e in batch)]
    title = f"{output_file.parent.name} · {variant}"

    def prompts(batch: Sequence[Example]) -> list[tuple[Messages, str]]:
        built = [build_messages(e, prompt_style, encoder.settings.load_audio_from_video) for e in batch]
        return [(vary(messages, variant), e.id) for messages, e in zip(built, batch, strict=True)]

    blank = VARIANTS[variant][1]
    coming = LookAhead(map(prompts, left), lambda asked: encoder.expect(asked, blank))
    for batch, asked in zip(tqdm(left, desc=title, unit="batch", disable=share.index > 0), coming, strict=True):
        rows = [encoder(messages, name, blank) for messages, name in asked]
        completions = generate(model, encoder.processor, embedder, rows, max_new_tokens)
        pairs = zip(batch, completions, strict=True)
        append(
            own,
            [
                prediction_row(e, completion, schema, variant, bare, protocol.answers)
                for e, completion in pairs
                if e.id not in done
            ],
        )
    share.wait()
    merged = merge(output_file, ids) if share.index == 0 else []
    share.wait()
    return merged


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
    protocol: Protocol | None = None,
    share: Share | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """
    Run every variant, write `predictions.jsonl`, `predictions.<variant>.jsonl` and `metrics.json` to `output_dir`.

    Returns:
        `(dict, list[dict])`: Metrics, and the predictions of the first variant; on processes but the first, neither.
    """
    start = time.time()
    protocol, share = protocol or Protocol(), share or Share()
    output_dir.mkdir(parents=True, exist_ok=True)
    results = {}
    for variant in variants:
        file = output_dir / ("predictions.jsonl" if variant == "full" else f"predictions.{variant}.jsonl")
        rows = examples if variant == variants[0] else examples[:ablated_rows]
        results[variant] = predict(
            model,
            embedder,
            encoder,
            rows,
            prompt_style,
            variant,
            file,
            batch_size,
            max_new_tokens,
            bare,
            protocol,
            share,
        )
    if share.index:
        return {}, []
    metrics = {
        **summarise(results[variants[0]], combined, protocol),
        "variants": {v: summarise(results[v], combined, protocol) for v in variants[1:]},
        "metric": protocol.metric,
        "protocol_version": protocol.version,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": time.time() - start,
    }
    if protocol.judge is not None:
        metrics["perception"] |= judged(results[variants[0]], protocol.judge, PROMPT_STYLES[prompt_style].schema)
    (output_dir / "metrics.json").write_text(json.dumps(metrics, indent=1))
    return metrics, results[variants[0]]
