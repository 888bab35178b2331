# SPDX-License-Identifier: Apache-2.0
"""Answer a test file with a model, under each media variant, and score it; resumable to the batch."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from omni_grpo.encoding import PromptEncoder, encode_prompt
from omni_grpo.generation import Completion, generate
from omni_grpo.prompts import PROMPT_STYLES, Messages, build_messages
from omni_grpo.schema import Example
from omni_grpo.statistics import accuracy_interval, mcnemar, paired_bootstrap
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
                rows.append(
                    encode_prompt(
                        encoder.processor,
                        vary(messages, variant),
                        encoder.settings,
                        example.id,
                        encoder.max_prompt_length,
                        blank=VARIANTS[variant][1],
                    )
                )
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


def group_of(prediction: Mapping[str, Any]) -> str:
    """A prediction's group in tables: `meta.kind`, else its problem type."""
    return str(prediction["meta"].get("kind", prediction["problem_type"]))


def _groups(predictions: Sequence[Mapping[str, Any]], combined: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    kinds = list(dict.fromkeys(group_of(p) for p in predictions))
    for kind in kinds:
        yield kind, [p for p in predictions if group_of(p) == kind]
    for name in combined:
        parts = name.split("+")
        if set(parts) <= set(kinds):
            yield name, [p for p in predictions if group_of(p) in parts]
    yield "all", list(predictions)


def _chance(predictions: Sequence[Mapping[str, Any]]) -> float:
    """Accuracy of drawing among the gold answers of each kind, the share that guessing earns."""
    kinds: dict[str, set[str]] = {}
    for p in predictions:
        kinds.setdefault(group_of(p), set()).add(p["solution"])
    return float(np.mean([1 / len(kinds[group_of(p)]) for p in predictions]))


def summarise(predictions: Sequence[Mapping[str, Any]], combined: Sequence[str] = ()) -> dict[str, Any]:
    """
    Accuracy with 95 % interval and chance level by group, and the share of well-formed completions.

    Args:
        predictions (sequence of `dict`): From [`predict`].
        combined (sequence of `str`): Further groups such as `"intent+agreement"`.
    """
    groups = {}
    for name, rows in _groups(predictions, combined):
        scores = [r["answer_score"] for r in rows]
        groups[name] = {
            "n": len(rows),
            "accuracy": float(np.mean(scores)),
            "ci95": list(accuracy_interval(scores)),
            "chance": _chance(rows),
        }
    valid = [float(p["format_ok"]) for p in predictions]
    return {
        "n": len(predictions),
        "groups": groups,
        "format_rate": float(np.mean(valid)),
        "format_ci95": list(accuracy_interval(valid)),
        "mean_tokens": float(np.mean([p["num_tokens"] for p in predictions])),
    }


def compare(
    a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]], names: tuple[str, str], group: str
) -> dict[str, Any]:
    """
    Accuracy of `a` minus accuracy of `b` on the same rows of `group`, with a paired 95 % interval and McNemar's p.

    Raises:
        `ValueError`: The two do not hold the same rows in the same order.
    """
    parts = group.split("+")
    rows_a, rows_b = ([p for p in side if group == "all" or group_of(p) in parts] for side in (a, b))
    if [p["id"] for p in rows_a] != [p["id"] for p in rows_b]:
        raise ValueError(f"{names[0]} and {names[1]} answered different rows; evaluate both on one file")
    scores_a, scores_b = ([p["answer_score"] for p in rows] for rows in (rows_a, rows_b))
    paired = paired_bootstrap(scores_a, scores_b)
    return {
        "a": names[0],
        "b": names[1],
        "group": group,
        "n": paired.n,
        "difference": paired.difference,
        "ci95": list(paired.ci95),
        "p_mcnemar": mcnemar([s >= 1 for s in scores_a], [s >= 1 for s in scores_b]),
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


def table(summary: Mapping[str, Any]) -> str:
    """The combined metrics as aligned text: one line a model and group, then ablations and comparisons."""

    def cell(group: Mapping[str, Any]) -> str:
        low, high = group["ci95"]
        return f"{100 * group['accuracy']:5.1f} [{100 * low:.1f}, {100 * high:.1f}]"

    lines = [f"{'model':10} {'variant':9} {'group':18} {'accuracy % [95 %]':24} {'chance':>6} {'n':>5}"]
    for name, metrics in summary["stages"].items():
        for variant, part in {"full": metrics, **metrics["variants"]}.items():
            for group, figures in part["groups"].items():
                chance = f"{100 * figures['chance']:6.1f}"
                lines.append(f"{name:10} {variant:9} {group:18} {cell(figures):24} {chance} {figures['n']:5}")
            low, high = part["format_ci95"]
            valid = f"{100 * part['format_rate']:5.1f} [{100 * low:.1f}, {100 * high:.1f}]"
            lines.append(f"{name:10} {variant:9} {'valid format':18} {valid:24} {'':6} {part['n']:5}")
    for c in summary["comparisons"]:
        low, high = c["ci95"]
        lines.append(
            f"{c['a']} − {c['b']} on {c['group']}: {100 * c['difference']:+.1f} points [{100 * low:+.1f}, "
            f"{100 * high:+.1f}], McNemar p = {c['p_mcnemar']:.2g}, n = {c['n']}"
        )
    return "\n".join(lines)
