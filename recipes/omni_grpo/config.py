# SPDX-License-Identifier: Apache-2.0
"""Dataclasses behind the YAML files and the command line; only what TRL's own do not have."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from trl import GRPOConfig, SFTConfig

from omni_grpo.credit.arguments import CreditArguments
from omni_grpo.data.dataset import SFT_TARGETS
from omni_grpo.data.rows.prompts import PROMPT_STYLES
from omni_grpo.evaluation.arguments import EvalArguments as EvalArguments
from omni_grpo.experimental.arguments import GroundingArguments
from omni_grpo.rollout.constrained.section_constraint import MODES
from omni_grpo.rollout.vllm.installed import check_fields
from omni_grpo.run.construct import word
from omni_grpo.run.reward_settings import read_settings
from omni_grpo.run.stages import RESUME
from omni_grpo.scoring.arguments import AgreementArguments, SharingArguments


@dataclass
class DataArguments:
    """
    Which rows, and how prompts are made of them.

    Args:
        train_file (`str`, *optional*):
            File of rows (JSONL, JSON, CSV, Parquet, Arrow), the name of a Hugging Face data set, or several separated by
            commas. A data set's split can be named behind it, `name[split]`.
        validation_file (`str`, *optional*): The same for validation.
        train_split (`str`, defaults to `"train"`): Split of data sets in `train_file` that are named without one.
        validation_split (`str`, defaults to `"validation"`): The same for `validation_file`.
        media_root (`str`, *optional*): Folder that media paths are relative to; defaults to the data file's folder.
        media_roots (`list[str]`, *optional*):
            Further folders that links below `media_root` may lead to, e.g. the `blobs` of a Hugging Face cache.
        prompt_style (`str`): System prompt and sections; a key of `omni_grpo.data.rows.prompts.PROMPT_STYLES`.
        sft_target (`str`):
            What SFT imitates: the row's `target`, its `solution` alone, the target where there is one, or the `sections`
            of the target that `prompt_style` asks for.
        max_prompt_length (`int`, *optional*): Longest prompt in tokens, media included; longer rows are refused.
        escape_control_tokens (`bool`, defaults to `False`):
            Write the tokenizer's special tokens, where a row's texts hold them, as ordinary text, and allow section tags in
            questions; both are refused otherwise.
        decode_cache (`str`, *optional*):
            Folder of decoded frames and waveforms, which runs may share; defaults to `decode_cache` beside `output_dir`.
        decode_cache_mb (`int`, defaults to `8192`): Most MB there, least recently used go first; 0 keeps nothing.
        resume (`str`, defaults to `"auto"`):
            What becomes of a run that was cut in `output_dir`: `auto` goes on with it, and refuses where fields that
            change it differ; `force` goes on with the new ones; `fresh` sets it aside and begins anew.
        preemption_seconds (`float`, defaults to `45.0`):
            Time to end a step and save once the launcher is gone, see [`~omni_grpo.run.preemption.Preemption`].
    """

    train_file: str | None = None
    validation_file: str | None = None
    train_split: str = "train"
    validation_split: str = "validation"
    media_root: str | None = None
    media_roots: list[str] | None = None
    prompt_style: str = "context_think_answer"
    sft_target: Literal["target", "solution", "target_or_solution", "sections"] = "target"
    max_prompt_length: int | None = None
    escape_control_tokens: bool = False
    decode_cache: str | None = None
    decode_cache_mb: int = 8192
    resume: Literal["auto", "force", "fresh"] = "auto"
    preemption_seconds: float = 45.0

    def __post_init__(self) -> None:
        if self.prompt_style not in PROMPT_STYLES:
            raise ValueError(f"prompt_style: {self.prompt_style!r} is unknown; one of {', '.join(PROMPT_STYLES)}")
        if isinstance(self.media_roots, str):  # one folder, written without brackets
            self.media_roots = [self.media_roots]
        if self.decode_cache_mb < 0:
            raise ValueError(f"decode_cache_mb: must not be negative, got {self.decode_cache_mb}")
        word(self.sft_target, SFT_TARGETS, "sft_target")
        word(self.resume, RESUME, "resume")


@dataclass
class TowerArguments:
    """
    Which towers train. LoRA stays out of both unless `lora_target_modules` names their layers in full.

    Args:
        freeze_vision (`bool`, defaults to `False`): Keep the vision tower and its projector fixed.
        freeze_audio (`bool`, defaults to `False`): Keep the audio tower and its projector fixed.
    """

    freeze_vision: bool = False
    freeze_audio: bool = False


@dataclass
class OmniGRPOConfig(
    SharingArguments, AgreementArguments, CreditArguments, GroundingArguments, TowerArguments, GRPOConfig
):
    """
    [`~trl.GRPOConfig`] with what an omni-modal run adds.

    Args:
        reward_funcs (`list[str]`): Dotted paths of reward functions, weighted by `reward_weights`.
        reward_settings (`dict`, *optional*):
            Keyword settings of rewards by their path, a judge's among them (on the command line as JSON); see
            [`~omni_grpo.run.reward_settings.configured_rewards`].
        allow_unused_rewards (`bool`, defaults to `False`):
            Go on, with a warning, where a reward applies to no row of the data; it is refused otherwise.
        prompt_cache_mb (`int`, defaults to `512`): Encoded prompts kept in memory, least recently used go first.
        sampling_threads (`int`, *optional*):
            CPU threads while completions are sampled; defaults to as many as otherwise. A small model samples fastest
            with one, and is updated fastest with all.
        constrained_decoding (`str`, defaults to `"none"`):
            `strict` samples complete, well-formed sections alone; `force_tags` keeps tags in their order but lets a
            section be empty or cut at the end; see [`~omni_grpo.rollout.constrained.section_constraint.SectionConstraint`].
        section_budgets (`list[int]`, *optional*): Tokens that each section may take in `strict`, its tags included.
        wandb_media_files (`int`, defaults to `4`):
            Clips, sounds and images (8 MB at most each) that play in the table of each log event, where `report_to`
            is wandb and completions are logged; `0` for no such table.
        rehearse (`int`, *optional*):
            Make so many steps in a folder that is then deleted, and write what they took beside `output_dir`, see
            [`~omni_grpo.run.measuring.Rehearsal`].
    """

    reward_funcs: list[str] = field(
        default_factory=lambda: ["omni_rewards.section_format_reward", "omni_rewards.answer_reward"]
    )
    reward_settings: dict[str, Any] | str | None = None
    allow_unused_rewards: bool = False
    prompt_cache_mb: int = 512
    sampling_threads: int | None = None
    constrained_decoding: Literal["none", "force_tags", "strict"] = "none"
    section_budgets: list[int] | None = None
    wandb_media_files: int = 4
    rehearse: int | None = None

    def __post_init__(self) -> None:
        if self.load_best_model_at_end or self.save_strategy == "best":  # upstream would go by the loss
            self.metric_for_best_model = self.metric_for_best_model or "eval_reward"
        super().__post_init__()
        self.check_ours()

    @classmethod
    def of(cls, args: GRPOConfig | None, model: Any) -> OmniGRPOConfig:
        """
        A configuration of TRL's as one of ours. What it cannot say is as in TRL: `credit_map: stock`, `agreement: warn`.

        Args:
            args (`GRPOConfig`, *optional*): As a trainer of TRL's takes it; by default TRL's own for a model of this name.
            model (`str` or `PreTrainedModel`): The run's.

        Raises:
            `ValueError`: As this class raises it.
        """
        if isinstance(args, cls):
            return args
        name = model if isinstance(model, str) else model.config._name_or_path
        own: Any = copy.copy(args) if args is not None else GRPOConfig(f"{name.split('/')[-1]}-GRPO")
        own.__class__ = cls  # not made anew: what TRL has filled in cannot be given to it again
        own.reward_funcs, own.credit_map, own.agreement = [], "stock", "warn"
        own.check_ours()
        return own

    def check_ours(self) -> None:
        """Hold the fields that TRL does not know to what they may be."""
        self.check_sharing()
        self.check_agreement()
        self.check_grounding()
        self.constrained_decoding = word(self.constrained_decoding, MODES, "constrained_decoding")
        if self.section_budgets is not None and self.constrained_decoding != "strict":
            raise ValueError("section_budgets: only `constrained_decoding: strict` holds sections to a length")
        if self.sampling_threads is not None and self.sampling_threads < 1:
            raise ValueError(f"sampling_threads: must be at least 1, got {self.sampling_threads}")
        if self.wandb_media_files < 0:
            raise ValueError(f"wandb_media_files: must not be negative, got {self.wandb_media_files}")
        if self.rehearse is not None and self.rehearse < 1:
            raise ValueError(f"rehearse: must be at least 1 step, got {self.rehearse}")
        if self.use_vllm:
            check_fields(self)
        self.reward_settings = read_settings(self.reward_settings)
        self.check_credit(self.beta, self.reward_weights)
        check_checkpoints(self)

    def check_weights(self, rewards: int) -> None:
        """
        Hold the weights to the rewards of the run; how many these are, a trainer in Python knows alone.

        Raises:
            `ValueError`: Other than one weight for each reward.
        """
        schedule: Any = self.reward_weight_schedule or {}
        steps = {f"reward_weight_schedule: {step}: {weights}": weights for step, weights in schedule.items()}
        for name, weights in {"reward_weights": self.reward_weights, **steps}.items():
            if weights is not None and len(weights) != rewards:
                entries = f"{name} has {len(weights)} entries, reward_funcs has {rewards}"
                raise ValueError(f"{entries}; give one weight for each of the {rewards} rewards")

    def check_rows(self, rows: int) -> None:
        """
        Raises:
            `ValueError`: A data set of so many rows fills no generation batch, so that nothing would be trained.
        """
        group, size = self.num_generations or 0, self.generation_batch_size or 0  # upstream fills them in
        step = self.per_device_train_batch_size * self.world_size
        if rows * group >= size:
            return
        whole = math.lcm(step, group)  # completions that are full steps and full groups
        steps = rows * group // whole * whole // step
        remedy = f", or set `steps_per_generation: {steps}` (without generation_batch_size)" if steps else ""
        raise ValueError(
            f"train_file: {rows} row(s) of {group} completions each (num_generations) do not fill one generation batch of "
            f"{size} (generation_batch_size, over {self.world_size} process(es)), so that nothing would be trained; give "
            f"at least {size // group} rows{remedy}"
        )


@dataclass
class OmniSFTConfig(TowerArguments, SFTConfig):
    """
    [`~trl.SFTConfig`] with what an omni-modal run adds.

    Args:
        prompt_cache_mb (`int`, defaults to `512`): Encoded prompts kept in memory, least recently used go first.
        validate_answers (`bool`, defaults to `False`):
            Evaluate by what the model answers on the validation file (`eval_answer_accuracy`, `eval_format_rate`;
            higher is better), not by loss.
        validation_max_new_tokens (`int`, defaults to `128`): Longest completion there, in tokens.
        max_train_seconds (`float`, *optional*): Stop after this much wall time, whatever `max_steps` says.
    """

    prompt_cache_mb: int = 512
    validate_answers: bool = False
    validation_max_new_tokens: int = 128
    max_train_seconds: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.packing or self.padding_free:
            raise ValueError("packing / padding_free: not available with media; set both to false")
        check_checkpoints(self)

    def check_rows(self, rows: int) -> None:
        """
        Raises:
            `ValueError`: A data set of so many rows fills no batch, so that nothing would be trained.
        """
        size = self.per_device_train_batch_size * self.world_size
        if self.dataloader_drop_last and rows < size:
            raise ValueError(
                f"train_file: {rows} row(s) do not fill one batch of {size} (over {self.world_size} process(es)), so that "
                f"nothing would be trained; set `dataloader_drop_last: false`, or give at least {size} rows"
            )


def check_checkpoints(args: Any) -> None:
    """
    Raises:
        `ValueError`: What is asked for can leave a run without a complete checkpoint.
    """
    if args.save_total_limit == 1:  # deletes the last good one before the next one is known to be whole
        raise ValueError("save_total_limit: 1 can leave no complete checkpoint after a crash; use 2 or more")
    if args.save_strategy == "best" and args.eval_strategy == "no":
        raise ValueError("save_strategy: best saves what an evaluation finds best; set `eval_strategy: steps`, too")
