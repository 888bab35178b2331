# SPDX-License-Identifier: Apache-2.0
"""TRL's GRPOTrainer with image, video and audio in every pass."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import torch
from trl import GRPOTrainer
from trl.trainer.utils import get_callable_name

from omni_grpo.checkpoints import CompleteCheckpoints, EpochOrder, GenerationBorders
from omni_grpo.config import OmniGRPOConfig
from omni_grpo.constrained.decoding import ConstrainedDecoding
from omni_grpo.credit.schedules import schedules
from omni_grpo.credit.section_credit import SectionCredit
from omni_grpo.data import media_paths, modalities_of, with_files
from omni_grpo.encoding.encoder import PromptEncoder
from omni_grpo.encoding.inputs import EncodedPrompt, media_control_ids
from omni_grpo.encoding.lookahead import EncodesAhead
from omni_grpo.finite import FiniteSteps
from omni_grpo.generation import cpu_threads, explicit_decoding
from omni_grpo.grounding.rewards import GroundingRewards
from omni_grpo.launch.reward_settings import in_sections
from omni_grpo.media.settings import MediaError, MediaSettings
from omni_grpo.model.loading import copy_weights, load_processor, model_to_train
from omni_grpo.model.towers import MediaEmbedder, attach_media_embedder
from omni_grpo.reward_columns import check_reward_columns
from omni_grpo.rollout_table import RolloutTable
from omni_grpo.rows.prompts import as_parts
from omni_grpo.rows.trl_rows import PICTURES
from omni_grpo.sharing.media import SharedMedia
from omni_grpo.sharing.prompt import SharedPrompt
from omni_rewards import CONTEXT_THINK_ANSWER, SectionSchema, parse_sections


@contextmanager
def _reference_copied_from(policy: Any):
    """TRL rebuilds the reference from the checkpoint's name; let it have a copy of the policy instead."""
    with mock.patch("trl.trainer.grpo_trainer.create_model_from_path", lambda *_, **__: copy_weights(policy)):
        yield


class OmniGRPOTrainer(
    FiniteSteps,
    CompleteCheckpoints,
    RolloutTable,
    SharedPrompt,
    SectionCredit,
    ConstrainedDecoding,
    SharedMedia,
    EncodesAhead,
    GroundingRewards,
    GRPOTrainer,
):
    """
    [`~trl.GRPOTrainer`] for prompts with images, videos and sounds, mixed in one batch with text-only rows.

    TRL's methods are wrapped (stash → `super()` → patch), none is copied. Here `_tokenize_prompts` encodes each prompt
    once, `_generate` proves that sampling saw the media, `_generate_and_score_completions` and `_compute_loss` bring them
    to the loss, `_calculate_rewards` adds sections and media to the completions table, `log` makes prompts readable. The
    mix-ins hold the rest: [`SharedPrompt`] computes a prompt once and gives each scoring pass its media, [`SharedMedia`]
    does so in sampling, [`SectionCredit`] makes the advantages of credit maps, [`ConstrainedDecoding`] enforces sections,
    [`GroundingRewards`] adds context gain and pairs, [`EncodesAhead`] prepares the next batch, [`RolloutTable`] logs what
    the viewer shows, [`CompleteCheckpoints`] makes resuming exact, [`FiniteSteps`] stops at what is not finite.

    Args:
        model (`str` or `PreTrainedModel`): Thinker, or the name or directory of a checkpoint that holds one.
        reward_funcs (`Callable` or `list`): As in TRL.
        args ([`OmniGRPOConfig`]): Configuration.
        train_dataset (`Dataset`):
            From [`~omni_grpo.data.to_dataset`], its `prompt` parts hold media paths; or a stock TRL data set, with pictures
            in its columns `image` or `images` or in its turns, see [`~omni_grpo.data.with_files`].
        eval_dataset (`Dataset`, *optional*): The same.
        processing_class (`ProcessorMixin`, *optional*): Defaults to the checkpoint's processor.
        encoder ([`PromptEncoder`], *optional*): The run's encoder, with its media settings and its limit on length.
        section_schema ([`SectionSchema`], *optional*):
            Sections of a completion; defaults to `args.section_schema`. Where it is given, the rewards of `omni_rewards`
            read these, see [`~omni_grpo.launch.reward_settings.in_sections`].
        **kwargs: Passed to [`~trl.GRPOTrainer`].

    Raises:
        `MediaError`: A pass would not see exactly the media of its prompts; the message names the row.
        `ValueError`: A reward, or `args`, names other sections.
    """

    _tag_names: ClassVar = ["trl", "grpo", "omni-grpo"]

    def __init__(
        self,
        model: Any,
        reward_funcs: Any,
        args: OmniGRPOConfig,
        train_dataset: Any,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        encoder: PromptEncoder | None = None,
        section_schema: SectionSchema | None = None,
        **kwargs: Any,
    ) -> None:
        if hasattr(train_dataset, "__len__"):
            args.check_rows(len(train_dataset))
        args.check_weights(len(reward_funcs) if isinstance(reward_funcs, list) else 1)
        model = model_to_train(model, args, kwargs.pop("quantization_config", None))
        if processing_class is None:
            processing_class = encoder.processor if encoder else load_processor(model.config._name_or_path)
        given: dict[str, Any] = dict(args.generation_kwargs or {})  # type: ignore[arg-type]
        forbidden = {*media_control_ids(processing_class), *given.get("suppress_tokens", ())}
        args.generation_kwargs = {**given, "suppress_tokens": sorted(forbidden)}
        self._encoder = encoder or PromptEncoder(processing_class, MediaSettings())
        self._section_schema = args.schema(section_schema or CONTEXT_THINK_ANSWER)
        if section_schema not in (None, self._section_schema):
            raise ValueError(
                f"section_schema: {args.section_schema} in `args`, {section_schema.names} beside; give one"
            )
        if section_schema or args.section_schema:
            reward_funcs = self._in_sections(reward_funcs, args)
        self._rows: Sequence[EncodedPrompt] = []
        self._whole: Sequence[dict[str, Any]] = []
        self._names: list[str] = []
        train_dataset, eval_dataset = with_files(train_dataset), with_files(eval_dataset)
        check_reward_columns(reward_funcs, train_dataset, args.allow_unused_rewards)
        with _reference_copied_from(model):
            super().__init__(
                model=model,
                reward_funcs=reward_funcs,
                args=args,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processing_class,
                **kwargs,
            )
        evals = eval_dataset.values() if isinstance(eval_dataset, dict) else [eval_dataset]
        everywhere = modalities_of(train_dataset, *evals) if self.accelerator.num_processes > 1 else ()
        self.media_embedder: MediaEmbedder = attach_media_embedder(self.model, everywhere)
        self._ref_embedder = attach_media_embedder(self.ref_model, everywhere) if self.ref_model is not None else None
        self._share_features(modalities_of(train_dataset, *evals))
        per_generation = (args.steps_per_generation or 1) * args.num_iterations
        self.add_callback(GenerationBorders(per_generation, args.metric_for_best_model is not None))
        self._foresee(self._encoder, per_generation)
        self.add_callback(EpochOrder)
        self._begin_watch()
        self._begin_credit()
        for callback in schedules(self):
            self.add_callback(callback)

    def _in_sections(self, reward_funcs: Any, args: Any) -> list[Any]:
        """The rewards reading the run's sections. Where that gives one another name, the credit map follows."""
        given = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs]
        rewards = [in_sections(reward, self._section_schema) for reward in given]
        if isinstance(args.credit_map, dict):
            pairs = zip(given, rewards, strict=True)
            named = {get_callable_name(old): get_callable_name(new) for old, new in pairs if callable(new)}
            args.credit_map = {named.get(k.rpartition(".")[2], k): v for k, v in args.credit_map.items()}
        return rewards

    def _tokenize_prompts(self, prompts: list):
        """Encode each prompt, equal ones once; one item of [`EncodedPrompt`] a row is kept for scoring."""
        names = self._names if len(self._names) == len(prompts) else [f"#{i}" for i in range(len(prompts))]
        if isinstance(prompts[0], str):  # not conversational: TRL's own way, no media
            ids, _, fields = super()._tokenize_prompts(prompts)
            self._rows = [EncodedPrompt(i, name=name) for i, name in zip(ids, names, strict=True)]
            return ids, None, fields
        self._rows = [self._encoder(as_parts(prompt), name) for prompt, name in zip(prompts, names, strict=True)]
        return [row.input_ids for row in self._rows], None, {}  # `_generate_single_turn` adds the rows' media

    def _generate(self, prompts: list):
        """Count what stood in the prompts while sampling: all of the batch's media, or stop."""
        self.heartbeat.enter("sampling")
        before = self.media_embedder.placed.copy()
        policy = self.accelerator.unwrap_model(self.model_wrapped)
        with cpu_threads(self.args.sampling_threads), explicit_decoding(policy):
            output = super()._generate(prompts)
        seen = self.media_embedder.placed - before
        for modality in ("audio", "image", "video"):
            wanted = sum(row.counts.get(modality, 0) for row in self._rows)
            if seen[modality] != wanted:
                names = [row.name for row in self._rows if row.counts.get(modality)]
                raise MediaError(f"sampling saw {seen[modality]} of {wanted} {modality} features of rows {names[:8]}")
        return output

    def _generate_and_score_completions(self, inputs):
        """Keep the rows' names for errors, and send each row's media along with it: TRL sees no picture."""
        self._names = [str(row.get("id", f"#{i}")) for i, row in enumerate(inputs)]
        self._whole = inputs
        output = super()._generate_and_score_completions([_without_pictures(row) for row in inputs])
        output["media"] = list(self._rows)  # a list survives TRL's shuffle and split, row by row
        return output

    def _compute_loss(self, model, inputs):
        """Take up the micro-batch's media, after proving that each row still holds its own prompt."""
        self._rows = inputs["media"]
        for ids, mask, row in zip(inputs["prompt_ids"], inputs["prompt_mask"], self._rows, strict=True):
            if ids[mask.bool()].tolist() != row.input_ids:
                raise MediaError(f"row {row.name!r}: the micro-batch pairs its media with another row's prompt")
        return super()._compute_loss(model, inputs)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        """Show id, media and sections in the completions table; count groups whose rewards are all equal, exactly."""
        inputs = self._whole if len(self._whole) == len(inputs) else inputs  # rewards read the pictures' columns
        texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
        sections = [parse_sections(text, self._section_schema) for text in texts]
        self._log_completion_extra("id", self._names)
        self._log_completion_extra("media", ["\n".join(dict.fromkeys(paths)) for paths in media_paths(prompts)])
        for name in self._section_schema.names:
            self._log_completion_extra(name, [s.texts.get(name) for s in sections])
        self._log_completion_extra("format", [s.reason for s in sections])
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        mode = "train" if self.model.training else "eval"
        group: int = self.num_generations if mode == "train" else self.num_generations_eval  # type: ignore[assignment]
        grouped = torch.nan_to_num(rewards, nan=-1e9).view(-1, group, rewards.size(1))
        equal = (grouped == grouped[:, :1]).all(dim=1).all(dim=1)
        self._metrics[mode]["frac_zero_variance_groups"].append(equal.float().mean().item())
        return rewards

    def log(self, logs, start_time=None):
        """Prompts as plain text with their media named: readable, and of one type in every row, as wandb's tables ask."""
        self._logs["prompt"] = deque(map(_readable, self._logs["prompt"]), maxlen=self._logs["prompt"].maxlen)
        super().log(logs, start_time)


def _without_pictures(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in PICTURES}


def _readable(prompt: Any) -> Any:
    """A prompt whose messages have a string as content: `[video clip.mp4]` where an item stands."""
    if isinstance(prompt, str):
        return prompt
    return [
        {**m, "content": " ".join(p["text"] or f"[{p['type']} {Path(p['path']).name}]" for p in m["content"])}
        if not isinstance(m["content"], str)
        else m
        for m in prompt
    ]
