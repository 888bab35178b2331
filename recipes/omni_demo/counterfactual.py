# SPDX-License-Identifier: Apache-2.0
"""What would be true of a demo row if its face, or its voice, were another row's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omni_demo.targets import QUESTIONS, solution_of


def swap_changes_answer(row: Mapping[str, Any], donor: Mapping[str, Any], sense: str) -> bool | None:
    """
    Whether another row's face or voice changes a row's true answer; `None` where that is not known: the row is not the
    demo's, or its question has no answer for the new pair.

    Args:
        row (`Mapping`): With `problem`, `solution` and `meta`.
        donor (`Mapping`): With `meta`: whose face or voice is shown instead.
        sense (`str`): `"video"` for the face, `"audio"` for the voice.

    >>> meta = {"kind": "agreement", "face": "sad", "voice": "sad"}
    >>> row = {"problem": "Does the voice agree with the face?", "solution": "yes", "meta": meta}
    >>> swap_changes_answer(row, {"meta": {"voice": "happy"}}, "audio")
    True
    >>> swap_changes_answer(row, {"meta": {"face": "sad"}}, "video")
    False
    """
    meta, lent = row["meta"], donor["meta"]
    kind = meta.get("kind")
    if not isinstance(kind, str) or QUESTIONS.get(kind) != row["problem"]:
        return None
    face = (lent if sense == "video" else meta).get("face")
    voice = (lent if sense == "audio" else meta).get("voice")
    if (face is None and kind != "voice") or (voice is None and kind != "face"):
        return None
    try:
        return solution_of(kind, face or "", voice or "") != row["solution"]
    except ValueError:  # a pair that the question has no answer for
        return None
