# SPDX-License-Identifier: Apache-2.0
"""The text of a completion, in either of the two forms TRL passes to a reward."""

from collections.abc import Mapping, Sequence
from typing import Any

Completion = str | Sequence[Mapping[str, Any]]


def completion_text(completion: Completion) -> str:
    """
    What the model wrote: a plain completion itself, or the assistant turns of a conversational one, joined.

    Content may be a string, a list of `{"type": "text", "text": …}` parts, or `None` (no text). Turns of other roles,
    such as tool results, are not the model's and are skipped; a turn without a role counts as the model's.

    >>> completion_text([{"role": "assistant", "content": "<answer>B</answer>"}])
    '<answer>B</answer>'
    """
    if isinstance(completion, str):
        return completion
    return "".join(
        _content_text(turn.get("content")) for turn in completion if turn.get("role", "assistant") == "assistant"
    )


def _content_text(content: str | Sequence[Mapping[str, Any]] | None) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(str(part["text"]) for part in content if part.get("type") == "text")
