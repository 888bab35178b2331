# SPDX-License-Identifier: Apache-2.0
"""TRL's GRPOTrainer with image, video and audio in every pass: which collaborator works in which of TRL's hooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from omni_grpo.build import check_fit, check_generation, collaborators, ready_model, refuse_unread, rewards_in_sections
from omni_grpo.config import OmniGRPOConfig
from omni_grpo.credit.arguments import run_schema
from omni_grpo.credit.schedules import schedules
from omni_grpo.data.dataset import modalities_of, refuse_lacking, with_files
from omni_grpo.data.encoding.encoder import PromptEncoder
from omni_grpo.data.encoding.inputs import EncodedPrompt
from omni_grpo.data.encoding.lookahead import EncodesAhead
from omni_grpo.data.rows.pairs import partners
from omni_grpo.data.rows.prompts import as_parts
from omni_grpo.data.rows.trl_rows import without_pictures
from omni_grpo.experimental.contrast import PairedSampler, check_contrast
from omni_grpo.experimental.rewards import grounding_rewards, with_rewards
from omni_grpo.model.evaluation_mode import in_evaluation
from omni_grpo.model.loading import image_token_named, reference_copied_from, written_out
from omni_grpo.model.towers import lasting
from omni_grpo.rollout.policy import whole_policy
from omni_grpo.rollout.prefill import drops_out
from omni_grpo.rollout.record import Rollout
from omni_grpo.rollout.sampler import cpu_threads
from omni_grpo.rollout.vllm.generation import generation_with_features
from omni_grpo.run.checkpoints import CompleteCheckpoints, EpochOrder, GenerationBorders
from omni_grpo.run.finite import FiniteSteps
from omni_grpo.run.reward_columns import check_reward_columns
from omni_grpo.run.run_log import keep_training_table
from omni_grpo.scoring.agreement import check_prompts
from omni_grpo.scoring.row_order import in_order
from omni_grpo.scoring.scorer import Batch
from omni_rewards import SectionSchema, parse_sections


class OmniGRPOTrainer(FiniteSteps, CompleteCheckpoints, EncodesAhead, GRPOTrainer):
    """
    [`~trl.GRPOTrainer`] for prompts with images, videos and sounds, mixed in one batch with text-only rows.

    A generation batch is one [`Rollout`]. TRL hands nothing of ours from one of its methods to the next, so the rollout
    that is worked on is `self._rollout` while `_at` holds, here and nowhere else; its rows go through TRL's shuffle and
    split as `output["rows"]`. The work is done by `media_embedder`, `sampler`, `scorer`, `credit`, `run_log`,
    `agreement` and `probe`.

    Args:
        model (`str`, `PreTrainedModel` or `PeftModel`):
            A model of a supported family, or the name or directory of a checkpoint.
        reward_funcs (`Callable` or `list`): As in TRL.
        args ([`OmniGRPOConfig`] or [`~trl.GRPOConfig`], *optional*): Configuration, see [`OmniGRPOConfig.of`].
        train_dataset (`Dataset`):
            From [`~omni_grpo.data.dataset.to_dataset`], its `prompt` parts hold media paths; or a stock TRL data set, with pictures
            in its columns `image` or `images` or in its turns, see [`~omni_grpo.data.dataset.with_files`].
        eval_dataset (`Dataset`, *optional*): The same.
        processing_class (`ProcessorMixin`, *optional*): Defaults to the checkpoint's processor.
        encoder ([`PromptEncoder`], *optional*): The run's encoder, with its media settings and its limit on length.
        section_schema ([`SectionSchema`], *optional*):
            Sections of a completion; defaults to `args.section_schema`. Where it is given, the rewards of `omni_rewards`
            read these, see [`~omni_grpo.run.reward_settings.in_sections`].
        **kwargs: Passed to [`~trl.GRPOTrainer`].

    Raises:
        `MediaError`: A pass would not see exactly the media of its prompts; the message names the row.
        `ValueError`: Settings, model, data and rewards that do not fit each other.
    """

    _tag_names: ClassVar = ["trl", "grpo", "omni-grpo"]
    args: Any  # TRL and transformers annotate these as unions over every backend
    model: Any
    sampler: Any  # a GenerateSampler, or a VLLMSampler
    _rollout = Rollout([])

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: GRPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        encoder: PromptEncoder | None = None,
        section_schema: SectionSchema | None = None,
        **kwargs: Any,
    ) -> None:
        args = OmniGRPOConfig.of(args, model)
        if hasattr(train_dataset, "__len__"):
            args.check_rows(len(train_dataset))
        reward_funcs = [] if reward_funcs is None else reward_funcs
        args.check_weights(len(reward_funcs) if isinstance(reward_funcs, list) else 1)
        self.schema, self._rollout = run_schema(args, section_schema), Rollout([])
        if section_schema or args.section_schema:
            reward_funcs = rewards_in_sections(reward_funcs, args, self.schema)
        check_fit(reward_funcs, args, self.schema)
        train_dataset, eval_dataset = with_files(train_dataset), with_files(eval_dataset)
        if not kwargs.get("rollout_func") and not kwargs.get("environment_factory"):  # which add columns
            check_reward_columns(reward_funcs, train_dataset, args.allow_unused_rewards)
        check_contrast(args, train_dataset)
        check_generation(args, train_dataset)
        quantization = kwargs.pop("quantization_config", None)
        model, processor, self.encoder = ready_model(model, args, processing_class, encoder, quantization)
        kwargs["peft_config"] = written_out(kwargs.get("peft_config"), model)
        evals = eval_dataset.values() if isinstance(eval_dataset, dict) else [eval_dataset]
        refuse_lacking(model, train_dataset, *evals)
        refuse_unread(self.encoder, train_dataset, {**kwargs, "chat_template_kwargs": args.chat_template_kwargs})
        ours = grounding_rewards(args, self.schema, self.encoder, lambda: self._rollout.rows, self._score)
        with (
            reference_copied_from(model),
            image_token_named(model),
            generation_with_features(),
            with_rewards(reward_funcs, args, ours) as funcs,
        ):
            super().__init__(
                model=model,
                reward_funcs=funcs,
                args=args,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processor,
                **kwargs,
            )
        made = collaborators(self, self.encoder, self.schema, modalities_of(train_dataset, *evals))
        self.media_embedder, self.sampler, self.scorer, self.credit, self.run_log, self.agreement, self.probe = made
        self.reward_weights = self.credit.weights(self.reward_weights)
        per_generation = (args.steps_per_generation or 1) * args.num_iterations
        borders = GenerationBorders(per_generation, self.args.metric_for_best_model is not None)
        for callback in (borders, EpochOrder(), *schedules(self)):
            self.add_callback(callback)
        self.encode_ahead(self.encoder, per_generation)
        self.begin_watch()

    @contextmanager
    def _at(self, rollout: Rollout) -> Iterator[Rollout]:
        """Within: TRL's hooks are about this rollout."""
        before, self._rollout = self._rollout, rollout
        try:
            yield rollout
        finally:
            self._rollout = before

    # From data rows to a batch: TRL calls these in this order.

    def _get_train_sampler(self, dataset=None):
        sampler, rows = super()._get_train_sampler(dataset), self.train_dataset if dataset is None else dataset
        return PairedSampler(sampler, partners(rows["pair"], rows["id"])) if self.args.contrast_pairs else sampler

    def _prepare_inputs(self, generation_batch):
        """TRL's own, whole, but for the order of rows: TRL shuffles with a function of its module."""
        if not self.model.training:
            return self._generate_and_score_completions(generation_batch)
        steps = self.args.steps_per_generation
        if self._step % (steps * self.num_iterations) == 0 or self._buffered_inputs is None:
            self._buffered_inputs = None  # its features go before new ones are made
            batch = split_pixel_values_by_grid(self._generate_and_score_completions(generation_batch))
            batches: Any = split_tensor_dict(in_order(batch, self), steps)
            self._buffered_inputs = [unsplit_pixel_values_by_grid(batch) for batch in batches]
        return self._buffered_inputs[self._step % steps]

    def _generate_and_score_completions(self, inputs):
        mode = "train" if self.model.training else "eval"
        size: Any = self.num_generations if mode == "train" else self.num_generations_eval
        batch = self.run_log.next_batch(self.state.global_step)
        with self._at(Rollout.begin(inputs, mode, batch, size, self.accelerator.process_index)) as rollout:
            output = super()._generate_and_score_completions([without_pictures(row) for row in inputs])
            mask = output["completion_mask"]
            if (old := output.get("old_per_token_logps")) is not None:
                self.agreement(rollout.rows, old, mask, output.get("importance_sampling_ratio"))
            probed = self.probe(rollout.rows, self.state.global_step) if mode == "train" else None
            if probed is not None and drops_out(self.model):  # the loss's own pass cannot be judged
                row, logps = probed
                self.agreement([row], logps, torch.ones_like(logps), name="agreement/probed")
        weights, stock = self.reward_weights.to(self.accelerator.device), output["advantages"]
        credited = self.credit(rollout, stock, weights, output["completion_ids"].size(1))
        rollout.advantages = credited.advantages
        self.run_log.rewarded(rollout, credited, stock, weights)
        return output | {"advantages": rollout.advantages, "rows": rollout.rows}

    def _tokenize_prompts(self, prompts):
        rows, fields = self._rollout.rows, {}
        if not self.encoder.reads(prompts[0]):  # TRL's own way, no media
            ids, _, fields = super()._tokenize_prompts(prompts)
            encoded = [EncodedPrompt(i, name=row.name) for i, row in zip(ids, rows, strict=True)]
        else:
            encoded = [self.encoder(as_parts(p), row.name) for p, row in zip(prompts, rows, strict=True)]
        self._rollout.fill(prompt=encoded)
        return [prompt.input_ids for prompt in encoded], None, fields  # the sampler has the media

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, *args, **kwargs):
        if self.use_transformers_continuous_batching:
            return super()._generate_single_turn(prompt_ids, images, multimodal_fields, *args, **kwargs)
        self.heartbeat.enter("sampling")
        rollout, device = self._rollout, self.accelerator.device
        prompts = rollout.prompts
        later_turn = [prompt.input_ids for prompt in prompts] != prompt_ids  # after a tool has answered
        if later_turn:
            prompts = [EncodedPrompt(ids) for ids in prompt_ids]
        with whole_policy(self) as model, cpu_threads(self.args.sampling_threads):
            if self.args.share_media != "off":
                with self.accelerator.autocast():
                    prompts = self.media_embedder.encode(model, prompts, device)
            sampled = None
            if not self.use_vllm:
                sampled = self.sampler(model, prompts, generation_config=self.generation_config)
            kept = lasting(self.media_embedder, model, rollout.mode)
        if sampled is None:  # vLLM is sent the weights one by one, wherever they are
            at = self.args.seed, self.state.global_step, self.accelerator.process_index, rollout.mode == "eval"
            sampled = self.sampler(self.model, prompts, seed=at)
        if sampled.prompt_ids is not None:
            check_prompts(prompts, sampled.prompt_ids)
        if not later_turn:  # what a tower that trains has made is made again in the loss, with its gradient
            rollout.fill(prompt=[prompt.keeping(kept) for prompt in prompts])
            if sampled.chosen is not None:
                rollout.fill(chosen=sampled.chosen)
            if sampled.logprobs is not None:
                rollout.fill(logprobs=sampled.logprobs)
        return sampled.completion_ids, sampled.logprobs if self.use_vllm else None  # as TRL's own `generate`

    def _generate(self, prompts):
        prompt_ids, completion_ids, mask, *rest = super()._generate(prompts)
        if not self._rollout.rows:  # called by itself
            return prompt_ids, completion_ids, mask, *rest
        if self.rollout_func is not None:
            encoded = zip(prompt_ids, self._rollout.rows, strict=True)
            self._rollout.fill(prompt=[EncodedPrompt(ids, name=row.name) for ids, row in encoded])
        if self.sampler.constraint is not None:  # TRL's tool mask: tokens not chosen are left out of loss and counts
            mask = self.run_log.chosen(self._rollout)
        return prompt_ids, completion_ids, mask, *rest

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        # Rewards read the pictures' columns, too, and what a `rollout_func` has added.
        inputs = [{**row.example, **given} for row, given in zip(self._rollout.rows, inputs, strict=True)]
        texts = [c if isinstance(c, str) else str(c[-1].get("content") or "") for c in completions]
        self._rollout.fill(
            text=texts,
            completion_ids=completion_ids_list,
            sections=[parse_sections(text, self.schema) for text in texts],
            places=[self.credit.locate(ids) for ids in completion_ids_list],
        )
        self._rollout.rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        for column, values in self.run_log.columns(self._rollout, inputs, prompts).items():
            if column not in self._pending_extra_logs:  # by a reward of the user's own
                self._log_completion_extra(column, values)
        return self._rollout.rewards

    # A micro-batch to its loss; TRL scores with the last one in sampling, too (old and reference log-probabilities).

    def _compute_loss(self, model, inputs):
        with self._at(Rollout(inputs["rows"])) as rollout:
            self.note_rows([row.name for row in rollout.rows])
            rollout.check_pairing(*(inputs[name] for name in ("prompt_ids", "prompt_mask", "completion_ids")))
            loss = super()._compute_loss(model, inputs)
            if "old_per_token_logps" not in inputs:  # the first pass since sampling, on the same weights
                self.agreement(rollout.rows, rollout.logps, inputs["completion_mask"])
        return loss

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, **asked
    ):
        if not self._rollout.rows and not self.media_embedder.family.modalities:  # called by itself, on text
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, **asked
            )
        batch = Batch(self._rollout.prompts, input_ids, attention_mask, logits_to_keep)
        entropy, aux_loss = asked.get("compute_entropy", False), asked.get("compute_aux_loss", False)
        scores = self.scorer(model, batch, batch_size, entropy=entropy, aux_loss=aux_loss)
        self._rollout.logps = scores.logps.detach()
        return scores

    def _score(self, prompts: Sequence[EncodedPrompt], completion_ids: Sequence[list[int]]) -> torch.Tensor:
        """For rewards that ask the model: the policy's log-probabilities `(B, T)`, without gradient and dropout."""
        size = self.args.per_device_train_batch_size if self.model.training else self.args.per_device_eval_batch_size
        with torch.no_grad(), in_evaluation(self.model):
            return self.scorer.completions(self.model, prompts, completion_ids, self._tokenizer.pad_token_id, size)

    def log(self, logs, start_time=None):
        self.run_log.make_prompts_readable()
        if any(key.startswith("eval_") for key in logs) and self.accelerator.is_main_process:
            keep_training_table(self.args.output_dir, self.state.global_step)
        super().log(logs, start_time)
        listening = self.log_completions and "wandb" in (self.args.report_to or []) and self.args.wandb_media_files
        if self.accelerator.is_main_process and listening:
            self.run_log.send_playable(self.state.global_step, self.args.wandb_media_files)
