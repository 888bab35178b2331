# SPDX-License-Identifier: Apache-2.0
"""
What other projects reward, re-implemented from what their code does, so that one table can hold them all.

A rule says whether a completion earns its full marks: the maximum of its format reward and, where it has one for the
row's type, of its accuracy reward too. `None` means that the rule says nothing about such a row.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from attack_forms import Form, Row

_THINK_ANSWER = Form(("think", "answer"))
_Accuracy = Callable[[str, Row], bool | None]


@dataclass(frozen=True)
class Rule:
    """A project's rewards: how it wants completions written, when the format passes, when the answer does."""

    name: str
    form: Form
    is_well_formed: Callable[[str], bool]
    is_right: _Accuracy = lambda text, row: None

    def full_marks(self, text: str, row: Row, about_form: bool) -> bool | None:
        """Whether `text` earns all there is; `None` where it is about answers that the rule does not check."""
        right = self.is_right(text, row)
        if right is None and not about_form:
            return None
        return self.is_well_formed(text) and right is not False


def _first_answer(text: str) -> str:
    """Between the first opening tag and the next closing one."""
    return text.partition("<answer>")[2].partition("</answer>")[0].strip() if "</answer>" in text else ""


def _in_turn(text: str, *parts: str) -> int:
    """Where `parts` end if each follows the one before it as early as can be; -1 if they do not."""
    at = 0
    for part in parts:
        found = text.find(part, at)
        if found < 0:
            return -1
        at = found + len(part)
    return at


def _spans(text: str, names: tuple[str, ...], to_the_end: bool) -> bool:
    """Sections from the start, only white space between them; whatever else in them, also tags."""
    joints = r"\s*".join(rf"<{name}>[\s\S]*?</{name}>" for name in names)
    return bool((re.fullmatch if to_the_end else re.match)(joints, text))


def _echoink_format(text: str) -> bool:
    text = text.strip()
    first_line = text.partition("\n")[0]  # tags are counted there alone
    doubled = any(first_line.count(tag) > 1 for tag in ("<think>", "<answer>"))
    full = re.fullmatch(r"<think>[\s\S]+?</think>\s*<answer>[\s\S]+?</answer>", text)
    return bool(full) and not doubled


def _lmm_r1_format(text: str) -> bool:
    """Sections side by side, each opened once and closed where it is first closed, to the very end."""
    text = text.strip()
    head, _, rest = text.partition("</think>")
    answer = rest.removeprefix("<answer>")
    once = text.count("<think>") == text.count("<answer>") == 1
    closed = answer.endswith("</answer>") and answer.count("</answer>") == 1
    return once and closed and head.startswith("<think>") and answer != rest


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def _word_errors(found: list[str], gold: list[str]) -> int:
    distance = list(range(len(gold) + 1))
    for i, word in enumerate(found, 1):
        last, distance[0] = distance[0], i
        for j, other in enumerate(gold, 1):
            last, distance[j] = distance[j], min(distance[j] + 1, distance[j - 1] + 1, last + (word != other))
    return distance[-1]


def _video_r1_accuracy(text: str, row: Row) -> bool | None:
    """VLM-R1, Video-R1 and EchoInk: by type, the first answer block as it stands."""
    answer, gold = _first_answer(text), row.solution
    if row.problem_type == "multiple choice":
        return answer == gold
    if row.problem_type in ("numerical", "regression"):
        found, asked = _number(answer), _number(gold)
        if found is None or asked is None:
            return False
        if row.problem_type == "numerical":
            return round(found, 2) == round(asked, 2)
        return abs(found - asked) <= 1e-9 * abs(asked)
    if row.problem_type == "OCR":
        return _word_errors(answer.split(), gold.split()) == 0
    return None


def _humanomni_accuracy(text: str, row: Row) -> bool | None:
    """HumanOmniV2: as Video-R1, with sets of letters and yes or no by substring."""
    answer, gold = _first_answer(text), row.solution
    if row.problem_type == "emer_ov_mc":
        found, asked = answer.split(","), gold.split(",")
        return bool(set(found) & set(asked)) and len(set(found) & set(asked)) == len(found) == len(asked)
    if row.problem_type == "yes_no":
        said, asked = answer.lower(), gold.lower()
        return ("yes" in said and "yes" in asked) or ("no" in said and "no" in asked)
    if row.problem_type == "numerical" and any((mark in answer) != (mark in gold) for mark in ".,"):
        return False  # 42 is not 42.0 there
    return _video_r1_accuracy(text, row)


def _r1_omni_accuracy(text: str, row: Row) -> bool | None:
    """R1-Omni: the same string, of the whole completion where there is no answer block."""
    if row.problem_type not in ("label", "multiple choice"):
        return None
    return (_first_answer(text) if "<answer>" in text else text.strip()) == row.solution


def _nemo_accuracy(text: str, row: Row) -> bool | None:
    return _first_answer(text) == row.solution if row.problem_type == "multiple choice" else None


def _lmm_r1_accuracy(text: str, row: Row) -> bool | None:
    """Numbers in math-verify's place; a gold answer that cannot be parsed is paid in full."""
    if row.problem_type != "numerical":
        return None
    asked = _number(row.solution)
    return asked is None or _number(_first_answer(text)) == asked


RULES = [
    Rule("open-r1", Form(("think", "answer"), "\n", "\n"),
         lambda t: bool(re.match(r"<think>\n[\s\S]*?\n</think>\n<answer>\n[\s\S]*?\n</answer>(?=\n|$)", t))),
    Rule("NeMo-RL", _THINK_ANSWER,
         lambda t: _in_turn(t, "<think>", "</think>") > 0 and _in_turn(t, "<answer>", "</answer>") > 0, _nemo_accuracy),
    Rule("Video-R1", _THINK_ANSWER, lambda t: _spans(t, ("think", "answer"), True), _video_r1_accuracy),
    Rule("R1-Omni", _THINK_ANSWER, lambda t: _spans(t, ("think", "answer"), True), _r1_omni_accuracy),
    Rule("HumanOmniV2", Form(("context", "think", "answer")),
         lambda t: _spans(t, ("context", "think", "answer"), False), _humanomni_accuracy),
    Rule("EchoInk", _THINK_ANSWER, _echoink_format, _video_r1_accuracy),
    Rule("ms-swift", _THINK_ANSWER, lambda t: _spans(t, ("think", "answer"), True)),
    Rule("lmm-r1", _THINK_ANSWER, _lmm_r1_format, _lmm_r1_accuracy),
]  # fmt: skip
