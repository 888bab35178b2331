# SPDX-License-Identifier: Apache-2.0
"""The kind of a question, by which results are grouped; evaluation and report share it."""

from collections.abc import Mapping
from typing import Any


def kind_of(row: Mapping[str, Any]) -> str:
    """
    What a row tests: `meta.kind`, else its problem type.

    >>> kind_of({"meta": {"kind": "intent"}, "problem_type": "label"}), kind_of({"problem_type": "label"})
    ('intent', 'label')
    """
    return str((row.get("meta") or {}).get("kind") or row.get("problem_type") or "other")
