# SPDX-License-Identifier: Apache-2.0
"""What a model does to its logits, in the head that scores what constrained decoding has sampled."""

from __future__ import annotations

import pytest
import torch
from transformers import GraniteConfig, GraniteForCausalLM

from omni_grpo.rollout.constrained.head import add_constrained_head
from tiny_families import FAMILIES

TEMPERATURE = 0.7


def test_a_cap_on_the_logits_is_kept_to():
    """
    Over all tokens and over half of them, against the model's own logits; logits are as large as the cap. Mutant: the cap
    left out, as in a configuration without one.
    """
    model = FAMILIES["gemma4"].build()[1].eval()
    text = model.config.get_text_config()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(200)
    ids = torch.randint(10, 200, (2, 12), generator=torch.Generator().manual_seed(0))
    sets = torch.ones(2, text.vocab_size, dtype=torch.bool)
    sets[1, ::2] = False
    index = torch.stack(
        [torch.zeros(11), ids[1, 1:] % 2]
    ).long()  # the second row's odd tokens are chosen among odd ones
    with torch.no_grad():
        logits = model(input_ids=ids).logits[:, :-1]
        own = (logits / TEMPERATURE).masked_fill(~sets[index], -torch.inf).log_softmax(-1)
        own = own.gather(-1, ids[:, 1:, None])[..., 0]
        assert logits.abs().max() > 0.9 * text.final_logit_softcapping
        add_constrained_head(model, TEMPERATURE)

        def scored() -> torch.Tensor:
            asked = {"labels": ids, "fused_lm_head": True, "allowed_sets": sets, "set_index": index}
            return model(input_ids=ids, **asked).log_probs

        torch.testing.assert_close(scored(), own)
        text.final_logit_softcapping = None
        assert (scored() - own).abs().max() > 1


def test_scaled_logits_are_refused():
    """Mutant: scored as they come out of the head, eight times too large."""
    sizes = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = GraniteConfig(**sizes, num_attention_heads=1, num_key_value_heads=1, logits_scaling=8.0)
    with pytest.raises(ValueError, match=r"GraniteForCausalLM scales its logits \(`logits_scaling`\)"):
        add_constrained_head(GraniteForCausalLM(config))
