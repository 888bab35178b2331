# SPDX-License-Identifier: Apache-2.0
"""The table of families: for each a tiny random model of its real architecture, with its real processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers as hf
from transformers import PreTrainedTokenizerFast, set_seed

from omni_demo.model import TinyOmniConfig, build_model, build_processor, build_tokenizer
from omni_grpo.data.media.settings import MediaSettings

WIDTH = 32
TEXTS = [
    "<context>The face looks happy. The voice sounds angry.</context>"
    "<think>They do not agree.</think><answer>no</answer>",
    "Does the voice agree with the face? Answer yes or no. Look, listen, think. <0.1 seconds>",
]
VISION_MARKS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
OMNI_MARKS = {
    "image_token": "<|image_pad|>",
    "audio_token": "<|audio_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
    "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
}
IMAGE, VIDEO = (f"<|vision_start|><|{kind}_pad|><|vision_end|>" for kind in ("image", "video"))
SOUND = "<|audio_start|><|audio_pad|><|audio_end|>"


@dataclass(frozen=True)
class TinyFamily:
    """
    A line of the table.

    Args:
        build (`Callable`): Gives a processor and a model.
        modalities (`tuple[str, ...]`): What a prompt may show.
        side (`int`): Pixels of a picture's side.
        mutants (`tuple[str, ...]`): What is broken on purpose, for the oracle to find.
        linears (`int`): Linear layers of the language model that LoRA adapts, routed experts not among them.
        experts (`bool`): Whether tokens are routed to experts.
        packs (`bool`): Whether completions of a prompt can be scored in one row.
        frames (`int`): Of a video.
        interleaved (`bool`): Whether a video's sound stands between its frames.
        relative (`float`): How far off a gradient may be, of its largest entry.
    """

    build: Callable[..., tuple[Any, Any]]
    modalities: tuple[str, ...]
    side: int
    mutants: tuple[str, ...]
    linears: int
    experts: bool = False
    packs: bool = True
    relative: float = 1e-4
    frames: int = 4
    interleaved: bool = False


def tokenizer(marks: Mapping[str, str], vocab_size: int = 420) -> PreTrainedTokenizerFast:
    """A byte-level BPE with a family's marks of media."""
    return build_tokenizer(TEXTS, vocab_size, marks)


def chat_template(image: str = "", video: str = "", audio: str = "") -> str:
    """Turns and parts as Qwen's templates write them, with what stands for each medium."""
    shown = "".join(
        "{%- " + ("elif" if i else "if") + f" part['type'] == '{kind}' -%}}{mark}"
        for i, (kind, mark) in enumerate({"image": image, "video": video, "audio": audio}.items())
    )
    return (
        "{%- for message in messages -%}\n<|im_start|>{{ message['role'] }}{{ '\\n' }}"
        "{%- if message['content'] is string %}{{ message['content'] }}"
        "{%- else %}{%- for part in message['content'] -%}"
        f"{shown}{{%- else -%}}{{{{ part['text'] }}}}{{%- endif -%}}{{%- endfor -%}}{{%- endif %}}"
        "<|im_end|>{{ '\\n' }}{%- endfor -%}"
        "{%- if add_generation_prompt -%}<|im_start|>assistant{{ '\\n' }}{%- endif -%}"
    )


def square(side: int) -> dict[str, int]:
    return {"shortest_edge": side * side, "longest_edge": side * side}


def rope(head: int, **more: Any) -> dict[str, Any]:
    quarter = head // 8
    sections = [head // 2 - 2 * quarter, quarter, quarter]
    return {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": sections, **more}


def text_config(tok: Any, layers: int = 3, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tok),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 4096,
        "rope_parameters": rope(8),
        "pad_token_id": tok.pad_token_id,
        "eos_token_id": tok.eos_token_id,
        "bos_token_id": None,
        **more,
    }


def vision_config(**more: Any) -> dict[str, Any]:
    sizes = {"depth": 2, "hidden_size": WIDTH, "intermediate_size": WIDTH, "num_heads": 4, "out_hidden_size": WIDTH}
    return sizes | more


DEEPSTACK = {"depth": 3, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
EXPERTS = {"moe_intermediate_size": 16, "num_experts": 8, "num_experts_per_tok": 2}


def ids_of(tok: Any, **names: str) -> dict[str, int]:
    return {name: tok.convert_tokens_to_ids(token) for name, token in names.items()}


VISION_IDS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
}


def seeded(model_class: str, config: Any, tok: Any) -> Any:
    """A model with weights that are the same each time, and the tokens that end and pad."""
    set_seed(0)
    model = getattr(hf, model_class)(config)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = tok.eos_token_id, tok.pad_token_id
    return model


def qwen2_5_omni() -> tuple[Any, Any]:
    config = TinyOmniConfig(width=32, text_layers=3, vision_layers=1, audio_layers=1, image_size_px=56, vocab_size=420)
    processor = build_processor(build_tokenizer(TEXTS, config.vocab_size), config)
    return processor, build_model(processor, config)


def qwen3_omni() -> tuple[Any, Any]:
    tok = tokenizer(OMNI_MARKS)
    processor = hf.Qwen3OmniMoeProcessor(
        image_processor=hf.Qwen2VLImageProcessor(size=square(64), patch_size=16),
        video_processor=hf.Qwen2VLVideoProcessor(size=square(64), patch_size=16, min_frames=2),
        feature_extractor=hf.WhisperFeatureExtractor(feature_size=128, chunk_length=3, return_attention_mask=True),
        tokenizer=tok,
        chat_template=chat_template(IMAGE, VIDEO, SOUND),
    )
    config = hf.Qwen3OmniMoeThinkerConfig(
        text_config=text_config(tok, rope_parameters=rope(8, mrope_interleaved=True), **EXPERTS),
        vision_config=vision_config(**DEEPSTACK),
        audio_config={
            "d_model": WIDTH,
            "encoder_layers": 1,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": WIDTH,
            "num_mel_bins": 128,
            "output_dim": WIDTH,
            "downsample_hidden_size": 8,
        },
        **ids_of(tok, **VISION_IDS, audio_token_id="<|audio_pad|>", audio_start_token_id="<|audio_start|>"),
    )
    return processor, seeded("Qwen3OmniMoeThinkerForConditionalGeneration", config, tok)


def qwen2_5_vl(window: int | None = None) -> tuple[Any, Any]:
    tok = tokenizer(VISION_MARKS)
    processor = hf.Qwen2_5_VLProcessor(
        image_processor=hf.Qwen2VLImageProcessor(size=square(56)),
        video_processor=hf.Qwen2VLVideoProcessor(size=square(56), min_frames=2),
        tokenizer=tok,
        chat_template=chat_template(IMAGE, VIDEO),
    )
    sliding = {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 1} if window else {}
    config = hf.Qwen2_5_VLConfig(
        text_config=text_config(tok, **sliding),
        vision_config=vision_config(fullatt_block_indexes=[1]),
        **ids_of(tok, **VISION_IDS, vision_end_token_id="<|vision_end|>"),
    )
    return processor, seeded("Qwen2_5_VLForConditionalGeneration", config, tok)


def qwen3_vl_processor(tok: Any) -> Any:
    return hf.Qwen3VLProcessor(
        image_processor=hf.Qwen2VLImageProcessor(size=square(64), patch_size=16),
        video_processor=hf.Qwen3VLVideoProcessor(size=square(64), min_frames=2),
        tokenizer=tok,
        chat_template=chat_template(IMAGE, VIDEO),
    )


def qwen3_vl(experts: bool = False) -> tuple[Any, Any]:
    tok = tokenizer(VISION_MARKS)
    kind = "Moe" if experts else ""
    config = getattr(hf, f"Qwen3VL{kind}Config")(
        text_config=text_config(tok, rope_parameters=rope(8, mrope_interleaved=True), **(EXPERTS if experts else {})),
        vision_config=vision_config(**DEEPSTACK),
        **ids_of(tok, **VISION_IDS, vision_end_token_id="<|vision_end|>"),
    )
    return qwen3_vl_processor(tok), seeded(f"Qwen3VL{kind}ForConditionalGeneration", config, tok)


def qwen3_5() -> tuple[Any, Any]:
    tok = tokenizer(VISION_MARKS)
    linear = {f"linear_{name}_head_dim": 8 for name in ("key", "value")}
    linear |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "head_dim": 16}
    rotary = {"mrope_section": [1, 1, 0], "mrope_interleaved": True, "partial_rotary_factor": 0.25}
    config = hf.Qwen3_5Config(
        text_config=text_config(tok, layers=4, rope_parameters=rope(16, **rotary), **linear),
        vision_config=vision_config(num_position_embeddings=64),
        **ids_of(tok, **VISION_IDS, vision_end_token_id="<|vision_end|>"),
    )
    return qwen3_vl_processor(tok), seeded("Qwen3_5ForConditionalGeneration", config, tok)


GEMMA_MARKS = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}


def gemma4(experts: bool = False, **more: Any) -> tuple[Any, Any]:
    tok = tokenizer({**GEMMA_MARKS, "video_token": "<|video|>"})
    processor = hf.Gemma4Processor(
        feature_extractor=hf.Gemma4AudioFeatureExtractor(),
        image_processor=hf.Gemma4ImageProcessor(max_soft_tokens=70),
        video_processor=hf.Gemma4VideoProcessor(),
        tokenizer=tok,
        chat_template=chat_template("<|image|>", "<|video|>", "<|audio|>"),
    )
    if experts:
        more |= {"enable_moe_block": True, "num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 16}
    vision = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 4}
    names = {"boi": "<|image>", "eoi": "<image|>", "boa": "<|audio>"}
    sizes = {
        "global_head_dim": 16,
        "sliding_window": 24,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "vocab_size_per_layer_input": len(tok),
        "hidden_size_per_layer_input": 8,
        "num_kv_shared_layers": 2,
        "final_logit_softcapping": 30.0,
        **more,
    }
    config = hf.Gemma4Config(
        text_config={k: v for k, v in text_config(tok, layers=4, **sizes).items() if k != "rope_parameters"},
        vision_config={**vision, "num_key_value_heads": 4, "head_dim": 8, "position_embedding_size": 64},
        audio_config={
            "hidden_size": WIDTH,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "subsampling_conv_channels": [128, 4],
            "output_proj_dims": WIDTH,
        },
        eoa_token_index=tok.convert_tokens_to_ids("<audio|>"),
        **ids_of(tok, image_token_id="<|image|>", video_token_id="<|video|>", audio_token_id="<|audio|>"),
        **ids_of(tok, **{f"{name}_token_id": token for name, token in names.items()}),
    )
    return processor, seeded("Gemma4ForConditionalGeneration", config, tok)


def qwen2_audio() -> tuple[Any, Any]:
    tok = tokenizer({name: mark for name, mark in OMNI_MARKS.items() if name.startswith("audio")})
    processor = hf.Qwen2AudioProcessor(
        feature_extractor=hf.WhisperFeatureExtractor(feature_size=128, chunk_length=3, return_attention_mask=True),
        tokenizer=tok,
        chat_template=chat_template(audio=SOUND),
        audio_token="<|audio_pad|>",
        audio_bos_token="<|audio_start|>",
        audio_eos_token="<|audio_end|>",
    )
    text = {k: v for k, v in text_config(tok).items() if k not in ("head_dim", "rope_parameters")}
    config = hf.Qwen2AudioConfig(
        text_config={"model_type": "qwen2", **text},
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "d_model": WIDTH,
            "encoder_layers": 1,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": WIDTH,
            "num_mel_bins": 128,
            "max_source_positions": 150,
        },
        audio_token_index=tok.convert_tokens_to_ids("<|audio_pad|>"),
    )
    return processor, seeded("Qwen2AudioForConditionalGeneration", config, tok)


OMNI, VISION = ("image", "video", "audio"), ("image", "video")
ALWAYS = ("positions", "another item")

# One line a family. `linears`: 3 layers with q, k, v, o and, where they are no experts, gate, up, down.
FAMILIES = {
    "qwen2_5_omni": TinyFamily(qwen2_5_omni, OMNI, 56, ALWAYS, 21),
    "qwen3_omni": TinyFamily(qwen3_omni, OMNI, 64, (*ALWAYS, "deepstack"), 12, experts=True),
    "qwen2_5_omni-interleaved": TinyFamily(qwen2_5_omni, OMNI, 56, ("positions",), 21, interleaved=True),
    "qwen3_omni-interleaved": TinyFamily(qwen3_omni, OMNI, 64, ("positions",), 12, interleaved=True),
    "qwen2_5_vl": TinyFamily(qwen2_5_vl, VISION, 56, (*ALWAYS, "token types"), 21),
    "qwen2_5_vl-sliding": TinyFamily(lambda: qwen2_5_vl(window=12), VISION, 56, (*ALWAYS, "window"), 21),
    "qwen3_vl": TinyFamily(qwen3_vl, VISION, 64, (*ALWAYS, "deepstack", "token types"), 21),
    "qwen3_vl_moe": TinyFamily(lambda: qwen3_vl(experts=True), VISION, 64, (*ALWAYS, "deepstack"), 12, experts=True),
    "qwen3_5": TinyFamily(qwen3_5, VISION, 64, ("another item", "token types"), 16, packs=False, relative=2e-3),
    "qwen2_audio": TinyFamily(qwen2_audio, ("audio",), 28, ("positions",), 21),
    "gemma4": TinyFamily(gemma4, OMNI, 48, (*ALWAYS, "window"), 24, frames=2),
    "gemma4_moe": TinyFamily(
        lambda: gemma4(experts=True), OMNI, 48, ("positions", "window"), 24, relative=2e-4, frames=2, experts=True
    ),
    "gemma4-bidirectional": TinyFamily(
        lambda: gemma4(use_bidirectional_attention="vision"), OMNI, 48, ("window", "token types"), 24, frames=2
    ),
}


def save_tiny(name: str, folder: Path) -> str:
    """A family's model and processor as an ordinary checkpoint directory."""
    processor, model = FAMILIES[name].build()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def media_settings(name: str, **more) -> MediaSettings:
    """As small as honest media get: few frames, pictures of one size."""
    family = FAMILIES[name]
    more |= {"num_frames": family.frames, "load_audio_from_video": family.interleaved}
    return MediaSettings(min_pixels=family.side**2, max_pixels=family.side**2, max_audio_seconds=3.0, **more)
