# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of weights alone is no place to go on from: without optimiser, schedule and random state it is another run."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import yaml

from omni_grpo.run.log_file import LogFile
from small_runs import SCRIPT_RUN

RUN = {
    **SCRIPT_RUN,
    "logging_steps": 1,
    "save_steps": 2,
    "per_device_train_batch_size": 4,
    "max_steps": 4,
}
RL = {"reward_funcs": ["killed_run.letters_reward"], "num_generations": 2, "max_completion_length": 6}


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("script", ["sft_omni", "grpo_omni"])
def test_a_cut_run_is_not_gone_on_with_and_the_remedy_begins_one(
    tiny, mixed_file, tmp_path, monkeypatch, script, lora
):
    """Mutant: upstream's way, which starts the schedule anew in the middle of a run and says nothing."""
    fields = {"model_name_or_path": tiny, "train_file": str(mixed_file), "output_dir": str(tmp_path / "run")}
    fields |= RUN | (RL if script == "grpo_omni" else {}) | {"use_peft": lora, "save_only_model": True}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(fields))
    main, argv = import_module(script).main, ["--config", str(tmp_path / "run.yaml")]

    def cut(self, args, state, control, logs=None, **kwargs):
        if state.global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LogFile, "on_log", cut)
        main(argv)
    checkpoint = str(tmp_path / "run" / "checkpoint-2")
    with pytest.raises(ValueError, match=rf"^{checkpoint} was saved with `save_only_model: true`") as refused:
        main(argv)
    remedy = str(refused.value).rpartition("`--")[2].rstrip("`")
    assert f"--{remedy}".split() == ["--model_name_or_path", checkpoint, "--output_dir", "ANOTHER"]
    main([*argv, *f"--{remedy}".replace("ANOTHER", str(tmp_path / "other")).split()])
    assert list(Path(tmp_path / "other").glob("*model.safetensors"))
