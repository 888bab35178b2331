# SPDX-License-Identifier: Apache-2.0
"""The one place where a prompt is made; SFT, RL, evaluation and `ask_omni.py` all come here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omni_grpo.media import MediaError, has_audio
from omni_grpo.schema import Example
from omni_rewards import CONTEXT_THINK_ANSWER, THINK_ANSWER, SectionSchema

Part = dict[str, Any]
Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class PromptStyle:
    """System prompt and the sections it asks for."""

    system: str
    schema: SectionSchema


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
    # For tiny models, which spend no tokens on instructions they cannot read yet.
    "short": PromptStyle(system="Look, listen, think.", schema=CONTEXT_THINK_ANSWER),
}

# What `<answer>` must hold, by problem type. Types that are not named here get the last line.
ANSWER_INSTRUCTIONS: dict[str, str] = {
    "multiple choice": "Answer with the letter of one option.",
    "emer_ov_mc": "Answer with the letter or letters of all options that hold, e.g. A,E.",
    "numerical": "Answer with a number.",
    "regression": "Answer with a number.",
    "OCR": "Answer with the transcription.",
    "emer_ov": "Answer with words for the emotions, separated by commas.",
    "yes_no": "Answer yes or no.",
    "judge": "Answer yes or no.",
    "label": "Answer with one word.",
    "": "Answer in a few words.",
}


def _media_parts(example: Example, load_audio_from_video: bool) -> list[Part]:
    """Videos and images first, each followed by its own sound; the order of `media` is kept."""
    parts: list[Part] = []
    for item in example.media:
        sound = bool(item.use_audio)
        if item.use_audio == "if_present":
            sound = has_audio(item.path)
        elif item.use_audio and not has_audio(item.path):
            raise MediaError(
                f"row {example.id!r}: {item.path} has no sound track, but `use_audio` asks for it; "
                'set `use_audio` to false or "if_present"'
            )
        interleaved = sound and load_audio_from_video
        parts.append({"type": item.type, "path": item.path, "text": None, "audio_in_video": interleaved})
        if sound and not interleaved:
            parts.append({"type": "audio", "path": item.path, "text": None, "audio_in_video": False})
    return parts


def question_text(example: Example) -> str:
    """Question, options and the answer instruction of the row's problem type, one below the other."""
    lines = [example.problem]
    if example.options:
        lines += ["Options:", *example.options]
    lines.append(ANSWER_INSTRUCTIONS.get(example.problem_type, ANSWER_INSTRUCTIONS[""]))
    return "\n".join(lines)


def build_messages(example: Example, style: str, load_audio_from_video: bool = False) -> Messages:
    """
    System turn and user turn of an example: media in their order, then question, options, answer instruction.

    Args:
        example ([`Example`]): A checked row.
        style (`str`): Key of [`PROMPT_STYLES`].
        load_audio_from_video (`bool`, defaults to `False`):
            Interleave a video's sound with its frames instead of giving it as an audio item after the video.

    Returns:
        `list[dict]`: Messages whose content is a list of parts `{"type", "path", "text", "audio_in_video"}`. Parts
        hold paths, never arrays: TRL copies, gathers and logs prompts.

    Raises:
        `MediaError`: Sound was asked of a video that has none.
        `ValueError`: `style` is unknown.
    """
    if style not in PROMPT_STYLES:
        raise ValueError(f"prompt_style {style!r} is unknown; one of {', '.join(PROMPT_STYLES)}")
    return [
        {"role": "system", "content": [text_part(PROMPT_STYLES[style].system)]},
        {
            "role": "user",
            "content": [*_media_parts(example, load_audio_from_video), text_part(question_text(example))],
        },
    ]


def text_part(text: str) -> Part:
    """A part of a message that is text."""
    return {"type": "text", "path": None, "text": text, "audio_in_video": False}
