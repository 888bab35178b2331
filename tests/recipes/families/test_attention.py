# SPDX-License-Identifier: Apache-2.0
"""
The attentions of every family: FlexAttention in the language model scores as the family's own forward does, under SDPA;
the towers that hear keep to their windows under each. FlexAttention has no backward pass on a CPU and is not compiled here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pytest
import torch

from family_oracle import NATS, Oracle
from omni_grpo.families import base_of, family_of
from omni_grpo.families.gemma import Gemma4
from omni_grpo.model.loading import load_model
from omni_grpo.scoring.packed_attention import PackedLayout
from tiny_families import FAMILIES

WINDOWED = [name for name, family in FAMILIES.items() if "window" in family.mutants]


@pytest.fixture(autouse=True)
def uncompiled():
    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")


@pytest.fixture
def by_flex(make, monkeypatch):
    """A family's oracle, whose model is held to FlexAttention for as long as the test lasts."""

    def build(name: str):
        oracle = make(name)
        text = base_of(oracle.trainer.model).config.get_text_config()
        monkeypatch.setattr(text, "_attn_implementation", "flex_attention")
        return oracle

    return build


def apart(oracle: Oracle, share: bool = True) -> float:
    with torch.no_grad():
        return oracle.apart(oracle.scored(share))


@pytest.mark.parametrize("name", FAMILIES)
def test_flex_attention_scores_as_the_models_own_forward(by_flex, name):
    """Plain and packed. A family that cannot be packed is scored plainly both times."""
    oracle = by_flex(name)
    for share in (False, True):
        assert apart(oracle, share) <= NATS


@pytest.mark.parametrize("name", FAMILIES)
def test_flex_attention_samples_as_the_models_own_forward(by_flex, name):
    """Greedy, each prompt prefilled once. Mutant: a name of our own for it, under which Gemma 4 cuts the block mask."""
    oracle = by_flex(name)
    assert oracle.sampled() == oracle.tokens


def seeing_other_completions(self, device=None, rule=None, sees=PackedLayout.sees):
    """Every token of a group is the prompt's."""
    group, segment = PackedLayout.labels(self, device)
    whole = PackedLayout(self.groups)
    object.__setattr__(whole, "labels", lambda device=None: (group, torch.zeros_like(segment)))
    return sees(whole, device, rule)


def seeing_beyond_the_window(self, device=None, rule=None, sees=PackedLayout.sees):
    return sees(self, device)


@pytest.mark.parametrize(
    ("name", "mutant"),
    [(n, seeing_other_completions) for n, family in FAMILIES.items() if family.packs]
    + [(n, seeing_beyond_the_window) for n in WINDOWED],
)
def test_a_block_mask_that_shows_too_much_is_found(by_flex, monkeypatch, name, mutant):
    oracle = by_flex(name)
    monkeypatch.setattr(PackedLayout, "sees", mutant)
    assert apart(oracle) > 50 * NATS


@pytest.mark.parametrize("name", FAMILIES)
def test_flex_attention_is_the_language_models_alone(checkpoint, name):
    """Also where transformers does not offer it; the towers have what they have without it."""
    models = [load_model(checkpoint(name), attn_implementation=a) for a in (None, "flex_attention")]
    for usual, flexible in zip(*(base_of(model).named_modules() for model in models), strict=True):
        if hasattr(usual[1], "config"):
            is_text = usual[1].config is base_of(models[0]).config.get_text_config()
            expected = "flex_attention" if is_text else usual[1].config._attn_implementation
            assert flexible[1].config._attn_implementation == expected, usual[0]


@dataclass(frozen=True)
class Hearing:
    """
    Three sounds in mel frames, the first longer than a window of the tower, and what drops the window.

    Args:
        frames (`tuple[int, int, int]`): Of each.
        place (`str`): Module and name of the function that is replaced.
        dropped (`Callable`): Makes of that function one without windows.
        padded (`bool`): Whether all sounds are padded to the first, and the mask of the padding is the window.
    """

    frames: tuple[int, int, int]
    place: str
    dropped: Callable[..., Any]
    padded: bool = False


def one_window(starts: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda *args, **kwargs: starts(*args, **kwargs)[[0, -1]]


MODELS = "transformers.models"
HEARING = {
    "qwen2_5_omni": Hearing(
        (450, 120, 301),
        f"{MODELS}.qwen2_5_omni.modeling_qwen2_5_omni.get_audio_cu_seqlens",
        one_window,
    ),
    "qwen3_omni": Hearing(
        (1900, 120, 801),
        f"{MODELS}.qwen3_omni_moe.modeling_qwen3_omni_moe.get_audio_cu_seqlens",
        one_window,
    ),
    "qwen2_audio": Hearing(
        (300, 120, 201),
        "omni_grpo.families.qwen_audio.create_bidirectional_mask",
        lambda mask: lambda *args: None,
        padded=True,
    ),
    "gemma4": Hearing(
        (400, 120, 201),
        f"{MODELS}.gemma4.modeling_gemma4.sliding_window_mask_function",
        lambda window: lambda sides: lambda batch, head, query, key: key >= 0,
    ),
}


def heard(model: Any, attention: str, frames: tuple[int, ...], padded: bool, batched: bool) -> torch.Tensor:
    """States of sounds of noise in the order of `frames`, all in one call or each in its own."""
    family, base = family_of(model), base_of(model)
    if base.audio_tower._supports_sdpa:  # Gemma's attention is its own, and has no other
        base.audio_tower.config._attn_implementation = attention
    generator, items = torch.Generator().manual_seed(0), []
    for n in frames:
        bins = getattr(base.config.audio_config, "num_mel_bins", 128)
        mel = torch.randn(1, bins, max(frames) if padded else n, generator=generator)
        mask = (torch.arange(mel.size(-1)) < n).long()[None]
        if isinstance(family, Gemma4):
            mel, mask = mel.transpose(1, 2), mask.bool()
        items.append(dict(zip(family.inputs["audio"], (mel, mask), strict=True)))
    calls = [items] if batched else [[item] for item in items]
    with torch.no_grad():
        return torch.cat([family.encode(base, "audio", family.join(call, torch.device("cpu"))) for call in calls])


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex_attention"])
@pytest.mark.parametrize("name", HEARING)
def test_a_tower_hears_the_same_under_each_attention(checkpoint, monkeypatch, name, attention):
    """Sounds of unequal length beside each other, against each by itself. Mutant: the window dropped, one by one, too."""
    model, hearing = load_model(checkpoint(name)).eval(), HEARING[name]
    own = heard(model, "eager", hearing.frames, hearing.padded, batched=False)
    torch.testing.assert_close(heard(model, attention, hearing.frames, hearing.padded, batched=True), own)
    module, function = hearing.place.rsplit(".", 1)
    monkeypatch.setattr(hearing.place, hearing.dropped(getattr(import_module(module), function)))
    for batched in (False, True):
        wide = heard(model, attention, hearing.frames, hearing.padded, batched)
        assert (wide - own).abs().max() > 1e-3 * own.abs().max()
