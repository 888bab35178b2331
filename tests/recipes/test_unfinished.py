# SPDX-License-Identifier: Apache-2.0
"""A folder whose stage did not end is refused as a model, with what to do; each of the ways leads on."""

from __future__ import annotations

import re
import sys

import pytest

from omni_grpo import OmniSFTConfig, OmniSFTTrainer, PromptEncoder
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.run.scripts import begin, claim, save_final
from small_runs import SMALL_RUN


@pytest.fixture
def argv(tmp_path, monkeypatch):
    argv = ["--output_dir", str(tmp_path / "my run")]
    monkeypatch.setattr(sys, "argv", ["recipes/sft_omni.py", *argv])
    return argv


def train(tiny, settings, mixed, folder, steps):
    args = OmniSFTConfig(**SMALL_RUN | {"save_strategy": "steps"}, output_dir=folder, save_steps=1, max_steps=steps)
    trainer = OmniSFTTrainer(load_model(tiny), args, mixed, encoder=PromptEncoder(load_processor(tiny), settings))
    trainer.train()
    return trainer


@pytest.mark.parametrize("load", [load_processor, load_model])
def test_before_its_first_checkpoint(argv, load):
    """Mutants: transformers' "Unrecognized processing class"; the weights alone looked at, or the processor alone."""
    begin(claim(argv))
    with pytest.raises(ValueError) as error:
        load(argv[1])
    assert re.fullmatch(
        r".*my run holds no finished model: the stage `recipes/sft_omni\.py --output_dir '.*my run'` did not end; "
        r"run it again",
        str(error.value),
    )


def test_with_a_checkpoint_which_can_be_named_instead_and_after_the_end(tiny, settings, mixed, argv):
    """Mutant: a folder that holds a finished model refused, too."""
    stage = claim(argv)
    begin(stage)
    trainer = train(tiny, settings, mixed, argv[1], 2)
    for load in (load_processor, load_model):
        with pytest.raises(
            ValueError, match=r"did not end; run it again, it goes on from .*checkpoint-2, or name that"
        ):
            load(argv[1])
    checkpoint = re.search(r"goes on from (.*), or name", _refusal(argv[1]))[1]
    assert load_processor(checkpoint).chat_template == load_processor(tiny).chat_template
    assert load_model(checkpoint).num_parameters() == load_model(tiny).num_parameters()
    save_final(trainer, load_processor(tiny))
    with pytest.raises(ValueError, match="did not end"):  # it may be cut while it saves
        load_model(argv[1])
    stage.finish()
    assert load_model(argv[1]).num_parameters() == load_model(tiny).num_parameters() and load_processor(argv[1])


def _refusal(folder) -> str:
    try:
        load_model(folder)
    except ValueError as error:
        return str(error)
    raise AssertionError("loaded")
