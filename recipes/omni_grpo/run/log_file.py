# SPDX-License-Identifier: Apache-2.0
"""Log events as JSON lines, which the report draws; rollouts with media for wandb; and a clock that ends a run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from omni_grpo.data.media.playable import MAX_MEDIA_BYTES, media_kind, split_fragment


class LogFile(TrainerCallback):
    """
    Writes every log event as one JSON line.

    Args:
        path (`Path`): File to append to. A resumed run repeats the steps since its checkpoint; the last line counts.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


class StopAfter(TrainerCallback):
    """
    Ends training after a given wall time, at the end of a step; what runs then (a last save) comes on top.

    Args:
        seconds (`float`): Wall time since training began.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._start = time.monotonic()

    def on_train_begin(self, args, state, control, **kwargs):
        self._start = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        if time.monotonic() - self._start > self.seconds:
            control.should_training_stop = control.should_evaluate = control.should_save = True


def log_playable_table(columns: Mapping[str, Iterable[Any]], step: int, num_files: int) -> None:
    """
    Send the completions table to the running wandb run as `rollouts`, with a column each for video, audio and image.

    The first `num_files` distinct files of at most 8 MB go along, once each; wandb plays them in every row that names
    them; the caption says which seconds of a file were shown, where that is a segment. Further rows keep their text. Does nothing where no wandb run is active.

    Args:
        columns (`Mapping`): Column to one value a row; `media` holds paths, one a line.
        step (`int`): Step of the run.
        num_files (`int`): Files of one table, at least 1.
    """
    import wandb

    if wandb.run is None:
        return
    kinds = {"video": wandb.Video, "audio": wandb.Audio, "image": wandb.Image}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    loaded: dict[str, Any] = {}
    data = []
    for row in rows:
        players: dict[str, Any] = dict.fromkeys(kinds)
        for path in filter(None, (row.get("media") or "").split("\n")):
            kind = media_kind(path)
            if kind is None or players[kind] is not None:
                continue
            if path not in loaded and len(loaded) < num_files and _is_small_file(path):
                loaded[path] = kinds[kind](split_fragment(path)[0], caption=path)
            players[kind] = loaded.get(path)
        text = {name: last_text(row[name]) for name in ("prompt", "completion") if name in row}
        data.append([step, *players.values(), *({**row, **text}).values()])
    table = wandb.Table(columns=["step", *kinds, *columns], data=data)
    wandb.log({"rollouts": table})


def last_text(messages: Any) -> str:
    """The content of the last message of a prompt or a completion; plain text as it is."""
    return messages if isinstance(messages, str) else str(messages[-1]["content"])


def _is_small_file(path: str) -> bool:
    file = Path(split_fragment(path)[0])
    return file.is_file() and file.stat().st_size <= MAX_MEDIA_BYTES
