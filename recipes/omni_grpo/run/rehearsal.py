# SPDX-License-Identifier: Apache-2.0
"""A rehearsal is the run itself, in a folder that is gone when the process ends; of it a report remains, beside `output_dir`.

Standard library and PyYAML alone: it is the first that an entry script looks at.
"""

from __future__ import annotations

import atexit
import json
import shutil
from pathlib import Path

from omni_grpo.run.reward_settings import read_settings
from omni_grpo.run.run_lock import hold
from omni_grpo.run.scripts import is_main_process
from omni_grpo.run.stages import RECORD, read_fields

# A run from its beginning that tells nobody, and logs each step.
_ALONE = {"report_to": "none", "logging_strategy": "steps", "logging_steps": "1"} | dict.fromkeys(
    ("resume_from_checkpoint", "eval_on_start", "push_to_hub", "log_completions"), "false"
)


def rehearsed(argv: list[str]) -> list[str]:
    """
    `argv` as it is; with `rehearse` in it or in its config, so that all that the run writes lies in `<output_dir>.rehearsal`,
    which is deleted when this process ends. What a rehearsal that was killed left there goes now.

    Raises:
        `ValueError`: Another rehearsal is at work there, or something else has that name.
    """
    fields = read_fields(argv)
    if fields.get("rehearse") is None or not fields.get("output_dir"):
        return argv
    folder = Path(fields["output_dir"])
    folder = folder.with_name(f"{folder.name}.rehearsal")
    if is_main_process():
        _take(folder)
    changed = {**_ALONE, "output_dir": str(folder), "decode_cache": str(folder / "decode_cache")}
    if fields.get("media_feature_cache"):
        changed["media_feature_cache"] = str(folder / "media_feature_cache")
    if settings := read_settings(fields.get("reward_settings")):
        for judge in (values.get("judge") for values in settings.values()):
            if isinstance(judge, dict) and judge.get("cache_dir") and not judge.get("replay"):
                judge["cache_dir"] = str(folder / "judged")
        changed["reward_settings"] = json.dumps(settings)
    return [*argv, *(part for name, value in changed.items() for part in (f"--{name}", value))]


def _take(folder: Path) -> None:
    hold(folder)
    if folder.exists() and not (folder / RECORD).is_file():
        raise ValueError(
            f"rehearse: {folder} is no rehearsal's, and would be deleted; move it, or name another output_dir"
        )
    shutil.rmtree(folder, ignore_errors=True)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
