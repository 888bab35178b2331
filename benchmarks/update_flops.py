# SPDX-License-Identifier: Apache-2.0
"""Floating-point operations that one update of a language model needs, from its configuration alone."""

from __future__ import annotations

from typing import Any


def linear_parameters(config: Any) -> int:
    """Weights of the matrices in one decoder layer (attention and MLP), biases left out."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 2 * config.hidden_size * head * (config.num_attention_heads + config.num_key_value_heads)
    return attention + 3 * config.hidden_size * config.intermediate_size


def visible_pairs(prompt: int, completion: int, group: int, is_packed: bool) -> int:
    """
    Pairs of a token and one that it sees, over a prompt's completions.

    >>> visible_pairs(2, 1, 3, is_packed=False)  # 3 rows of 1 + 2 + 3
    18
    >>> visible_pairs(2, 1, 3, is_packed=True)  # the prompt's 1 + 2 once
    12
    """
    own = group * (completion * prompt + completion * (completion + 1) // 2)
    return own + (1 if is_packed else group) * (prompt * (prompt + 1) // 2)


def update_flops(
    config: Any, prompt: int, completion: int, group: int, *, is_packed: bool, trains_all: bool
) -> dict[str, float]:
    """
    Operations of a forward and a backward pass of the language model; a multiply-add counts as two.

    $$F = k \\cdot 2 (N L W + G C H V) + 3 \\cdot 4 L A D \\sum_{pairs} 1$$

    with $$N$$ tokens (packed `P + G C`, plain `G (P + C)`), $$L$$ layers of $$W$$ matrix weights, hidden size $$H$$,
    vocabulary $$V$$ (completion tokens alone are scored), $$A$$ heads of size $$D$$; $$k = 3$$ where all weights train
    (forward, gradients of inputs, gradients of weights) and 2 with adapters, whose own share is left out. What gradient
    checkpointing computes again, the towers, norms and the optimiser are left out, too: this is the numerator of model
    FLOPs utilisation (MFU), not of hardware utilisation.

    Args:
        config (`PretrainedConfig`): Of the text model.
        prompt, completion, group (`int`): Tokens of a prompt, of each completion, and how many there are.
        is_packed (`bool`): Whether the prompt is computed once.
        trains_all (`bool`): Whether all weights train, or adapters.
    """
    tokens = (prompt if is_packed else group * prompt) + group * completion
    layers, times = config.num_hidden_layers, 3 if trains_all else 2
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    matrices = (
        tokens * layers * linear_parameters(config) + group * completion * config.hidden_size * config.vocab_size
    )
    attention = layers * config.num_attention_heads * head * visible_pairs(prompt, completion, group, is_packed)
    return {"tokens": tokens, "flops": float(times * 2 * matrices + 3 * 4 * attention)}
