# SPDX-License-Identifier: Apache-2.0
"""wandb without an account, its runs in a folder of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def offline_wandb(folder: Path) -> Iterator[None]:
    """Within: runs are kept below `folder`. A process reads wandb's settings once, so they are torn down on both sides."""
    import wandb

    wandb.teardown()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_DIR", str(folder))
        patch.setenv("WANDB_DATA_DIR", str(folder / "staged"))
        try:
            yield
        finally:
            wandb.finish()
            wandb.teardown()
