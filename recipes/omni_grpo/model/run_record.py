# SPDX-License-Identifier: Apache-2.0
"""What a run leaves in its folder to say how far it came."""

from __future__ import annotations

import json
from pathlib import Path

RECORD = "stage.json"
COMPLETE = "COMPLETE"  # in a checkpoint, written last, after every rank has written its part


def refuse_unfinished(folder: str | Path) -> None:
    """
    A run's folder holds its model when its stage is done.

    Raises:
        `ValueError`: It is not; with the command that wrote it, and what to do.
    """
    record = Path(folder) / RECORD
    stage = json.loads(record.read_text()) if record.is_file() else {}
    if stage.get("done") is False:
        whole = sorted(Path(folder).glob(f"checkpoint-*/{COMPLETE}"), key=lambda mark: (len(str(mark)), str(mark)))
        further = f", it goes on from {whole[-1].parent}, or name that folder instead" if whole else ""
        raise ValueError(
            f"{folder} holds no finished model: the stage `{stage.get('command', Path(folder).name)}` did not end; run it "
            f"again{further}"
        )
