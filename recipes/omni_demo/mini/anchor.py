# SPDX-License-Identifier: Apache-2.0
"""
Both towers anchored to the language model's own words: what a tower makes of a face, or of a voice, is drawn to the
embedding of the word for it, and the sounds in their order to the words that are said. The language model itself does not
run, so that a minute of this does what ten minutes of training through it do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import Trainer, TrainingArguments

from omni_demo.targets import FACES, VOICES
from omni_grpo.config import check_checkpoints
from omni_grpo.data.encoding.encoder import PromptEncoder
from omni_grpo.data.encoding.inputs import EncodedPrompt
from omni_grpo.data.encoding.lookahead import EncodesAhead
from omni_grpo.data.rows.schema import Example
from omni_grpo.families import base_of, family_of, tokenizer_of
from omni_grpo.run.checkpoints import CompleteCheckpoints
from omni_grpo.run.finite import FiniteSteps

SIDES = {"face": (FACES, ("image", "video")), "voice": (VOICES, ("audio",))}  # labels, and what shows them
NEW_LAYERS = ("model.audio_tower.proj.", "model.visual.merger.mlp.2.")  # drawn at random by `assemble`
BLANK = 0  # of the vocabulary of speech
SCALE = 15.0  # of a cosine, where it stands for a logit
IGNORED = -100


@dataclass
class AnchorConfig(TrainingArguments):
    """
    [`~transformers.TrainingArguments`], whose `learning_rate` is that of the layers between towers and language model.

    Args:
        tower_learning_rate (`float`, defaults to `2e-4`): Of the towers themselves.
        prompt_cache_mb (`int`, defaults to `512`): Encoded prompts kept in memory, least recently used go first.
    """

    tower_learning_rate: float = 2e-4
    prompt_cache_mb: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        self.remove_unused_columns = False
        check_checkpoints(self)


def clips_of(examples: Iterable[Example]) -> list[Example]:
    """One row for each clip of base or perception, whichever of its questions comes first."""
    first: dict[Any, Example] = {}
    for example in examples:
        first.setdefault(example.media, example)
    return list(first.values())


def shown_of(example: Example) -> dict[str, str]:
    """What a clip shows: `face`, `voice` and `phrase`, of which a side that is not there is empty."""
    heard = example.meta["mix"] != "video"
    return {
        "face": example.meta["face"] or "",
        "voice": (example.meta["voice"] if heard else None) or "",
        "phrase": (example.meta["phrase"] if heard else None) or "",
    }


@dataclass
class AnchorCollator:
    """Clips to a batch: encoded `rows`, `face` and `voice` as words, `labels` the tokens of what is said, padded with -100."""

    encoder: PromptEncoder

    def __call__(self, clips: Sequence[dict[str, Any]]) -> dict[str, Any]:
        tokenizer = tokenizer_of(self.encoder.processor)
        said = [torch.tensor(_tokens(tokenizer, clip["phrase"]), dtype=torch.long) for clip in clips]
        return {
            "rows": [self.encoder(clip["prompt"], str(clip["id"])) for clip in clips],
            "labels": torch.nn.utils.rnn.pad_sequence(said, batch_first=True, padding_value=IGNORED),
            **{side: [clip[side] for clip in clips] for side in SIDES},
        }


def _tokens(tokenizer: Any, text: str) -> list[int]:
    """As they stand within a sentence, behind a space."""
    return tokenizer(f" {text}")["input_ids"] if text else []


class Anchor(Trainer):
    """The loss and its optimiser; [`AnchorTrainer`] is the whole."""

    args: Any
    model: Any
    speech: torch.Tensor  # token ids that are ever said, behind one that stands for silence

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """
        Mean over the batch of: cross-entropy of each clip's mean token over the six words of its side; CTC of its sounds
        over the words that are said; a tenth of the squared relative distance of tokens' norms from those of words.
        """
        rows: Any = inputs["rows"]
        with self.accelerator.autocast():
            seen = {side: self._encoded(rows, modalities) for side, (_, modalities) in SIDES.items()}
        words = self.model.get_input_embeddings().weight
        norm = words.norm(dim=1).mean()
        loss = words.new_zeros(())
        for side, tokens in seen.items():
            labels, shown = SIDES[side][0], [i for i, word in enumerate(inputs[side]) if word]
            if shown:
                target = torch.tensor([labels.index(inputs[side][i]) for i in shown], device=words.device)
                loss = loss + functional.cross_entropy(self._nearness(side, [tokens[i] for i in shown]), target)
                loss = loss + 0.1 * (torch.cat([tokens[i] for i in shown]).norm(dim=1) / norm - 1).square().mean()
        if spoken := [i for i, shown in enumerate(inputs["voice"]) if shown]:
            loss = loss + self._speech_loss([seen["voice"][i] for i in spoken], inputs["labels"][spoken], words)
        return (loss, seen) if return_outputs else loss

    def _encoded(self, rows: Sequence[EncodedPrompt], modalities: Sequence[str]) -> list[torch.Tensor]:
        """Each row's tokens `(placeholders, width)` of some modalities, float32; the towers run once for all rows."""
        family, base = family_of(self.model), base_of(self.model)
        found: list[list[torch.Tensor]] = [[] for _ in rows]
        for modality in modalities:
            items = [(i, item) for i, row in enumerate(rows) for item in family.split(row.media, modality)]
            if items:
                lengths = [n for row in rows for n in row.lengths.get(modality, ())]
                joined = family.join([item for _, item in items], self.args.device)
                parts = family.encode(base, modality, joined).float().split(lengths)
                for (i, _), part in zip(items, parts, strict=True):
                    found[i].append(part)
        return [torch.cat(parts) if parts else torch.empty(0) for parts in found]

    def _nearness(self, side: str, tokens: Sequence[torch.Tensor]) -> torch.Tensor:
        """`(clips, labels)`: how near the mean token of each clip is to the words of its side."""
        tokenizer = tokenizer_of(self.processing_class)
        words = self.model.get_input_embeddings().weight
        labels = torch.stack([words[_tokens(tokenizer, label)].mean(0) for label in SIDES[side][0]])
        mean = torch.stack([part.mean(0) for part in tokens])
        return SCALE * functional.normalize(mean, dim=1) @ functional.normalize(labels, dim=1).T

    def _speech_loss(self, tokens: Sequence[torch.Tensor], said: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        vocabulary = functional.normalize(words[self.speech], dim=1)
        heard = torch.nn.utils.rnn.pad_sequence(list(tokens), batch_first=True)
        scores = (SCALE * functional.normalize(heard, dim=-1) @ vocabulary.T).log_softmax(-1)
        place = {int(token): i for i, token in enumerate(self.speech)}
        spoken = [[place[int(token)] for token in row[row != IGNORED]] for row in said]
        flat = torch.tensor([i for row in spoken for i in row])
        lengths = torch.tensor([len(part) for part in tokens]), torch.tensor([len(row) for row in spoken])
        return functional.ctc_loss(scores.transpose(0, 1), flat, *lengths, blank=BLANK, zero_infinity=True)

    def create_optimizer(self, *args, **kwargs):
        """Two groups: the new layers, and the towers behind them; nothing else learns."""
        if self.optimizer is None:
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            rate = settings.pop("lr")
            learns = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
            new = [p for n, p in learns.items() if n.startswith(NEW_LAYERS)]
            old = [p for n, p in learns.items() if not n.startswith(NEW_LAYERS)]
            groups = [{"params": new, "lr": rate}, {"params": old, "lr": self.args.tower_learning_rate}]
            self.optimizer = kind(groups, **settings)
        return self.optimizer

    @torch.no_grad()
    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """The share of clips whose word, of the six of a side, is the nearest: `eval_face`, `eval_voice`."""
        rows: Any = eval_dataset if eval_dataset is not None else self.eval_dataset
        size, right = self.args.per_device_eval_batch_size, {side: [0, 0] for side in SIDES}
        self.model.eval()
        for start in range(0, len(rows), size):
            batch = self.data_collator(list(rows.select(range(start, min(start + size, len(rows))))))
            for side, (labels, modalities) in SIDES.items():
                tokens = [
                    (t, w) for t, w in zip(self._encoded(batch["rows"], modalities), batch[side], strict=True) if w
                ]
                nearest = self._nearness(side, [t for t, _ in tokens]).argmax(1).tolist() if tokens else []
                right[side][0] += sum(labels[i] == word for i, (_, word) in zip(nearest, tokens, strict=True))
                right[side][1] += len(tokens)
        self.model.train()
        metrics = {f"{metric_key_prefix}_{side}": hits / max(count, 1) for side, (hits, count) in right.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class AnchorTrainer(FiniteSteps, CompleteCheckpoints, EncodesAhead, Anchor):
    """
    Trains both towers of a model of [`~omni_demo.mini.assemble`] against its word embeddings, which stay as they are.

    Args:
        model (`PreTrainedModel`): With both towers.
        args ([`AnchorConfig`]): Configuration.
        train_dataset (`Dataset`): `prompt`, `id`, and [`shown_of`] each clip.
        encoder ([`PromptEncoder`]): The run's.
        **kwargs: Passed to [`~transformers.Trainer`].
    """

    def __init__(
        self, model: Any, args: AnchorConfig, train_dataset: Any, encoder: PromptEncoder, **kwargs: Any
    ) -> None:
        family, base = family_of(model), base_of(model)
        towers = {id(p) for m in ("audio", "image") for module in family.tower(base, m) for p in module.parameters()}
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in towers and parameter.requires_grad)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            data_collator=AnchorCollator(encoder),
            processing_class=encoder.processor,
            **kwargs,
        )
        tokenizer = tokenizer_of(encoder.processor)
        said = {token for phrase in train_dataset["phrase"] for token in _tokens(tokenizer, phrase)}
        self.speech = torch.tensor([tokenizer.pad_token_id, *sorted(said)])
        self.encode_ahead(encoder, args.gradient_accumulation_steps)
        self.begin_watch()

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Tell which rows a step is made of."""
        self.note_rows([row.name for row in inputs["rows"]])
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
