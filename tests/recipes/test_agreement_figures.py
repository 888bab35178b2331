# SPDX-License-Identifier: Apache-2.0
"""The figures of the meter and of the probe, by hand."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch

from omni_grpo.data.encoding.inputs import EncodedPrompt
from omni_grpo.rollout.record import Row
from omni_grpo.scoring.agreement import Agreement
from omni_grpo.scoring.probe import CausalProbe


class Alone:
    """An accelerator of one process, or of two whose rows are the same."""

    mixed_precision, device = "no", torch.device("cpu")

    def __init__(self, processes=1):
        self.processes = processes

    def gather(self, values):
        return values.repeat(self.processes, 1)

    def unwrap_model(self, model):
        return model


def rows_of(*logprobs, places=(0, 0, 1)):
    counts = ({"video": (2,)}, {}, {"audio": (1,), "video": (2,)})
    return [
        Row(f"r{i}", prompt=EncodedPrompt([1], lengths=n), completion_ids=[9] * 3, places=list(places), logprobs=given)
        for i, (given, n) in enumerate(zip(logprobs, counts, strict=False))
    ]


def measured(rows, logps, mask=None, ratio=None, processes=1, bf16=False, **fields):
    found = {}
    given = {"agreement": "stop", "agreement_warn": None, "agreement_stop": 10.0, **fields}
    policy = torch.nn.Linear(1, 1).to(torch.bfloat16 if bf16 else torch.float32)
    meter = Agreement(
        Alone(processes),
        policy,
        SimpleNamespace(**given),
        ("think", "answer"),
        lambda mode, name, v: found.update({name: v}),
    )
    logps = torch.tensor(logps)
    meter(rows, logps, torch.ones_like(logps) if mask is None else torch.tensor(mask), ratio)
    return {name.removeprefix("agreement/"): value for name, value in found.items()}


LOGPS = [[-1.0, -2.0, -3.0], [-1.0, -1.0, -1.0], [-4.0, -4.0, -4.0]]
SAMPLED = [[-1.5, -2.0, -2.9], [-1.0, -1.2, -1.0], [-4.0, -4.0, -3.0]]


@pytest.mark.parametrize("processes", [1, 2])
def test_the_figures_are_those_of_their_definitions(processes):
    found = measured(rows_of(*SAMPLED), LOGPS, processes=processes)
    delta = torch.tensor(LOGPS).double() - torch.tensor(SAMPLED).double()
    wanted = {
        "mean": delta.abs().mean(),
        "max": 1.0,
        "token_error": delta.abs().mean().exp(),
        "k3": (delta.exp() - 1 - delta).mean(),
        "section/think": delta[:, :2].abs().mean(),
        "section/answer": delta[:, 2].abs().mean(),
        "modality/audio": delta[2].abs().mean(),
        "modality/video": delta[[0, 2]].abs().mean(),
        "modality/text": delta[1].abs().mean(),
    }
    assert found == {name: pytest.approx(float(value), abs=1e-6) for name, value in wanted.items()}


def test_what_cannot_be_compared_is_left_out():
    """A tool's turn, a log-probability that the engine lacks, tokens that are not scored; with nothing, no figure."""
    rows = rows_of(SAMPLED[0], [-1.0], [None, -4.0, -3.0])
    found = measured(rows, LOGPS, mask=[[1, 1, 0], [1, 1, 1], [1, 1, 1]])
    assert found["mean"] == pytest.approx((0.5 + 0 + 0 + 1.0) / 4) and "modality/text" not in found
    assert measured(rows_of([-1.0], None), LOGPS[:2]) == {}


def test_a_correction_is_judged_by_what_it_leaves():
    """A ratio that corrects in full leaves nothing, cut it leaves the rest, and what is set to zero is not learnt from."""
    delta = torch.tensor(LOGPS) - torch.tensor(SAMPLED)
    for whole in (delta.exp(), delta.sum(dim=1, keepdim=True).exp()):
        assert measured(rows_of(*SAMPLED), LOGPS, ratio=whole, agreement_stop=1e-5)["corrected"] < 1e-6
    cut = delta.exp().clamp(max=1.2)
    left = (0.5 - math.log(1.2) + 0.2 - math.log(1.2)) / 9
    assert measured(rows_of(*SAMPLED), LOGPS, ratio=cut)["corrected"] == pytest.approx(left, abs=1e-6)
    rows = delta.sum(dim=1, keepdim=True).exp() * torch.tensor([[1.0], [0.0], [2.0]])
    assert measured(rows_of(*SAMPLED), LOGPS, ratio=rows)["corrected"] == pytest.approx(
        math.log(2) * 3 / 3 / 6, abs=1e-6
    )
    with pytest.raises(RuntimeError, match=r"agreement_stop is 0\.01"):
        measured(rows_of(*SAMPLED), LOGPS, ratio=cut, agreement_stop=0.01)


def test_limits_warn_then_stop_by_precision(caplog):
    def apart(by, **more):
        sampled = [[value + by for value in row] for row in LOGPS]
        caplog.clear()
        measured(rows_of(*sampled), LOGPS, agreement_stop=None, **more)
        return "agreement_warn" in caplog.text

    assert not apart(5e-5) and apart(5e-4) and not apart(4e-2, bf16=True) and apart(0.1, bf16=True)
    assert not apart(5e-5, agreement_warn=1e-4) and apart(5e-5, agreement_warn=1e-5)
    for by, bf16 in ((2e-3, False), (0.3, True)):
        assert not apart(by, bf16=bf16, agreement="warn")
        with pytest.raises(RuntimeError, match="agreement_stop"):
            apart(by, bf16=bf16)


def test_the_probe_takes_a_row_that_can_move_and_judges_no_other():
    family = SimpleNamespace(modalities=("video",), inputs={"video": ("pixels", "grid")})
    rows = rows_of(SAMPLED[0], [-9.0] * 3, SAMPLED[2])
    for row in rows:
        if row.prompt.lengths:
            row.prompt = dataclasses.replace(row.prompt, media={"pixels": torch.ones(2)})
    asked, found = [], []

    def score(moves, scale=1.0):
        def scored(prompts, completions):
            asked.append(prompts)
            return torch.tensor([LOGPS[0], LOGPS[0]]) * scale + torch.tensor([[0.0], [moves]])

        return scored

    def probe(score):
        return CausalProbe(Alone(2), family, 3, score, lambda *told: found.append(told))

    row, logps = probe(score(0.5))(rows, 0)
    assert row is rows[2] and logps.shape == (1, 3), "the one with media of which the sampler was least certain"
    assert found == [("train", "agreement/causal_probe", 0.5)]
    assert asked[0][0].identity != asked[0][1].identity, "else they would be packed as one prompt"
    with pytest.raises(RuntimeError, match="'r2'"):
        probe(score(0.0))(rows, 0)
    probe(score(0.0, scale=0.0))(rows, 0)  # probabilities of 1: nothing can move
    text = probe(score(0.0))
    assert text(rows[1:2], 0) is not None and text(rows[1:2], 1) is not None, "until there is a row with media"
    assert len(found) == 2, "of the two that were judged"
