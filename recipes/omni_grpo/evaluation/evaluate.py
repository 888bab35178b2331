# SPDX-License-Identifier: Apache-2.0
"""Answer a test file with a model, under each media variant, and score it; resumable to the row, on any processes."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from tqdm.auto import tqdm

from omni_grpo.data.encoding.encoder import PromptEncoder
from omni_grpo.data.encoding.lookahead import LookAhead
from omni_grpo.data.rows.prompts import PROMPT_STYLES, Messages, build_messages
from omni_grpo.data.rows.schema import Example
from omni_grpo.evaluation.donors import Plan, plan_variant
from omni_grpo.evaluation.perception_judge import judged
from omni_grpo.evaluation.prediction_files import append, finished, merge, part_file
from omni_grpo.evaluation.prediction_rows import prediction_row
from omni_grpo.evaluation.protocol import Protocol
from omni_grpo.evaluation.records import FULL, Metrics, Prediction
from omni_grpo.evaluation.scoring import summarise
from omni_grpo.evaluation.shortcut import summarise_shortcuts
from omni_grpo.evaluation.sufficiency import read_contexts, sufficiency
from omni_grpo.evaluation.variants import VARIANTS, alters, vary
from omni_grpo.model.towers import MediaEmbedder
from omni_grpo.rollout.answers import Completion, decoding_settings, generate
from omni_grpo.rollout.sampler import Sampler

logger = logging.getLogger(__name__)


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


def batches_left(file: Path, ids: Sequence[str], size: int, share: Share) -> tuple[Path, dict[str, Any], list[range]]:
    """
    Where a process writes, the records that are there, by id, and its batches that are left, as places in `ids`.

    Batches are the same however often the run is cut and on however many processes it goes on: a batch of which some
    rows are written is completed whole again, and its other rows are added.

    Args:
        file (`Path`): Where the records of all processes go in the end, one a line; each has the `id` of its row.
        ids (sequence of `str`): Of all rows, in their order.
        size (`int`): Rows completed together.
        share ([`Share`]): This process's part.

    Raises:
        `ValueError`: `file` holds other rows.
    """
    own = part_file(file, share.index, share.count)
    done, places = finished(file, own, ids), range(len(ids))
    batches = [places[i : i + size] for i in places[::size]][share.index :: share.count]
    return own, done, [batch for batch in batches if any(ids[i] not in done for i in batch)]


def put_together(file: Path, ids: Sequence[str], share: Share) -> list[Any]:
    """Wait for all processes; `file` is whole then. Its records in the order of `ids`; on processes but the first, none."""
    share.wait()
    merged = merge(file, ids) if share.index == 0 else []
    share.wait()
    return merged


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
    plan: Plan | None = None,
    engine: Sampler | None = None,
) -> list[Prediction]:
    """
    Complete every example, greedily unless `protocol` says otherwise, and write one prediction a line.

    A run that was cut goes on as [`batches_left`] says. `bare` is for models that were never taught sections: where there
    is no `<answer>`, the whole completion is the answer. For any other model a missing `<answer>` is a miss.

    `plan` says which of the rows are asked, and with whose media; it is made of all `examples` if it is not given, see
    [`~omni_grpo.evaluation.donors.plan_variant`]. Rows of a variant have `altered`, whether it changed anything in
    their prompt, and `donor`, the id of the row whose media were shown.

    Returns:
        `list[dict]`: The predictions of this variant, in the order of `examples`; on processes but the first, none.

    Raises:
        `ValueError`: `output_file` holds rows of another test file, or the variant can ask no row.
    """
    protocol, share = protocol or Protocol(), share or Share()
    interleaved = encoder.settings.load_audio_from_video
    plan = plan or plan_variant(examples, prompt_style, interleaved, variant)
    examples, donors = plan.examples, plan.donors
    schema = PROMPT_STYLES[prompt_style].schema

    own_prompts: dict[str, Messages] = {}

    def built(example: Example) -> Messages:
        if example.id not in own_prompts:
            own_prompts[example.id] = build_messages(example, prompt_style, interleaved)
        return own_prompts[example.id]

    def prompt(example: Example) -> tuple[Messages, str]:
        donor = built(donors[example.id]) if example.id in donors else None
        return vary(built(example), variant, example.id, donor), example.id

    def answered(example: Example, completion: Completion) -> Prediction:
        row = prediction_row(example, completion, schema, variant, bare, protocol.answers)
        if variant != FULL:
            row["altered"] = alters(built(example), variant)
            row["donor"] = donors[example.id].id if example.id in donors else None
        return row

    blank, ids = VARIANTS[variant].blanked, [example.id for example in examples]
    own, done, left = batches_left(output_file, ids, batch_size, share)
    asked = ([prompt(examples[i]) for i in batch] for batch in left)
    coming = LookAhead(asked, lambda prompts: encoder.expect(prompts, blank))
    title = f"{output_file.parent.name} · {variant}"
    rarely = 0.1 if sys.stderr.isatty() else 30  # seconds between two lines in a file
    shown = tqdm(left, title, leave=False, unit="batch", delay=5, disable=share.index > 0, mininterval=rarely)
    for batch, prompts in zip(shown, coming, strict=True):
        rows = [encoder(messages, name, blank) for messages, name in prompts]
        completions = generate(model, encoder.processor, embedder, rows, max_new_tokens, engine, **protocol.decoding)
        answers = zip(batch, completions, strict=True)
        append(own, [answered(examples[i], completion) for i, completion in answers if ids[i] not in done])
    return put_together(output_file, ids, share)


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
    engine: Sampler | None = None,
) -> tuple[Metrics, list[Prediction]]:
    """
    Run every variant, write `predictions.jsonl`, `predictions.<variant>.jsonl` and `metrics.json` to `output_dir`;
    answered by `engine`, or by the model's own `generate`.

    Returns:
        `(dict, list[dict])`: Metrics, and the predictions of the first variant; on processes but the first, neither.
    """
    start = time.time()
    protocol, share = protocol or Protocol(), share or Share()
    output_dir.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[Prediction]] = {}
    plans: dict[str, Plan] = {}
    files = {v: output_dir / ("predictions.jsonl" if v == FULL else f"predictions.{v}.jsonl") for v in variants}
    parts, settings = (model, embedder, encoder), (batch_size, max_new_tokens, bare, protocol, share)
    for variant in variants:  # what cannot be asked is known before anything is
        rows = examples if variant == variants[0] else examples[:ablated_rows]
        plans[variant] = plan_variant(rows, prompt_style, encoder.settings.load_audio_from_video, variant)
        for reason, ids in plans[variant].left_out.items() if share.index == 0 else ():
            logger.warning("%s: %d rows are left out, for each %s: %s", variant, len(ids), reason, ", ".join(ids[:20]))
    for variant in variants:
        plan = plans[variant]
        results[variant] = predict(
            *parts, plan.examples, prompt_style, variant, files[variant], *settings, plan, engine
        )
    readings, asks = None, protocol.reader == "policy" or (protocol.reader is not None and not share.index)
    if asks and not bare and "context" in PROMPT_STYLES[prompt_style].schema.names:

        def unseen(asked: Sequence[Example], file: Path) -> list[Prediction]:
            lenient = encoder.lenient(None)
            return predict(model, embedder, lenient, asked, prompt_style, FULL, file, *settings, engine=engine)

        asked = plans[variants[0]].examples
        rows = finished(files[variants[0]], files[variants[0]], [e.id for e in asked])  # on every process
        readings = read_contexts(rows, asked, protocol, output_dir / "readings.jsonl", unseen)
    if share.index:
        return cast(Metrics, {}), []
    others = {v: summarise(results[v], combined, protocol) for v in variants[1:]}
    for variant, figures in others.items():
        figures["left_out"] = plans[variant].left_out
    metrics: Metrics = {
        **summarise(results[variants[0]], combined, protocol),
        "variants": others,
        "shortcuts": summarise_shortcuts(results, combined, protocol),
        "metric": protocol.metric,
        "protocol_version": protocol.version,
        "prompt_style": prompt_style,
        "media": asdict(encoder.settings),
        "decoding": decoding_settings(max_new_tokens, **protocol.decoding),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": time.time() - start,
    }
    if readings is not None:
        metrics["sufficiency"] = sufficiency(results[variants[0]], readings, protocol, combined)
    if protocol.judge is not None:
        metrics["perception"] |= judged(results[variants[0]], protocol.judge, PROMPT_STYLES[prompt_style].schema)
    (output_dir / "metrics.json").write_text(json.dumps(metrics, indent=1))
    return metrics, results[variants[0]]
