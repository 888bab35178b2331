# SPDX-License-Identifier: Apache-2.0
"""The problem types: what each asks of an answer, and which scorer reads it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ._scored import Options, Scored
from ._written import read_label
from .boxes import score_box, score_boxes
from .choices import score_choice, score_choices, score_yes_no
from .free_form import score_free_form
from .labels import score_emotion, score_emotions, score_label
from .maths import score_maths
from .quantities import score_number, score_regression
from .time_spans import score_spans
from .transcription import Unit, score_transcription

PROBLEM_TYPES: dict[str, str] = {
    "multiple choice": "one option: its letter, its letter and text, or its text, also in a sentence that names no other",
    "emer_ov_mc": "several options; F1 of the two sets of letters, corrected for chance",
    "yes_no": "yes or no, or sentences with one of them as their verdict",
    "judge": "alias of yes_no",
    "label": "one word or phrase; case and surrounding punctuation ignored",
    "emotion": "one word for an emotion, anger = angry; `options`, if given, are the label set",
    "DFEW": "emotion, of the 7 labels of DFEW",
    "MAFW": "emotion, of the 11 labels of MAFW",
    "RAVDESS": "emotion, of the 8 labels of RAVDESS",
    "emer_ov": 'words for emotions, set apart by commas or "and"; F1 of the two sets, words for one emotion joined',
    "numerical": "a number; 42 = 42.0, thousands separators, magnitudes (5 million), per cent, units, fractions",
    "regression": "a number; 1 minus the relative error",
    "math": "a formula; equal by math-verify",
    "OCR": "a text as written; 1 minus the word error rate, Chinese and Japanese by character",
    "transcription": "a text as spoken; the same, punctuation ignored",
    "free-form": "any text; mean of ROUGE-L and token F1, or a judge's grade",
    "box": "a box [x1, y1, x2, y2]; IoU",
    "box_giou": "a box; (1 + generalised IoU) / 2",
    "boxes": "a JSON list of boxes, with labels or without; average precision over IoU .50 to .95",
    "time_span": "spans of time in seconds or mm:ss, e.g. 3 to 7.5; IoU",
}
CHOICE_TYPES: frozenset[str] = frozenset({"multiple choice", "emer_ov_mc"})


@dataclass(frozen=True)
class AnswerSettings:
    """
    How answers are compared where the problem type leaves a choice.

    Args:
        tolerance (`float`, defaults to 0.0):
            `numerical`: largest error that is right, relative to the gold number.
        absolute_tolerance (`float`, defaults to 0.0): The same in the unit of the gold number; the larger one counts.
        regression_scale (`float`, defaults to 0.0):
            `regression`: smallest number that errors are relative to, so that there is a slope also where the gold
            number is 0. At 0.0 an answer to such a row is right or wrong.
        unit (`"word"` or `"character"`, defaults to `"word"`):
            `OCR`, `transcription`: whether errors are counted in words or in characters.
        chance_corrected (`bool`, defaults to `True`):
            `emer_ov_mc`: `False` for plain F1, as published, under which choosing everything pays.
        aliases (`Mapping[str, str]`, *optional*):
            `label` and the emotion types: more words, each with the label that it is read as.
        math_seconds (`float`, defaults to 5.0): `math`: processor time for one formula.

    Raises `ValueError` at construction for a value that cannot be meant.
    """

    tolerance: float = 0.0
    absolute_tolerance: float = 0.0
    regression_scale: float = 0.0
    unit: Unit = "word"
    chance_corrected: bool = True
    aliases: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    math_seconds: float = 5.0

    def __post_init__(self) -> None:
        for name in ("tolerance", "absolute_tolerance", "regression_scale", "math_seconds"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be at least 0 and finite, got {getattr(self, name)}")
        if self.math_seconds == 0:
            raise ValueError("`math_seconds` must be above 0")
        if self.unit not in ("word", "character"):
            raise ValueError(f'`unit` must be "word" or "character", got {self.unit!r}')
        read = {read_label(word): read_label(label) for word, label in self.aliases.items()}
        if "" in {*read, *read.values()}:
            raise ValueError(f"`aliases` must hold words, got {dict(self.aliases)}")
        object.__setattr__(self, "aliases", read)

    def read(self, answer: str, solution: str, problem_type: str, options: Options = None) -> Scored:
        """Score of one bare answer, with what was read; raises as `answer_score` does."""
        if problem_type not in _SCORERS:
            raise ValueError(f"unknown problem_type {problem_type!r}; known are {', '.join(map(repr, _SCORERS))}")
        if not isinstance(solution, str) or not solution.strip():  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"a {problem_type} row needs its gold answer as text, got {solution!r}")
        if "<answer" in solution:
            raise ValueError(f"the gold answer must be bare, without tags, got {solution!r}")
        return _SCORERS[problem_type](self, answer, solution, options)


def _emotion_scorer(label_set: str | None = None) -> Callable[[AnswerSettings, str, str, Options], Scored]:
    return lambda s, answer, gold, options: score_emotion(answer, gold, options, s.aliases, label_set)


_SCORERS: dict[str, Callable[[AnswerSettings, str, str, Options], Scored]] = {
    "multiple choice": lambda s, answer, gold, options: score_choice(answer, gold, options),
    "emer_ov_mc": lambda s, answer, gold, options: score_choices(answer, gold, options, s.chance_corrected),
    "yes_no": lambda s, answer, gold, options: score_yes_no(answer, gold),
    "judge": lambda s, answer, gold, options: score_yes_no(answer, gold),
    "label": lambda s, answer, gold, options: score_label(answer, gold, options, s.aliases),
    "emotion": _emotion_scorer(),
    "DFEW": _emotion_scorer("DFEW"),
    "MAFW": _emotion_scorer("MAFW"),
    "RAVDESS": _emotion_scorer("RAVDESS"),
    "emer_ov": lambda s, answer, gold, options: score_emotions(answer, gold, options, s.aliases),
    "numerical": lambda s, answer, gold, options: score_number(
        answer, gold, tolerance=s.tolerance, absolute_tolerance=s.absolute_tolerance
    ),
    "regression": lambda s, answer, gold, options: score_regression(answer, gold, regression_scale=s.regression_scale),
    "math": lambda s, answer, gold, options: score_maths(answer, gold, seconds=s.math_seconds),
    "OCR": lambda s, answer, gold, options: score_transcription(answer, gold, unit=s.unit),
    "transcription": lambda s, answer, gold, options: score_transcription(answer, gold, unit=s.unit, is_spoken=True),
    "free-form": lambda s, answer, gold, options: score_free_form(answer, gold),
    "box": lambda s, answer, gold, options: score_box(answer, gold),
    "box_giou": lambda s, answer, gold, options: score_box(answer, gold, generalised=True),
    "boxes": lambda s, answer, gold, options: score_boxes(answer, gold),
    "time_span": lambda s, answer, gold, options: score_spans(answer, gold),
}
