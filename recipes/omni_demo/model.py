# SPDX-License-Identifier: Apache-2.0
"""The demo's model: the real Qwen2.5-Omni thinker, processor and chat template at about two million parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    WhisperFeatureExtractor,
    set_seed,
)

MEDIA_TOKENS = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# Qwen's turns and media marks; no default system turn, since prompts always bring their own.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}\
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}<|vision_bos|><|IMAGE|><|vision_eos|>
{%- elif part['type'] == 'video' -%}<|vision_bos|><|VIDEO|><|vision_eos|>
{%- elif part['type'] == 'audio' -%}<|audio_bos|><|AUDIO|><|audio_eos|>
{%- else -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}{% endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""


@dataclass(frozen=True)
class TinyOmniConfig:
    """
    Size of the model. The defaults are the demo's; tests use smaller ones.

    Args:
        width (`int`): Hidden size of the language model and of both towers.
        text_layers, vision_layers, audio_layers (`int`): Depths.
        image_size_px (`int`): Frames and images are brought to this many pixels a side, a multiple of 28.
        audio_seconds (`int`): Longest sound.
        hop_length (`int`): Samples between mel frames; 320 halves Whisper's rate and with it the audio tokens.
        vocab_size (`int`): Size of the byte-level BPE, special tokens included.
    """

    width: int = 128
    text_layers: int = 4
    vision_layers: int = 3
    audio_layers: int = 2
    heads: int = 4
    image_size_px: int = 84
    audio_seconds: int = 3
    hop_length: int = 320
    mel_bins: int = 80
    vocab_size: int = 768


def build_tokenizer(
    texts: Iterable[str], vocab_size: int, marks: Mapping[str, str] = MEDIA_TOKENS
) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on `texts`, with a family's marks of media as special tokens; Qwen2.5-Omni's if not said."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, START, END, *marks.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        extra_special_tokens=dict(marks),
        model_max_length=4096,
    )


def build_processor(tokenizer: PreTrainedTokenizerFast, config: TinyOmniConfig) -> Qwen2_5OmniProcessor:
    """The real processor around a small tokenizer, with small media."""
    size = {"shortest_edge": config.image_size_px**2, "longest_edge": config.image_size_px**2}
    return Qwen2_5OmniProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        video_processor=Qwen2VLVideoProcessor(size=size, min_frames=2),
        feature_extractor=WhisperFeatureExtractor(
            feature_size=config.mel_bins,
            chunk_length=config.audio_seconds,
            hop_length=config.hop_length,
            return_attention_mask=True,
        ),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )


def token_ids(tokenizer: Any) -> dict[str, int]:
    """The token ids that a thinker's configuration names, as this tokenizer has them."""
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in MEDIA_TOKENS.items()}
    return {
        "image_token_id": ids["image_token"],
        "audio_token_id": ids["audio_token"],
        "video_token_id": ids["video_token"],
        "vision_start_token_id": ids["vision_bos_token"],
        "vision_end_token_id": ids["vision_eos_token"],
        "audio_start_token_id": ids["audio_bos_token"],
        "audio_end_token_id": ids["audio_eos_token"],
        "pad_token_id": tokenizer.pad_token_id,
    }


def build_model(
    processor: Qwen2_5OmniProcessor, config: TinyOmniConfig, seed: int = 0
) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """A randomly initialised thinker for `processor`; the same seed gives the same weights."""
    tokenizer = processor.tokenizer
    head_dim = config.width // config.heads
    quarter = head_dim // 8
    fields: dict[str, Any] = {
        "text_config": {
            "vocab_size": len(tokenizer),
            "hidden_size": config.width,
            "intermediate_size": 4 * config.width,
            "num_hidden_layers": config.text_layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.heads // 2,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [head_dim // 2 - 2 * quarter, quarter, quarter],
            },
            "tie_word_embeddings": False,
        },
        "vision_config": {
            "depth": config.vision_layers,
            "hidden_size": config.width,
            "intermediate_size": 2 * config.width,
            "num_heads": config.heads,
            "out_hidden_size": config.width,
            "fullatt_block_indexes": list(range(config.vision_layers)),
        },
        "audio_config": {
            "d_model": config.width,
            "encoder_layers": config.audio_layers,
            "encoder_attention_heads": config.heads,
            "encoder_ffn_dim": 2 * config.width,
            "num_mel_bins": config.mel_bins,
            "output_dim": config.width,
            "n_window": 50,
        },
        **token_ids(tokenizer),
    }
    thinker = Qwen2_5OmniThinkerConfig(**fields)
    set_seed(seed)
    model = Qwen2_5OmniThinkerForConditionalGeneration(thinker)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def save_tiny_omni(
    directory: str | Path,
    texts: Iterable[str],
    config: TinyOmniConfig | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """
    Build tokenizer, processor and model and save them as an ordinary checkpoint directory.

    Args:
        directory (`str` or `Path`): Where to save.
        texts (iterable of `str`): What the tokenizer is trained on.
        config ([`TinyOmniConfig`], *optional*): Sizes.
        seed (`int`, defaults to `0`): Seed of the weights.
        dtype (`torch.dtype`): Type of the saved weights.
    """
    config = config or TinyOmniConfig()
    directory = Path(directory)
    processor = build_processor(build_tokenizer(texts, config.vocab_size), config)
    model: Any = build_model(processor, config, seed)
    model.to(dtype).save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory
