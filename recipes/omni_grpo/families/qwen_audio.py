# SPDX-License-Identifier: Apache-2.0
"""Qwen2-Audio: sound alone. transformers gives it no `get_audio_features`, so its encoder is called here, as its forward does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.masking_utils import create_bidirectional_mask

from omni_grpo.families.family import Family


@dataclass(frozen=True)
class QwenAudio(Family):
    """Its encoder takes sounds of one length alone, padded to the longest that it knows."""

    def processor_kwargs(self, loaded, rates, sized, video_of_sound):
        return {}

    def encode(self, base, modality, media):
        mel, mask = (media[name] for name in self.inputs["audio"])
        frames, rows = base.audio_tower._get_feat_extract_output_lengths(mask.sum(-1))
        states = mel.new_zeros(len(mel), (mel.size(-1) - 2) // 2 + 1, 1)
        heard = torch.arange(states.size(1), device=mel.device) < frames[:, None]
        seen = create_bidirectional_mask(base.audio_tower.config, states, heard.long())
        encoded = base.audio_tower(mel.to(base.audio_tower.dtype), attention_mask=seen).last_hidden_state
        encoded = base.multi_modal_projector(encoded)
        return encoded[torch.arange(encoded.size(1), device=mel.device) < rows[:, None]]

    def smallest(self, base, modality):
        parameter, config = self.like_weights(base, modality), base.config.audio_config
        mel = parameter.new_zeros(1, config.num_mel_bins, 2 * config.max_source_positions)
        mask = (torch.arange(mel.size(-1), device=mel.device) < 4).long()[None]
        return dict(zip(self.inputs["audio"], (mel, mask), strict=True))


QWEN2_AUDIO = QwenAudio(
    model_types=("qwen2_audio",),
    model_class="Qwen2AudioForConditionalGeneration",
    processors=("Qwen2AudioProcessor",),
    inputs={"audio": ("input_features", "feature_attention_mask")},
    towers={"audio": ("audio_tower", "multi_modal_projector")},
    marks=("audio_bos_token", "audio_eos_token"),
)
