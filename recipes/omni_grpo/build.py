# SPDX-License-Identifier: Apache-2.0
"""Who works for a trainer: its model made ready, and the collaborators that its hooks hand their work to."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from torch import nn
from trl import GRPOTrainer
from trl.trainer.utils import get_callable_name

from omni_grpo.credit.credit import Credit, credit_places
from omni_grpo.credit.section_masks import places_of
from omni_grpo.data.dataset import modalities_of
from omni_grpo.data.encoding.encoder import PromptEncoder, processing_key
from omni_grpo.data.media.settings import MediaSettings
from omni_grpo.experimental.rewards import grounding_rewards, with_rewards
from omni_grpo.families import base_of, family_of, head_of
from omni_grpo.model.feature_cache import FeatureCache, encoder_fingerprint
from omni_grpo.model.loading import freeze_towers, hub_kwargs, load_model, load_processor
from omni_grpo.model.towers import MediaEmbedder, attach_media_embedder, is_frozen, lasting
from omni_grpo.rollout.constrained.decoding import section_constraint
from omni_grpo.rollout.constrained.head import add_constrained_head, exclude_tokens
from omni_grpo.rollout.prefill import ONCE
from omni_grpo.rollout.sampler import GenerateSampler
from omni_grpo.rollout.vllm.installed import check_installed
from omni_grpo.rollout.vllm.sampler import VLLMSampler
from omni_grpo.run.construct import as_mapping
from omni_grpo.run.reward_settings import in_sections
from omni_grpo.run.run_log import RunLog
from omni_grpo.scoring.agreement import Agreement
from omni_grpo.scoring.probe import CausalProbe
from omni_grpo.scoring.scorer import Scorer
from omni_rewards import SectionSchema


class Collaborators(NamedTuple):
    """Those of a GRPO trainer."""

    media: MediaEmbedder
    sampler: GenerateSampler | VLLMSampler
    scorer: Scorer
    credit: Credit
    run_log: RunLog
    agreement: Agreement
    probe: CausalProbe


def ready_model(
    model: Any,
    args: Any,
    processing_class: Any = None,
    encoder: PromptEncoder | None = None,
    quantization_config: Any = None,
) -> tuple[Any, Any, PromptEncoder]:
    """
    What both trainers begin with: a model with its towers frozen as asked, its processor, and a prompt encoder.

    Args:
        model (`str`, `PreTrainedModel` or `PeftModel`): A model, or the name or directory of a checkpoint.
        args ([`OmniGRPOConfig`] or [`OmniSFTConfig`]): The run's configuration; `model_init_kwargs` are used up.
        processing_class (`ProcessorMixin`, *optional*): Defaults to the encoder's, else to the checkpoint's.
        encoder ([`PromptEncoder`], *optional*): The run's.
        quantization_config (`BitsAndBytesConfig`, *optional*): Of a model that is loaded here.

    Raises:
        `ValueError`: No family covers the model, or its processor is another family's, or it was loaded before its
            quantisation was asked for.
    """
    found: dict[str, Any] = {}
    if isinstance(model, str):
        asked = {"dtype": "float32", "trust_remote_code": args.trust_remote_code, **(args.model_init_kwargs or {})}
        asked |= {"quantization_config": quantization_config} if quantization_config is not None else {}
        model, found = load_model(model, **asked), hub_kwargs(asked)
        args.model_init_kwargs = None
    elif quantization_config is not None:
        raise ValueError("quantization_config: the model is loaded already; give it to `load_model`, or a name here")
    family = family_of(model)
    if processing_class is None:
        processing_class = encoder.processor if encoder else load_processor(model.config._name_or_path, **found)
    if not family.has_processor(processing_class):
        raise ValueError(
            f"the processor is a {type(processing_class).__name__}, the model's is a {', '.join(family.processors)}; "
            "load both from one checkpoint"
        )
    freeze_towers(model, args.freeze_vision, args.freeze_audio)
    return model, processing_class, encoder or PromptEncoder(processing_class, MediaSettings())


def refuse_unread(encoder: PromptEncoder, dataset: Any, asked: Mapping[str, Any]) -> None:
    """
    Raises:
        `NotImplementedError`: What changes prompts is asked of TRL, and the encoder reads them.
    """
    given = [n for n in ("tools", "environment_factory", "rollout_func", "chat_template_kwargs") if asked.get(n)]
    if given and dataset is not None and encoder.reads(next(iter(dataset)).get("prompt", "")):
        raise NotImplementedError(
            f"{', '.join(given)}: only for text-only models and prompts of TRL's own form (a text, or turns whose content "
            "is a text); the encoder, which reads these prompts, would leave it out"
        )


def rewards_in_sections(reward_funcs: Any, args: Any, schema: SectionSchema) -> list[Any]:
    """The rewards reading the run's sections. Where that gives one another name, the credit map follows."""
    given = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs]
    rewards = [in_sections(reward, schema) for reward in given]
    if isinstance(args.credit_map, dict):
        pairs = zip(given, rewards, strict=True)
        named = {get_callable_name(old): get_callable_name(new) for old, new in pairs if callable(new)}
        args.credit_map = {named.get(k.rpartition(".")[2], k): v for k, v in args.credit_map.items()}
    return rewards


def check_generation(args: Any, dataset: Any) -> None:
    """
    Hold the settings of sampling to prompts with media; a stream's are met in its first step.

    Raises:
        `ValueError`: One shows the model a prompt and its media more than once, or in part.
        `ImportError`: `use_vllm`, and it is not installed.
    """
    if args.use_vllm:
        check_installed()
    if not isinstance(dataset, Dataset) or not modalities_of(dataset):
        return
    for name, value in as_mapping(args.generation_kwargs or {}, "generation_kwargs").items():
        if value not in ONCE.get(name, (value,)):
            raise ValueError(
                f"generation_kwargs: {name}: {value!r} does not show the model each prompt and its media once and "
                "whole, as sampling needs; take it out"
            )


def check_fit(reward_funcs: list[Any], args: Any, schema: SectionSchema) -> None:
    """
    Hold rewards, weights and credit to the sections, before a model is loaded; a reward model is met when it is.

    Raises:
        `ValueError`: As [`grounding_rewards`], [`with_rewards`] and [`credit_places`].
    """
    unbound: Any = None
    with with_rewards(reward_funcs, args, grounding_rewards(args, schema, unbound, unbound, unbound)) as funcs:
        if not any(isinstance(reward, (str, nn.Module)) for reward in funcs):
            about = {get_callable_name(reward): getattr(reward, "sections", None) for reward in funcs}
            credit_places(args, about, schema)


def collaborators(
    trainer: Any, encoder: PromptEncoder, schema: SectionSchema, modalities: frozenset[str]
) -> Collaborators:
    """
    Those of a trainer that TRL has constructed.

    Args:
        trainer (`GRPOTrainer`): With an [`OmniGRPOConfig`].
        encoder ([`PromptEncoder`]): The run's.
        schema ([`SectionSchema`]): The run's sections.
        modalities (`frozenset[str]`): Those of the data.

    Raises:
        `ValueError`: Settings that do not fit each other, see [`Credit`], [`SectionConstraint`], [`FeatureCache`].
    """
    args, accelerator, tokenizer = trainer.args, trainer.accelerator, trainer._tokenizer
    everywhere = modalities if accelerator.num_processes > 1 else ()
    media = attach_media_embedder(trainer.model, everywhere)
    media.encodes_once, modalities = args.share_media != "off", modalities & {*media.family.modalities}
    media.cache = _feature_cache(trainer, media, encoder, modalities)
    reference_media, takes = None, frozenset[str]()
    if trainer.ref_model is not None:
        reference_media = attach_media_embedder(trainer.ref_model, everywhere)
        reference_media.encodes_once = media.encodes_once
        takes = _equal_towers(trainer, media)
    head, given = head_of(trainer.model), (args.generation_kwargs or {}).get("suppress_tokens") or ()
    forbidden = sorted({*media.family.control_ids(encoder.processor), *given})
    constraint = section_constraint(args, tokenizer, head, trainer.eos_token_ids, schema, forbidden)
    if constraint is not None:
        if trainer.aux_loss_enabled:
            raise ValueError("constrained_decoding: makes no router loss; set `router_aux_loss_coef: 0`")
        for model in (head, trainer.ref_model and head_of(trainer.ref_model)):
            if model is not None:
                add_constrained_head(model, trainer.temperature, args.cast_lm_head_to_fp32)
    elif trainer.rollout_func is None and not trainer.use_transformers_continuous_batching:  # else others sample
        for model in (head, trainer.ref_model and head_of(trainer.ref_model)):
            if model is not None:
                exclude_tokens(model, forbidden)
    share, ends = args.share_prompt, trainer.eos_token_ids
    if args.use_vllm:
        draw: Any = functools.partial(GRPOTrainer._generate_single_turn, trainer)
        sampler = VLLMSampler(media, trainer.vllm_generation, draw, ends, forbidden, constraint)
    else:
        sampler = GenerateSampler(
            media,
            tokenizer.pad_token_id,
            ends,
            forbidden,
            share=share != "off",
            constraint=constraint,
            pad_to_multiple_of=trainer.pad_to_multiple_of,
            logprobs=args.agreement != "off",
        )
    probe_steps = args.causal_probe_steps if modalities else 0
    run_log = RunLog(trainer._metrics, trainer._logs, accelerator, schema, trainer.reward_func_names)
    named = zip(trainer.reward_func_names, trainer.reward_funcs, strict=True)
    about = {name: getattr(reward, "sections", None) for name, reward in named}
    return Collaborators(
        media,
        sampler,
        Scorer(accelerator, trainer.model, media, share, constraint, trainer.ref_model, reference_media, takes),
        Credit(args, about, schema, tokenizer, trainer.scale_rewards),
        run_log,
        Agreement(accelerator, trainer.model, args, places_of(schema), run_log.metric),
        CausalProbe(accelerator, media.family, probe_steps, trainer._score, run_log.metric),
    )


def _feature_cache(
    trainer: Any, media: MediaEmbedder, encoder: PromptEncoder, modalities: Collection[str]
) -> FeatureCache | None:
    if (folder := trainer.args.media_feature_cache) is None:
        return None
    base, family = base_of(trainer.model), media.family
    if trained := sorted(m for m in modalities if not is_frozen(family.tower(base, m))):
        fields = " and ".join(sorted({f"freeze_{'audio' if m == 'audio' else 'vision'}: true" for m in trained}))
        raise ValueError(
            f"media_feature_cache: the encoder of {', '.join(trained)} trains or has adapters, and its features of "
            f"one step are not those of the next; set {fields}, or leave media_feature_cache out"
        )
    facts = processing_key(encoder.processor), trainer.accelerator.mixed_precision
    prints = {m: encoder_fingerprint(family.tower(base, m), m, *facts) for m in sorted(modalities)}
    return FeatureCache(folder, prints, trainer.args.media_feature_cache_gb)


def _equal_towers(trainer: Any, media: MediaEmbedder) -> frozenset[str]:
    """Modalities whose frozen towers are the reference's own, on all processes; the others it encodes for itself."""
    frozen, family = lasting(media, trainer.model, "train"), media.family
    ours, theirs = base_of(trainer.model), base_of(trainer.ref_model)
    equal = [_equal_weights(family.tower(ours, m), family.tower(theirs, m)) for m in family.modalities]
    told = torch.tensor([equal], dtype=torch.int, device=trainer.accelerator.device)
    everywhere = trainer.accelerator.gather(told).all(dim=0).tolist()
    return frozenset(m for m, is_equal in zip(family.modalities, everywhere, strict=True) if is_equal and m in frozen)


def _equal_weights(a: list[nn.Module], b: list[nn.Module]) -> bool:
    """Whether two towers hold the same numbers, as far as this process has them; what cannot be compared is not equal."""
    pairs = zip(
        (p for part in a for p in part.parameters()), (p for part in b for p in part.parameters()), strict=True
    )
    held = [tuple(getattr(p, "ds_tensor", p).detach() for p in pair) for pair in pairs]
    return all(type(x) is type(y) and x.shape == y.shape and x.dtype == y.dtype and torch.equal(x, y) for x, y in held)
