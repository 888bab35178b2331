# SPDX-License-Identifier: Apache-2.0
"""Tiny causal language models of text alone, with a tokenizer that is trained on the spot."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SIZE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
GROUPED = {"num_key_value_heads": 1}
WINDOW = 6  # tokens that a sliding layer sees; prompts and completions are longer
KINDS = {
    "qwen3": ("Qwen3", {**GROUPED, "head_dim": 8}),
    "llama": ("Llama", GROUPED),
    "smollm3": ("SmolLM3", GROUPED),
    "gpt2": ("GPT2", {}),
    "mixture": ("Qwen3Moe", {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}),
    "mistral": ("Mistral", {**GROUPED, "sliding_window": WINDOW}),
    "gemma3": ("Gemma3", {**GROUPED, "head_dim": 8, "num_hidden_layers": 2, "sliding_window": WINDOW}),
    "bloom": ("Bloom", {"n_head": 2, "n_layer": 1}),
    "mamba": ("FalconMamba", {"state_size": 4}),
}
TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if brief %}Brief: {% endif %}{% endif %}"
)


def tiny_text(folder: Path, texts: list[str], kind: str = "qwen3", spread: float = 0.02) -> str:
    """Directory of a tiny model of a `kind`; with a `spread` of its weights as large as 0.3, attention matters."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>", "<|pad|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet)
    )
    if kind == "llama":  # whose tokenizer begins texts by itself; its chat template does, too
        begin = tokenizer.token_to_id("<|im_start|>")
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", begin)]
        )
    names = {"eos_token": "<|im_end|>", "pad_token": "<|pad|>", "chat_template": TEMPLATE}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    name, more = KINDS[kind]
    ids = {"eos_token_id": fast.eos_token_id, "bos_token_id": None, "pad_token_id": fast.pad_token_id}
    torch.manual_seed(0)
    cls = getattr(transformers, f"{name}ForCausalLM", None) or getattr(transformers, f"{name}LMHeadModel")
    config = cls.config_class(
        **{
            "vocab_size": len(fast),
            "max_position_embeddings": 1024,
            "initializer_range": spread,
            **SIZE,
            **more,
            **ids,
        }
    )
    cls(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return str(folder)


REMOTE = """
from transformers import LlamaConfig, LlamaForCausalLM

class RemoteConfig(LlamaConfig):
    model_type = "remote_text"

class RemoteForCausalLM(LlamaForCausalLM):
    config_class = RemoteConfig
"""


def with_own_code(folder: Path) -> str:
    """A Llama's directory, its code beside it, as a model that transformers does not know."""
    (folder / "remote.py").write_text(REMOTE)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "remote_text", "architectures": ["RemoteForCausalLM"]}
    config["auto_map"] = {"AutoConfig": "remote.RemoteConfig", "AutoModelForCausalLM": "remote.RemoteForCausalLM"}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)
