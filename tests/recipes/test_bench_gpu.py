# SPDX-License-Identifier: Apache-2.0
"""`make bench-gpu` on a tiny model and the CPU; what it counts, against what torch counts."""

from __future__ import annotations

import json

import bench_gpu
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omni_7b import depth_that_fits, omni_7b_config
from torch.utils.flop_counter import FlopCounterMode
from update_flops import linear_parameters, update_flops, visible_pairs

from omni_grpo.families import base_of
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.scoring.packed_attention import PackedGroup, PackedLayout


def test_without_a_gpu_it_says_so_and_fails(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench_gpu.main([]) == 2
    assert "no CUDA device here" in capsys.readouterr().err
    assert bench_gpu.main(["--device", "cpu"]) == 2
    assert "add --tiny" in capsys.readouterr().err


def test_every_path_runs_on_a_tiny_model(capsys):
    assert bench_gpu.main(["--device", "cpu", "--tiny", "--rounds", "1"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    told = [(row["training"], row["work"], row["path"]) for row in rows]
    assert told == [
        (training, work, path)
        for training in ("LoRA", "full")
        for work, baseline in (("image", "stock TRL"), ("video and audio", "plain"))
        for path in (baseline, "SDPA blocks")
    ]
    for plain, ours in zip(rows[::2], rows[1::2], strict=True):
        assert (plain["prompt"], plain["completion"], plain["group"]) == (
            ours["prompt"],
            ours["completion"],
            ours["group"],
        )
        assert ours["computed_tokens"] < plain["computed_tokens"] == 2 * (plain["prompt"] + plain["completion"])
        assert ours["losses"][0] == pytest.approx(plain["losses"][0], abs=0.02), "bfloat16"


def test_the_configuration_is_the_published_one(tiny):
    """As many weights as the released checkpoint's language model has, 7.6 billion, and its tower of 0.68."""
    config = omni_7b_config(load_processor(tiny))
    text = config.text_config
    ends = 2 * text.vocab_size * text.hidden_size
    assert text.num_hidden_layers * linear_parameters(text) + ends == pytest.approx(7.615e9, rel=1e-3)
    vision = config.vision_config
    layer = 4 * vision.hidden_size**2 + 3 * vision.hidden_size * vision.intermediate_size
    assert vision.depth * layer == pytest.approx(0.63e9, rel=0.01)
    assert omni_7b_config(load_processor(tiny), 3).text_config.num_hidden_layers == 3
    assert depth_that_fits(text, 10**9) == 1 and depth_that_fits(text, 10**12) == 28


@given(prompt=st.integers(0, 12), completion=st.integers(1, 6), group=st.integers(1, 4))
def test_pairs_are_those_of_the_mask(prompt, completion, group):
    layout = PackedLayout((PackedGroup(prompt, (completion,) * group),))
    places = torch.arange(layout.size)
    seen = layout.sees()(0, 0, places[:, None], places[None])
    assert visible_pairs(prompt, completion, group, is_packed=True) == int(seen.sum())
    row = prompt + completion
    assert visible_pairs(prompt, completion, group, is_packed=False) == group * row * (row + 1) // 2


def test_matrices_are_counted_as_torch_counts_them(tiny):
    """Forward and backward of the decoder over one row, attention's own products left out of both."""
    model = base_of(load_model(tiny)).language_model
    config, tokens = model.config, 24
    embeds = torch.randn(1, tokens, config.hidden_size, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        model(inputs_embeds=embeds).last_hidden_state.sum().backward()
    counts = counter.get_flop_counts()["Global"]
    matrices = sum(n for op, n in counts.items() if "mm" in str(op) and "bmm" not in str(op))
    needed = update_flops(config, tokens - 1, 1, 1, is_packed=True, trains_all=True)["flops"]
    heads = config.num_attention_heads * (config.hidden_size // config.num_attention_heads)
    attention = 3 * 4 * config.num_hidden_layers * heads * visible_pairs(tokens - 1, 1, 1, is_packed=True)
    head = 3 * 2 * config.hidden_size * config.vocab_size
    assert matrices == needed - attention - head
