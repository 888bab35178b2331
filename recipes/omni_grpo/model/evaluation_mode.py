# SPDX-License-Identifier: Apache-2.0
"""A model in evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def in_evaluation(model: Any) -> Iterator[None]:
    """Without dropout; afterwards each module goes back to its own mode, frozen ones to theirs."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
