# SPDX-License-Identifier: Apache-2.0
"""Text alone: any causal language model of transformers, with its tokenizer in the place of a processor."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedTokenizerBase

from omni_grpo.families.family import Engine, Family


@dataclass(frozen=True)
class Text(Family):
    """No modality and no tower. Known by what it lacks: a configuration without parts for other than text."""

    def has_config(self, config):
        causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or "AutoModelForCausalLM" in (
            getattr(config, "auto_map", None) or ()
        )
        return causal and not config.sub_configs and not config.is_encoder_decoder

    def has_model(self, model):
        return hasattr(model, "config") and self.has_config(model.config)

    def has_processor(self, processor):
        return isinstance(processor, PreTrainedTokenizerBase)

    def content(self, parts):
        return "".join(part["text"] for part in parts)

    def process(self, processor, **given):  # the chat template has written the special tokens
        return {"input_ids": processor(given["text"], add_special_tokens=False, return_tensors="pt")["input_ids"]}


TEXT = Text(
    model_types=("any text-only causal language model",),
    model_class="AutoModelForCausalLM",
    processors=("a plain tokenizer",),
    language_layers="",
    engine=Engine(),
)
