# SPDX-License-Identifier: Apache-2.0
"""
The problem types: all that is particular to one kind of question stands in its record here, and nowhere else.

- `multiple choice`: one option: its letter, its letter and text, or its text, also in a sentence that names no other
- `emer_ov_mc`: several options; F1 of the two sets of letters, corrected for chance
- `yes_no`, `judge`: yes or no, or sentences with one of them as their verdict
- `label`: one word or phrase; case and surrounding punctuation ignored
- `emotion`: one word for an emotion, anger = angry; `options`, if given, are the label set
- `DFEW`, `MAFW`, `RAVDESS`: emotion, of the 7, 11 and 8 labels of these data sets
- `emer_ov`: words for emotions, set apart by commas or "and"; F1 of the two sets, words for one emotion joined
- `numerical`: a number; 42 = 42.0, thousands separators, magnitudes (5 million), per cent, units, fractions
- `regression`: a number; 1 minus the relative error
- `math`: a formula; equal by math-verify
- `OCR`: a text as written; 1 minus the word error rate, Chinese and Japanese by character
- `transcription`: a text as spoken; the same, punctuation ignored
- `free-form`: any text; mean of ROUGE-L and token F1, or a judge's grade
- `box`: a box [x1, y1, x2, y2]; IoU
- `box_giou`: a box; (1 + generalised IoU) / 2
- `time_span`: spans of time in seconds or mm:ss, e.g. 3 to 7.5; IoU
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from ._scored import Options, Scored
from ._written import read_label
from .boxes import score_box
from .choices import score_choice, score_choices, score_yes_no
from .emotions import EMOTION_LABEL_SETS, emotion_of
from .free_form import score_free_form
from .labels import score_emotions, score_label
from .maths import score_maths
from .quantities import score_number, score_regression
from .time_spans import score_spans
from .transcription import Unit, score_transcription


@dataclass(frozen=True)
class ProblemType:
    """
    What is particular to one kind of question. A further kind is a further entry of `PROBLEM_TYPES`, and no more.

    Args:
        instruction (`str`): Tells the model what `<answer>` must hold; the last line of the question.
        score (`Callable`):
            Scores an answer, given the settings, the answer, the gold answer and the options. It raises `ValueError`
            for a gold answer that it cannot read, which is how rows are checked before a run.
        reads (`str`, defaults to `"text"`):
            What an answer is: one `"option"` of the row or several `"options"`, a `"verdict"` of yes or no, a
            `"label"`, a `"number"`; `"text"` for all else, of which no conclusion of the reasoning is read.
        labels (`tuple[str, ...]`, *optional*): All answers that there are, where they are the same for every row.
        may_be_judged (`bool`, defaults to `False`): Whether `AnswerReward`'s judge, if it has one, grades answers.
    """

    instruction: str
    score: Callable[[AnswerSettings, str, str, Options], Scored]
    reads: Literal["option", "options", "verdict", "label", "number", "text"] = "text"
    labels: tuple[str, ...] = ()
    may_be_judged: bool = False

    @property
    def needs_options(self) -> bool:
        """Whether a row must list what to choose from."""
        return self.reads in ("option", "options")

    @property
    def is_closed(self) -> bool:
        """Whether answers are classes, so that they can be guessed and one of them can be the commonest."""
        return self.needs_options or self.reads in ("verdict", "label")


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

    def label_of(self, word: str) -> str:
        """`word` as a label, or the one that `aliases` has for it."""
        label = read_label(word)
        return self.aliases.get(label, label)

    def read(self, answer: str, solution: str, problem_type: str, options: Options = None) -> Scored:
        """Score of one bare answer, with what was read; raises as `answer_score` does."""
        require_known(problem_type)
        if not isinstance(solution, str) or not solution.strip():  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"a {problem_type} row needs its gold answer as text, got {solution!r}")
        if "<answer" in solution:
            raise ValueError(f"the gold answer must be bare, without tags, got {solution!r}")
        return PROBLEM_TYPES[problem_type].score(self, answer, solution, options)


def _emotion(*labels: str) -> ProblemType:
    def score(settings: AnswerSettings, answer: str, gold: str, options: Options) -> Scored:
        known = labels or options or ()
        return score_label(answer, gold, options, lambda word: emotion_of(word, settings.aliases), known)

    return ProblemType("Answer with one word.", score, "label", labels)


_YES_NO = ProblemType(
    "Answer yes or no.", lambda s, answer, gold, options: score_yes_no(answer, gold), "verdict", ("yes", "no")
)
_NUMBER, _BOX = "Answer with a number.", "Answer with a box, [x1, y1, x2, y2]."
_TRANSCRIPTION = "Answer with the transcription."
PROBLEM_TYPES: dict[str, ProblemType] = {
    "multiple choice": ProblemType(
        "Answer with the letter of one option.",
        lambda s, answer, gold, options: score_choice(answer, gold, options),
        "option",
    ),
    "emer_ov_mc": ProblemType(
        "Answer with the letter or letters of all options that hold, e.g. A,E.",
        lambda s, answer, gold, options: score_choices(answer, gold, options, s.chance_corrected),
        "options",
    ),
    "yes_no": _YES_NO,
    "judge": _YES_NO,
    "label": ProblemType(
        "Answer with one word.",
        lambda s, answer, gold, options: score_label(answer, gold, options, s.label_of),
        "label",
    ),
    "emotion": _emotion(),
    **{name: _emotion(*labels) for name, labels in EMOTION_LABEL_SETS.items()},
    "emer_ov": ProblemType(
        "Answer with words for the emotions, separated by commas.",
        lambda s, answer, gold, options: score_emotions(answer, gold, options, s.aliases),
    ),
    "numerical": ProblemType(
        _NUMBER, lambda s, answer, gold, _: score_number(answer, gold, s.tolerance, s.absolute_tolerance), "number"
    ),
    "regression": ProblemType(
        _NUMBER, lambda s, answer, gold, _: score_regression(answer, gold, s.regression_scale), "number"
    ),
    "math": ProblemType(
        "Answer with a formula, in LaTeX.", lambda s, answer, gold, _: score_maths(answer, gold, s.math_seconds)
    ),
    "OCR": ProblemType(_TRANSCRIPTION, lambda s, answer, gold, _: score_transcription(answer, gold, s.unit, False)),
    "transcription": ProblemType(
        _TRANSCRIPTION, lambda s, answer, gold, _: score_transcription(answer, gold, s.unit, is_spoken=True)
    ),
    "free-form": ProblemType(
        "Answer in a few words.", lambda s, answer, gold, _: score_free_form(answer, gold), may_be_judged=True
    ),
    "box": ProblemType(_BOX, lambda s, answer, gold, _: score_box(answer, gold)),
    "box_giou": ProblemType(_BOX, lambda s, answer, gold, _: score_box(answer, gold, generalised=True)),
    "time_span": ProblemType(
        "Answer with a span of time in seconds, e.g. 3.0 to 7.5.", lambda s, answer, gold, _: score_spans(answer, gold)
    ),
}
CHOICE_TYPES = frozenset(name for name, kind in PROBLEM_TYPES.items() if kind.needs_options)


def require_known(problem_type: str) -> None:
    """Raises `ValueError`, with the known types, for one that is none of them."""
    if problem_type not in PROBLEM_TYPES:
        raise ValueError(f"unknown problem_type {problem_type!r}; known are {', '.join(map(repr, PROBLEM_TYPES))}")


def types_of_rows(own: Sequence[str | None] | None, every: str | None, count: int) -> list[str]:
    """
    The type of each row: its `own`, from the column `problem_type`, else `every`, a reward's setting of that name.

    Raises `ValueError` where a row has neither.
    """
    types = [kind or every for kind in ([None] * count if own is None else own)]
    if None in types:
        raise ValueError(
            f"row {types.index(None)} of the batch has no `problem_type`; add the column, or give the reward one type for "
            'all rows, e.g. AnswerReward(problem_type="math"), in YAML reward_settings: {omni_rewards.answer_reward: '
            "{problem_type: math}}"
        )
    return cast("list[str]", types)
