# SPDX-License-Identifier: Apache-2.0
"""Prompts to completions. The trainer, evaluation, `ask_omni.py` and SFT's validation all sample here."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from peft import PeftModel
from torch.distributed.fsdp import FSDPModule
from trl.trainer.utils import pad

from omni_grpo.data.encoding.inputs import EncodedPrompt
from omni_grpo.data.media.settings import MediaError
from omni_grpo.families import base_of
from omni_grpo.model.loading import token_ids_alone
from omni_grpo.model.towers import MediaEmbedder
from omni_grpo.rollout.constrained.decoding import SectionLogitsProcessor
from omni_grpo.rollout.constrained.section_constraint import SectionConstraint
from omni_grpo.rollout.prefill import distinct_prompts, is_token_by_token, last_position_alone, obstacle, prefill
from omni_grpo.rollout.recording import is_drawn, recording

logger = logging.getLogger(__name__)


class Sampled(NamedTuple):
    """
    Completions of a batch of prompts, one a prompt.

    Args:
        completion_ids (`list[list[int]]`): Their tokens, the end token among them where there is one.
        logprobs (`list[list[float]]`, *optional*):
            Of these tokens, in the distribution that they were drawn from, where the sampler knows them.
        prompt_ids (`list[list[int]]`, *optional*): The prompts that the model was shown, placeholders expanded, where it says.
        chosen (`list[list[int]]`, *optional*): Under a constraint: 0 at tokens that alone were allowed, else 1.
    """

    completion_ids: list[list[int]]
    logprobs: list[list[float]] | None = None
    chosen: list[list[int]] | None = None
    prompt_ids: list[list[int]] | None = None


class Sampler(Protocol):
    """What samples; `asked` are keyword arguments of `generate`."""

    def __call__(self, model: Any, prompts: Sequence[EncodedPrompt], **asked: Any) -> Sampled: ...


class GenerateSampler:
    """
    Samples by the model's own `generate`, each distinct prompt computed once.

    Where that cannot be done (beams, a cache that cannot be repeated, dropout that is on), `generate` is called with
    every prompt, and the log says why. With several processes all go one way, also those with no prompt twice: under
    ZeRO-3 they run each forward together.

    Args:
        media ([`MediaEmbedder`]): The model's own; each pass is held to the media of its prompts.
        pad_token_id (`int`): What fills prompts on the left.
        end_token_ids (collection of `int`): Tokens that end a completion.
        forbidden (collection of `int`): Tokens that are never sampled, media's own among them.
        share (`bool`, defaults to `True`): Whether equal prompts are computed once.
        constraint ([`SectionConstraint`], *optional*): What completions are held to.
        pad_to_multiple_of (`int`, *optional*): Width of the padded prompts.
        logprobs (`bool`, defaults to `False`): Whether log-probabilities are wanted; beams and greedy search have none.

    Raises:
        `MediaError`: The passes did not see exactly the media of the prompts; their rows are named.
    """

    def __init__(
        self,
        media: MediaEmbedder,
        pad_token_id: int,
        end_token_ids: Collection[int],
        forbidden: Collection[int] = (),
        *,
        share: bool = True,
        constraint: SectionConstraint | None = None,
        pad_to_multiple_of: int | None = None,
        logprobs: bool = False,
    ) -> None:
        self.media, self.constraint, self.share, self.logprobs = media, constraint, share, logprobs
        self.end_token_ids, self.forbidden = frozenset(end_token_ids), sorted(forbidden)
        self._pad = functools.partial(pad, padding_side="left", pad_to_multiple_of=pad_to_multiple_of)
        self._pad_token_id = pad_token_id

    @torch.no_grad()
    def __call__(self, model: Any, prompts: Sequence[EncodedPrompt], **asked: Any) -> Sampled:
        ids = [torch.tensor(prompt.input_ids) for prompt in prompts]
        inputs = {
            "input_ids": self._pad(ids, padding_value=self._pad_token_id).to(model.device),
            "attention_mask": self._pad([torch.ones_like(i) for i in ids], padding_value=0).to(model.device),
        }
        asked = {"eos_token_id": sorted(self.end_token_ids), "pad_token_id": self._pad_token_id, **asked}
        if self.forbidden:
            asked["suppress_tokens"] = self.forbidden
        if (config := asked.pop("generation_config", None)) is not None:  # `generate` takes no setting beside it
            config = copy.copy(config)
            asked = {**config.update(**asked), "generation_config": config}
        # Of sharded models `generate` knows only those that transformers has sharded.
        asked |= {"synced_gpus": True} if isinstance(model, FSDPModule) else {}
        if self.constraint is not None:
            asked["logits_processor"] = [SectionLogitsProcessor(self.constraint)]
        inputs |= self.media.family.types(base_of(model), inputs["input_ids"])
        before = self.media.placed.copy()
        noted = recording(model) if self.logprobs and is_drawn(asked) else nullcontext()
        with explicit_decoding(model), noted as recorder:
            output = self._generate(model, prompts, inputs, asked)
        for modality in self.media.family.modalities:
            seen, wanted = self.media.placed[modality] - before[modality], sum(p.counts[modality] for p in prompts)
            if seen != wanted:
                names = [prompt.name for prompt in prompts if prompt.counts[modality]]
                raise MediaError(f"sampling saw {seen} of {wanted} {modality} features of rows {names[:8]}")
        width = inputs["input_ids"].size(1)
        completions = [self._until_end(row) for row in output[:, width:].tolist()]
        chosen = None if self.constraint is None else [self.constraint.choices(ids) for ids in completions]
        noted = recorder and zip(recorder.of(output), completions, strict=True)
        logprobs = noted and [values[: len(ids)] for values, ids in noted]
        masks = inputs["attention_mask"].bool()
        shown = [row[mask].tolist() for row, mask in zip(output[:, :width], masks, strict=True)]
        return Sampled(completions, logprobs, chosen, shown)

    def _generate(
        self, model: Any, prompts: Sequence[EncodedPrompt], inputs: dict[str, torch.Tensor], asked: dict[str, Any]
    ) -> torch.Tensor:
        device = inputs["input_ids"].device
        firsts, index = distinct_prompts(prompts)
        if self.share and (len(firsts) < len(prompts) or several_processes()):
            before = self.media.placed.copy()
            if (reason := obstacle(model, asked)) is None:
                distinct, chosen = [prompts[i] for i in firsts], torch.tensor(firsts, device=device)
                with self.media.expecting(distinct):
                    media = self.media.inputs(distinct, device)
                    prefilled = prefill(model, {k: v[chosen] for k, v in inputs.items()}, media, index)
                if prefilled is not None:
                    self.media.repeat(distinct, index)
                    return model.generate(**inputs, **prefilled, **asked)
                reason = "the model's cache cannot be repeated"
                self.media.placed = before  # what was prefilled in vain is not what is sampled from
            notice(reason)
        expected = self.media.expecting(prompts) if any(p.media for p in prompts) else nullcontext()  # beams add rows
        with expected, last_position_alone(model) if is_token_by_token(asked) else nullcontext():
            return model.generate(**inputs, **self.media.inputs(prompts, device), **asked)

    def _until_end(self, ids: list[int]) -> list[int]:
        """Up to the first end token, which counts; what `generate` fills up with is left out."""
        end = next((i for i, token in enumerate(ids) if token in self.end_token_ids), len(ids) - 1)
        return ids[: end + 1]


@contextmanager
def explicit_decoding(model: Any) -> Iterator[None]:
    """
    Within: `model.generate` decodes by what it is given alone. A checkpoint's `generation_config.json` would fill in
    all that is not given (penalties, `min_p`, beams, …), unseen; here it says which tokens end and pad, and no more. Nor
    is the router's loss made, which a model that was trained with it would reckon over one token.
    """
    model = model.get_base_model() if isinstance(model, PeftModel) else model
    own, config = model.generation_config, model.config.get_text_config()
    model.generation_config, router = token_ids_alone(own), getattr(config, "output_router_logits", None)
    if router:
        config.output_router_logits = False
    try:
        yield
    finally:
        model.generation_config = own
        if router:
            config.output_router_logits = router


def several_processes() -> bool:
    """Whether other processes run the model's passes together with this one."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


@contextmanager
def cpu_threads(number: int | None) -> Iterator[None]:
    """Within: torch computes with so many threads; `None` leaves them. What is sampled may differ by rounding."""
    before = torch.get_num_threads()
    try:
        if number is not None:
            torch.set_num_threads(number)
        yield
    finally:
        torch.set_num_threads(before)


@functools.cache
def notice(reason: str) -> None:
    """Say once that prompts are not shared."""
    logger.warning("share_prompt: sampling computes every prompt as often as it is answered: %s", reason)
