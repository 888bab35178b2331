# SPDX-License-Identifier: Apache-2.0
"""Tiny causal language models of text alone, with a tokenizer that is trained on the spot."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SIZE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
KINDS = {
    "qwen3": ("Qwen3", {"num_key_value_heads": 1, "head_dim": 8}),
    "llama": ("Llama", {"num_key_value_heads": 1}),
    "smollm3": ("SmolLM3", {"num_key_value_heads": 1}),
}
TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if brief %}Brief: {% endif %}{% endif %}"
)


def tiny_text(folder: Path, texts: list[str], kind: str = "qwen3", pad: str | None = "<|pad|>") -> str:
    """Directory of a tiny model of a `kind`; with `pad` `None` its tokenizer has none, as many have not."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>", *([pad] if pad else [])]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet)
    )
    names = {"eos_token": "<|im_end|>", "pad_token": pad, "chat_template": TEMPLATE}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    name, more = KINDS[kind]
    ids = {"eos_token_id": fast.eos_token_id, "bos_token_id": None, "pad_token_id": fast.pad_token_id}
    config = getattr(transformers, f"{name}Config")(
        vocab_size=len(fast), max_position_embeddings=256, **SIZE, **more, **ids
    )
    torch.manual_seed(0)
    getattr(transformers, f"{name}ForCausalLM")(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return str(folder)
