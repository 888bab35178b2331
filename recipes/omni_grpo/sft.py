# SPDX-License-Identifier: Apache-2.0
"""Cold start: TRL's SFTTrainer with prompts made exactly as RL makes them, and loss on the completion alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from datasets import Dataset
from trl import SFTTrainer
from trl.models.utils import unwrap_model_for_generation

from omni_grpo.build import ready_model
from omni_grpo.config import OmniSFTConfig
from omni_grpo.data.dataset import modalities_of, refuse_lacking, with_files
from omni_grpo.data.encoding.checks import target_ids
from omni_grpo.data.encoding.encoder import PromptEncoder
from omni_grpo.data.encoding.inputs import collate_media
from omni_grpo.data.encoding.lookahead import EncodesAhead
from omni_grpo.families import tokenizer_of
from omni_grpo.model.loading import written_out
from omni_grpo.model.towers import MediaEmbedder, attach_media_embedder
from omni_grpo.rollout.answers import generate
from omni_grpo.run.checkpoints import CompleteCheckpoints
from omni_grpo.run.finite import FiniteSteps
from omni_rewards import CONTEXT_THINK_ANSWER, AnswerReward, SectionFormatReward, SectionSchema

IGNORED = -100


@dataclass
class OmniCollator:
    """
    Rows with `prompt` and `target` to a batch: `input_ids`, `attention_mask`, `labels` (all `(B, T)`, padded on the
    right) and the media of all rows.

    Labels are the target's tokens and the end-of-turn token; prompt and padding are `-100`. The prompt's ids, the
    assistant header among them, are those that RL and evaluation generate from.

    Args:
        encoder ([`PromptEncoder`]): Encodes prompts.
        max_length (`int`, *optional*): Longest prompt and target together, in tokens; a longer row raises.
    """

    encoder: PromptEncoder
    max_length: int | None = None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        tokenizer = tokenizer_of(self.encoder.processor)
        prompts = [self.encoder(row["prompt"], str(row["id"])) for row in rows]
        ids, labels = [], []
        for row, prompt in zip(rows, prompts, strict=True):
            target = target_ids(tokenizer, row["target"], str(row["id"]), self.encoder.escape)
            target.append(tokenizer.eos_token_id)
            if self.max_length is not None and len(prompt.input_ids) + len(target) > self.max_length:
                raise ValueError(
                    f"row {row['id']!r}: prompt ({len(prompt.input_ids)}) and target ({len(target)}) have more tokens "
                    f"than `max_length` ({self.max_length}); raise it, or shorten the row. Nothing is cut silently"
                )
            ids.append(torch.tensor(prompt.input_ids + target))
            labels.append(torch.tensor([IGNORED] * len(prompt.input_ids) + target))
        pad = torch.nn.utils.rnn.pad_sequence
        return {
            "input_ids": pad(ids, batch_first=True, padding_value=tokenizer.pad_token_id),
            "attention_mask": pad([torch.ones_like(i) for i in ids], batch_first=True),
            "labels": pad(labels, batch_first=True, padding_value=IGNORED),
            **collate_media(prompts),
            "rows": [replace(prompt, input_ids=[], media={}) for prompt in prompts],
        }


def with_lengths(dataset: Any, encoder: PromptEncoder, column: str) -> Any:
    """
    A data set with the tokens of each row's prompt and target, by which `train_sampling_strategy` brings rows of like
    length together; a stream, and a data set that has the column, stay as they are. Every prompt is encoded for it.
    """
    if not isinstance(dataset, Dataset) or column in dataset.column_names:
        return dataset
    tokenizer = tokenizer_of(encoder.processor)
    rows: Any = dataset  # upstream's type of a row is a list's, too
    targets = (target_ids(tokenizer, row["target"], str(row["id"]), encoder.escape) for row in rows)
    prompts = (encoder(row["prompt"], str(row["id"])).input_ids for row in rows)
    return dataset.add_column(column, [len(p) + len(t) + 1 for p, t in zip(prompts, targets, strict=True)])


class OmniSFTTrainer(FiniteSteps, CompleteCheckpoints, EncodesAhead, SFTTrainer):
    """
    [`~trl.SFTTrainer`] for rows with images, videos and sounds. `compute_loss` is wrapped to hold every pass to the
    media of its rows, and `evaluate` can go by generated answers; the rest is TRL's, its `train_sampling_strategy`
    among it: `group_by_length` deals rows of like length to one batch, `batch_rebalance` within an optimiser step.

    Args:
        model (`str` or `PreTrainedModel`): A model of a supported family, or the name or directory of a checkpoint.
        args ([`OmniSFTConfig`]): Configuration.
        train_dataset (`Dataset`): With `id`, `prompt`, `target`, from [`~omni_grpo.data.dataset.to_dataset`]; or of a form of TRL's.
        eval_dataset (`Dataset`, *optional*): The same.
        processing_class (`ProcessorMixin`, *optional*): Defaults to the checkpoint's processor.
        encoder ([`PromptEncoder`], *optional*): The run's encoder, with its media settings and its limit on length.
        section_schema ([`SectionSchema`], *optional*): The prompt style's, by which generated answers are validated.
        **kwargs: Passed to [`~trl.SFTTrainer`].
    """

    _tag_names: ClassVar = ["trl", "sft", "omni-grpo"]
    args: Any  # TRL and transformers annotate these as unions over every backend
    data_collator: Any

    def __init__(
        self,
        model: Any,
        args: OmniSFTConfig,
        train_dataset: Any,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        encoder: PromptEncoder | None = None,
        section_schema: SectionSchema = CONTEXT_THINK_ANSWER,
        **kwargs: Any,
    ) -> None:
        if hasattr(train_dataset, "__len__"):
            args.check_rows(len(train_dataset))
        quantization = kwargs.pop("quantization_config", None)
        model, processing_class, encoder = ready_model(model, args, processing_class, encoder, quantization)
        kwargs["peft_config"] = written_out(kwargs.get("peft_config"), model)
        given: dict[str, Any] = dict(args.dataset_kwargs or {})  # type: ignore[arg-type]
        args.dataset_kwargs = {**given, "skip_prepare_dataset": True}
        args.remove_unused_columns = False
        train_dataset, eval_dataset = with_files(train_dataset, targets=True), with_files(eval_dataset, targets=True)
        refuse_lacking(model, train_dataset, eval_dataset)
        if args.train_sampling_strategy in ("group_by_length", "batch_rebalance"):
            train_dataset = with_lengths(train_dataset, encoder, args.length_column_name)
            eval_dataset = with_lengths(eval_dataset, encoder, args.length_column_name)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            data_collator=OmniCollator(encoder, args.max_length),
            **kwargs,
        )
        everywhere = modalities_of(train_dataset, eval_dataset) if self.accelerator.num_processes > 1 else ()
        self.media_embedder: MediaEmbedder = attach_media_embedder(self.model, everywhere)
        self.schema = section_schema
        self.encode_ahead(encoder, self.args.gradient_accumulation_steps)
        self.begin_watch()

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Hold the pass to the media of its rows."""
        inputs = dict(inputs)
        rows = inputs.pop("rows")
        self.note_rows([row.name for row in rows])
        with self.media_embedder.expecting(rows):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """With `validate_answers`: greedy answers to the validation rows, scored as RL and `eval_omni.py` score them."""
        if not self.args.validate_answers:
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        rows: Any = eval_dataset if eval_dataset is not None else self.eval_dataset
        texts = self._answer(rows)
        columns: dict[str, Any] = {name: rows[name] for name in ("solution", "problem_type", "options")}
        scores = [score or 0.0 for score in AnswerReward(schema=self.schema)(texts, **columns)]
        valid = SectionFormatReward(self.schema)(texts)
        metrics = {
            f"{metric_key_prefix}_answer_accuracy": sum(scores) / len(scores),
            f"{metric_key_prefix}_format_rate": sum(valid) / len(valid),
        }
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _answer(self, rows: Any) -> list[str]:
        """Greedy completions; every rank answers every row, since under ZeRO-3 they generate together."""
        encoder, size = self.data_collator.encoder, self.args.per_device_eval_batch_size
        texts: list[str] = []
        with unwrap_model_for_generation(self.model_wrapped, self.accelerator) as unwrapped:
            model: Any = unwrapped
            model.eval()
            for start in range(0, len(rows), size):
                batch = rows.select(range(start, min(start + size, len(rows))))
                prompts = [encoder(row["prompt"], row["id"]) for row in batch]
                done = generate(
                    model, encoder.processor, self.media_embedder, prompts, self.args.validation_max_new_tokens
                )
                texts.extend(completion.text for completion in done)
            model.train()
        return texts
