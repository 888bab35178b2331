# SPDX-License-Identifier: Apache-2.0
"""Qwen2.5-Omni-7B's thinker with random weights, and a processor for it that needs no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

from omni_demo.model import TinyOmniConfig, build_model, build_processor, build_tokenizer, token_ids

TINY = TinyOmniConfig(width=32, text_layers=2, vision_layers=1, audio_layers=1, image_size_px=112, vocab_size=400)
# The real features: 128 mel bins a 10 ms, 25 audio tokens a second.
REAL = TinyOmniConfig(mel_bins=128, hop_length=160, audio_seconds=60, image_size_px=56, vocab_size=1024)


def save_processor(folder: Path, texts: list[str], sizes: TinyOmniConfig) -> Any:
    """The real processor around a small tokenizer, saved in `folder`."""
    processor = build_processor(build_tokenizer(texts, sizes.vocab_size), sizes)
    processor.save_pretrained(folder)
    return processor


def omni_7b_config(processor: Any, text_layers: int | None = None) -> Qwen2_5OmniThinkerConfig:
    """
    The published thinker's configuration, with the token ids of `processor`.

    transformers' defaults are the published ones, but for three: the vision tower is 1,280 wide (default 3,584),
    positions have three parts, and the head has weights of its own.

    Args:
        processor (`ProcessorMixin`): Its tokenizer knows the media tokens; the vocabulary stays 152,064.
        text_layers (`int`, *optional*): Decoder layers, 28 if not given.
    """
    rope = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]}
    text: dict[str, Any] = {"rope_parameters": rope, "tie_word_embeddings": False}
    if text_layers is not None:
        text |= {
            "num_hidden_layers": text_layers,
            "max_window_layers": text_layers,
            "layer_types": ["full_attention"] * text_layers,
        }
    fields: dict[str, Any] = {
        "text_config": text,
        "vision_config": {"hidden_size": 1280},
        **token_ids(processor.tokenizer),
    }
    return Qwen2_5OmniThinkerConfig(**fields)


def build_thinker(processor: Any, device: str, is_tiny: bool, text_layers: int | None = None) -> Any:
    """A thinker with random weights in bfloat16; the same ones at each call."""
    if is_tiny:
        return build_model(processor, TINY).to(torch.bfloat16)
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2_5OmniThinkerForConditionalGeneration._from_config(
            omni_7b_config(processor, text_layers), dtype=torch.bfloat16
        )
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model


def depth_that_fits(config: Any, memory: int, share: float = 0.5) -> int:
    """
    Decoder layers that full fine-tuning leaves room for: weights, gradients and two moments of AdamW in bfloat16, 8 bytes
    a parameter, in `share` of the device's `memory` in bytes; at least 1, at most all.

    >>> from types import SimpleNamespace
    >>> config = SimpleNamespace(hidden_size=3584, intermediate_size=18944, num_attention_heads=28,
    ...                          num_key_value_heads=4, num_hidden_layers=28, vocab_size=152064)
    >>> depth_that_fits(config, 80 * 2**30)
    16
    """
    from update_flops import linear_parameters

    ends = 2 * config.vocab_size * config.hidden_size  # embeddings and head
    left = memory * share / 8 - ends
    return max(1, min(config.num_hidden_layers, int(left // linear_parameters(config))))
