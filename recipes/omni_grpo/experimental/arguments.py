# SPDX-License-Identifier: Apache-2.0
"""Fields of a run that reward what only somebody who saw and heard the media could write."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class GroundingArguments:
    """
    Grounding without a judge, a part of [`OmniGRPOConfig`].

    Args:
        context_gain_weight (`float`, *optional*):
            Weight of the reward `context_gain`, see [`~omni_grpo.experimental.context_gain.ContextGain`]; `reward_weights`
            do not name it. At 0 it is measured and logged, and moves nothing.
        context_gain_clip (`float`, *optional*, defaults to `2.0`):
            The gain is cut to ± this many nats a token; `null` for no limit.
        contrast_pairs (`bool`, defaults to `False`):
            Sample both rows of each `pair` in one generation batch, next to each other; see
            [`~omni_grpo.experimental.contrast.ContrastPairs`].
        contrast_weight (`float`, *optional*):
            Weight of the reward `contrast_reward`: an answer's own score times the share of its partner's completions
            that are right. Needs `contrast_pairs`.
    """

    context_gain_weight: float | None = None
    context_gain_clip: float | None = 2.0
    contrast_pairs: bool = False
    contrast_weight: float | None = None

    def check_grounding(self) -> None:
        """
        Hold the fields to what they may be.

        Raises:
            `ValueError`: A field that cannot be; the message names it.
        """
        for name in ("context_gain_weight", "contrast_weight"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name}: must be 0 or more, or null, got {value}")
        if self.context_gain_clip is not None and not self.context_gain_clip > 0:
            raise ValueError(f"context_gain_clip: must be above 0, or null, got {self.context_gain_clip}")
        if self.contrast_weight is not None and not self.contrast_pairs:
            raise ValueError(
                "contrast_weight: without `contrast_pairs: true` the rows of a pair seldom meet in one batch; set it"
            )
