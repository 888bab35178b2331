# SPDX-License-Identifier: Apache-2.0
"""What a reward takes and tells: the text of a completion, in either of TRL's two forms; the sections it is about."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Completion = str | Sequence[Mapping[str, Any]]
_Reward = TypeVar("_Reward", bound=Callable[..., Any])


def about(*sections: str) -> Callable[[_Reward], _Reward]:
    """Gives a reward function the attribute `sections`: those that it is about, or `tag` for the form; credit reads it."""

    def mark(reward: _Reward) -> _Reward:
        reward.__dict__["sections"] = sections
        return reward

    return mark


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
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(str(part["text"]) for part in content if part.get("type") == "text")
