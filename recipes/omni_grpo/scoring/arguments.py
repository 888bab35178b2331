# SPDX-License-Identifier: Apache-2.0
"""Fields of a run about its passes: what is computed once, and how far sampling and scoring may lie apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from omni_grpo.rollout.distribution import bent_by
from omni_grpo.run.construct import as_mapping, word

SHARE_PROMPT = ("auto", "off", "verify")
SHARE_MEDIA = ("auto", "off")
AGREEMENT = ("stop", "warn", "off")


@dataclass
class SharingArguments:
    """
    What is computed once, a part of [`OmniGRPOConfig`].

    Args:
        share_prompt (`str`, defaults to `"auto"`):
            Whether the completions of a prompt are scored in one row with it, see
            [`~omni_grpo.scoring.scorer.Scorer`], and sampled from one prefill of it: `auto` verifies itself and
            falls back, `verify` scores every batch both ways and stops at a difference, `off` computes a prompt as
            often as it has completions.
        share_media (`str`, defaults to `"auto"`):
            Whether a media item is encoded once, see [`~omni_grpo.model.towers.MediaEmbedder`]: `auto` per generation
            batch where its tower is frozen and per pass where it trains, `off` as often as rows and passes show it.
        media_feature_cache (`str`, *optional*):
            Folder that keeps what frozen towers made of each media file, across epochs and runs; see
            [`~omni_grpo.model.feature_cache.FeatureCache`]. Refused where a tower trains.
        media_feature_cache_gb (`float`, defaults to `20.0`): Limit of that folder, least recently used go first.
    """

    share_prompt: Literal["auto", "off", "verify"] = "auto"
    share_media: Literal["auto", "off"] = "auto"
    media_feature_cache: str | None = None
    media_feature_cache_gb: float = 20.0

    def check_sharing(self) -> None:
        """
        Hold the fields to what they may be; the parser checks choices on the command line, not in YAML.

        Raises:
            `ValueError`: A field that cannot be; the message names it.
        """
        for name, modes in (("share_prompt", SHARE_PROMPT), ("share_media", SHARE_MEDIA)):
            setattr(self, name, word(getattr(self, name), modes, name))
        if self.media_feature_cache_gb <= 0:
            raise ValueError(f"media_feature_cache_gb: must be more than 0, got {self.media_feature_cache_gb}")
        if self.media_feature_cache is not None and self.share_media == "off":
            raise ValueError("media_feature_cache: keeps what is shared; set `share_media: auto`, or leave it out")


@dataclass
class AgreementArguments:
    """
    How sampling and scoring are held together, a part of [`OmniGRPOConfig`]; docs/agreement.md tells more.

    Args:
        agreement (`str`, defaults to `"stop"`):
            What becomes of log-probabilities that differ between sampling and scoring, see
            [`~omni_grpo.scoring.agreement.Agreement`]: `stop` warns, then stops the run, and refuses settings that bend
            the sampled distribution (`top_k`, `top_p`, …); `warn` allows these and never stops; `off` does not measure.
        agreement_warn (`float`, *optional*):
            Mean difference in nats a token beyond which the log warns; by default 1e-4 in float32, 1e-2 in float16 and
            TF32, 5e-2 in bfloat16 and with quantised weights.
        agreement_stop (`float`, *optional*):
            The same beyond which the run stops; by default 1e-3, 1e-1 and 2e-1.
        causal_probe_steps (`int`, defaults to `100`):
            Steps between two probes whether media move the scores, see [`~omni_grpo.scoring.probe.CausalProbe`]; the first
            is at the start. 0 for none.
    """

    agreement: Literal["stop", "warn", "off"] = "stop"
    agreement_warn: float | None = None
    agreement_stop: float | None = None
    causal_probe_steps: int = 100

    def check_agreement(self) -> None:
        """
        Raises:
            `ValueError`: A field that cannot be, or sampling that cannot agree; the message names what to set.
        """
        self.agreement = word(self.agreement, AGREEMENT, "agreement")
        for name in ("agreement_warn", "agreement_stop"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name}: must be more than 0, got {value}")
        if self.causal_probe_steps < 0:
            raise ValueError(f"causal_probe_steps: must not be negative, got {self.causal_probe_steps}")
        args: Any = self
        as_mapping(args.generation_kwargs or {}, "generation_kwargs")
        corrected = args.use_vllm and args.vllm_importance_sampling_correction
        if self.agreement == "stop" and not corrected and (bent := bent_by(args)):
            raise ValueError(
                f"{bent}: samples from another distribution than the one that is scored, and nothing corrects the "
                "difference; take it out, or set `agreement: warn` to train with it all the same"
            )
