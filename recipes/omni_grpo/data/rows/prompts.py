# SPDX-License-Identifier: Apache-2.0
"""The one place where a prompt is made; SFT, RL, evaluation and `ask_omni.py` all come here."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

from omni_grpo.data.media.audio import has_audio
from omni_grpo.data.media.settings import MediaError
from omni_grpo.data.rows.schema import Example, MediaItem
from omni_rewards import CONTEXT_THINK_ANSWER, PROBLEM_TYPES, THINK_ANSWER, SectionSchema, parse_sections
from omni_rewards._options import shown_options

Part = dict[str, Any]
Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class PromptStyle:
    """System prompt (empty: no system turn) and the sections it asks for."""

    system: str
    schema: SectionSchema


ANSWER = SectionSchema(("answer",))
DEFAULT_STYLE = "context_think_answer"

PROMPT_STYLES: dict[str, PromptStyle] = {
    "context_think_answer": PromptStyle(
        system=(
            "You watch and listen with care. First write in <context> </context> what the media show and sound like. "
            "Then reason from it step by step in <think> </think>, and look or listen again where you doubt. "
            "Then give the answer alone in <answer> </answer>."
        ),
        schema=CONTEXT_THINK_ANSWER,
    ),
    "think_answer": PromptStyle(
        system=(
            "You watch and listen with care. First reason step by step in <think> </think>, naming what you see and "
            "what you hear. Then give the answer alone in <answer> </answer>."
        ),
        schema=THINK_ANSWER,
    ),
    "text_think_answer": PromptStyle(
        system="First reason step by step in <think> </think>. Then give the answer alone in <answer> </answer>.",
        schema=THINK_ANSWER,
    ),
    # Controls: what an answer is worth without context or thought.
    "answer": PromptStyle(
        system="You watch and listen with care. Give the answer alone in <answer> </answer>.", schema=ANSWER
    ),
    # For tiny models, which cannot read instructions yet: no system turn, no tokens spent on one.
    "short": PromptStyle(system="", schema=CONTEXT_THINK_ANSWER),
    "short_think_answer": PromptStyle(system="", schema=THINK_ANSWER),
    "short_answer": PromptStyle(system="", schema=ANSWER),
}


def _media_parts(item: MediaItem, name: str, load_audio_from_video: bool) -> list[Part]:
    """A medium, followed by its own sound where that is not interleaved."""
    sound = _is_heard(item, name)
    interleaved = sound and load_audio_from_video
    part = {"type": item.type, "path": item.path, "start": item.start, "end": item.end, "text": None}
    parts = [{**part, "audio_in_video": interleaved}]
    return parts + [{**part, "type": "audio", "audio_in_video": False}] * (sound and not interleaved)


def _is_heard(item: MediaItem, name: str) -> bool:
    """Whether the sound track of a video belongs to the prompt."""
    if not item.use_audio:
        return False
    try:
        present = has_audio(item.path)
    except MediaError as error:
        raise MediaError(f"row {name!r}: {error}") from error
    if item.use_audio is True and not present:
        raise MediaError(
            f"row {name!r}: {item.path} has no sound track, but `use_audio` asks for it; "
            'set `use_audio` to false or "if_present"'
        )
    return present


def question_text(example: Example) -> str:
    """Question, options and the answer instruction of the row's problem type, one below the other."""
    lines, kind = [example.problem], PROBLEM_TYPES[example.problem_type or "free-form"]
    if example.options:
        lines += ["Options:", *(shown_options(example.options) if kind.needs_options else example.options)]
    lines.append(kind.instruction)
    return "\n".join(lines)


def target_in_sections(target: str | None, solution: str, schema: SectionSchema) -> str | None:
    """
    The sections of a worked example that `schema` names, without its others; `None` where one of them is not there.

    A row without an example has its answer all the same.

    >>> example = "<context>A red door.</context><think>So, red.</think><answer>red</answer>"
    >>> target_in_sections(example, "red", THINK_ANSWER)
    '<think>So, red.</think><answer>red</answer>'
    >>> target_in_sections(None, "red", ANSWER)
    '<answer>red</answer>'
    """
    found = parse_sections(target, schema).texts if target else {schema.names[-1]: solution}
    return schema.render({name: found[name] for name in schema.names}) if found.keys() >= set(schema.names) else None


def build_messages(example: Example, style: str, load_audio_from_video: bool = False) -> Messages:
    """
    System turn and user turn of an example: media in their order, then question, options, answer instruction.

    A prompt of TRL's form is taken as it is written; the style's system turn stands before one that has none.

    Args:
        example ([`Example`]): A checked row.
        style (`str`): Key of [`PROMPT_STYLES`].
        load_audio_from_video (`bool`, defaults to `False`):
            Interleave a video's sound with its frames instead of giving it as an audio item after the video.

    Returns:
        `list[dict]`: Messages whose content is a list of parts `{"type", "path", "start", "end", "text",
        "audio_in_video"}`. Parts hold paths, never arrays: TRL copies, gathers and logs prompts.

    Raises:
        `MediaError`: Sound was asked of a video that has none or cannot be opened; the message names the row.
        `ValueError`: `style` is unknown.
    """
    if style not in PROMPT_STYLES:
        raise ValueError(f"prompt_style {style!r} is unknown; one of {', '.join(PROMPT_STYLES)}")
    items = (_media_parts(item, example.id, load_audio_from_video) for item in example.media)
    marks = [{"type": item.type} for item in example.media]
    turns: Messages = [{"role": "system", "content": [text_part(PROMPT_STYLES[style].system)]}]
    for turn in example.prompt or [{"role": "user", "content": [*marks, text_part(question_text(example))]}]:
        parts = ([text_part(part["text"])] if part["type"] == "text" else next(items) for part in turn["content"])
        turns.append({"role": turn["role"], "content": list(chain.from_iterable(parts))})
    has_own = not PROMPT_STYLES[style].system or turns[1]["role"] == "system"
    return turns[has_own:]


def text_part(text: str) -> Part:
    """A part of a message that is text."""
    return {"type": "text", "path": None, "start": None, "end": None, "text": text, "audio_in_video": False}


def is_in_parts(messages: Messages) -> bool:
    """Whether turns have the form of [`build_messages`]."""
    contents = [turn.get("content") for turn in messages]
    return all(isinstance(parts, list) and all("path" in part for part in parts) for parts in contents)


def as_parts(messages: Messages) -> Messages:
    """Messages whose content may be a plain string, in the form of [`build_messages`]."""
    return [{**m, "content": [text_part(m["content"])]} if isinstance(m["content"], str) else m for m in messages]
