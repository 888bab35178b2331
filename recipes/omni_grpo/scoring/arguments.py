# SPDX-License-Identifier: Apache-2.0
"""Fields of a run that say what is computed once: prompts, media, and what frozen towers made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omni_grpo.run.construct import word

SHARE_PROMPT = ("auto", "off", "verify")
SHARE_MEDIA = ("auto", "off")


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
