# SPDX-License-Identifier: Apache-2.0
"""Options by their letters: how a question shows them, and which of them a written answer names."""

import re
import string
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

from ._written import HAN_AND, normalize, on_one_line, unwrap

_END = ".。 "
_MAX_LEAD = 200  # characters that may stand beside the text of an option

_PREFIX = r"(?:(?:option|choice|选项) ?)?[(\[【]?"
_LETTERED = re.compile(rf"{_PREFIX}([a-z])(?:[)\]】.:、。]+\s*|\s+[-–—]\s+|$)(.*)", re.IGNORECASE)
_NUMBERED = re.compile(rf"{_PREFIX}([0-9]{{1,2}})(?:[)\]】、。]+|[.:](?![0-9]))\s*(\S.*)", re.IGNORECASE)


class OptionTexts(dict[str, str]):
    """
    Normalised text of each option by its letter.

    Args:
        is_lettered (`bool`): Whether the options bring these letters themselves.
        letters (`dict[str, str]`): The letter of each number, where options bring numbers.
    """

    is_lettered: bool = False
    letters: Mapping[str, str] = {}


def option_texts(options: Sequence[str] | None) -> OptionTexts:
    """
    Normalised text of each option by its letter.

    Letters (`A.`, `(A)`, `A、`, `Option A:`) and numbers (`1.`, `(1)`) are taken off the texts only if they are those
    of as many options, from A or 1 on: in `["I. Newton", "A. Einstein"]` they are initials, in `["1.5", "2.5"]` parts
    of numbers, in `["1. Mai", "2. Mai"]` all that differs. Raises `ValueError` if there are no options or more than letters.
    """
    if not options or len(options) > len(string.ascii_lowercase):
        raise ValueError(f"a choice row needs 1 to 26 options, got {options!r}")
    return _option_texts(tuple(options))


@lru_cache(maxsize=1024)  # one question's options come once for each of its completions
def _option_texts(options: tuple[str, ...]) -> OptionTexts:
    marks, texts = _marked(options)
    letters = string.ascii_lowercase[: len(options)]
    is_lettered = set(marks) == set(letters)
    read = OptionTexts(
        zip(marks if is_lettered else letters, (normalize(text).rstrip(_END) for text in texts), strict=True)
    )
    read.is_lettered = is_lettered
    read.letters = {} if is_lettered else dict(zip(marks, letters, strict=False))
    return read


def _marked(options: Sequence[str]) -> tuple[list[str], Sequence[str]]:
    """The letters or numbers that the options bring, and the texts after them; none, and the options."""
    names = string.ascii_lowercase[: len(options)], [str(number) for number in range(1, len(options) + 1)]
    for form, wanted in zip((_LETTERED, _NUMBERED), names, strict=True):
        found = [match for option in options if (match := form.fullmatch(on_one_line(option)))]
        marks = [match[1].casefold() for match in found]
        texts = [match[2] for match in found]
        if sorted(marks) == sorted(wanted) and (form is _LETTERED or len(set(texts)) == len(texts)):
            return marks, texts
    return [], options


def text_of_option(text: str, options: Sequence[str] | None) -> str:
    """The text of the option that `text` names, where the options bring letters or numbers; else `text` itself."""
    texts = option_texts(options) if options and len(options) <= len(string.ascii_lowercase) else OptionTexts()
    letter = read_choice(text, texts) if texts.is_lettered or texts.letters else None
    return (letter and texts[letter]) or text


def shown_options(options: Sequence[str]) -> Sequence[str]:
    """
    Options as a question shows them, each after one letter: their own, else A., B., … in place of any number.

    >>> shown_options(["A、开心", "B、难过"]), shown_options(["1. Cat", "2. Dog"]), shown_options(["cat", "dog"])
    (['A、开心', 'B、难过'], ['A. Cat', 'B. Dog'], ['A. cat', 'B. dog'])
    """
    if option_texts(options).is_lettered:
        return options
    return [f"{letter}. {text}" for letter, text in zip(string.ascii_uppercase, _marked(options)[1], strict=False)]


# What may stand before an option that is named ("The correct answer is (B)", "Option B", "答案：B", "故选B"), and after.
_NOUN = r"(?:the |my )?(?:(?:correct|right|best|final|most likely) )*(?:answer|option|choice|letter)s?\b"
_VERB = r"i(?: would|'d| will|'ll)? (?:think|believe|say|choose|pick|select|answer|go with)(?: that)?"
_LEAD = re.compile(
    rf"(?:(?:so|thus|hence|therefore|{_VERB})\b[,: ]*)*"
    rf"(?:(?:it is|it's|this is|that is|that's) |{_NOUN}(?: (?:is|are|would be|must be|should be)\b)?[:= ]*){{0,2}}"
    r"(?:因此|所以|综上)?,?我?(?:认为|觉得)?[故应该]*(?:正确|最终|最佳)?的?(?:答案|选项)?[应该]*(?:选择?|是|为)?(?:选项)?[: ]*",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r" is (?:the )?(?:correct|right|best)?(?: ?(?:answer|option|choice))?$|是?正确的?(?:答案|选项)?$", re.IGNORECASE
)
_ENTRY = re.compile(r"[(\[【]?([a-z]|[0-9]{1,2})([)\]】.:、。, =–—-]*)(.*)")
_QUOTES = "()\"'“”‘’「」"


def _stated(text: str) -> str:
    """`text` on one line, in its own case, without what stands around it and before the options that it names."""
    text = unwrap(on_one_line(text)).rstrip(_END)
    return unwrap(_LEAD.sub("", text, count=1)).rstrip(_END + "!")


def read_choice(text: str, texts: OptionTexts) -> str | None:
    """
    The letter of the one option that `text` names, alone or in a sentence such as "The correct answer is (B)".

    A letter followed by another option's text names none, nor does one that is denied, or explained.
    """
    whole = normalize(text)
    if len(whole) > _MAX_LEAD + max(map(len, texts.values()), default=0):
        return None
    stated = normalize(_stated(text))
    entries = (whole, stated, stated.removeprefix("(").removesuffix(")"), _TAIL.sub("", stated))
    return next((letter for entry in entries if (letter := _named(entry.rstrip(_END), texts))), None)


def _named(entry: str, texts: OptionTexts) -> str | None:
    named = [letter for letter, option in texts.items() if option and option == entry]
    match = _ENTRY.fullmatch(entry)
    if match and (letter := texts.letters.get(match[1], match[1])) in texts:
        name, marks, text = match.groups()
        if not text and not set(",=–—-") & set(marks):
            # "2" is the second option, unless it is the text of another one.
            return letter if name.isalpha() or named in ([], [letter]) else None
        is_apart = marks or not text[:1].isascii()  # "B taunt", "B开心"
        if is_apart and text.strip(_QUOTES) == texts[letter].strip(_QUOTES):
            return letter
    return named[0] if len(named) == 1 else None  # two options of one text cannot be told apart by it


# How lists of options are set apart; the texts of options hold some of these marks, too.
_SEPARATORS = (r"[;、]", r"[,;、/ ]\s*(?=\(?[a-z][.):、])", r"[,;、]", rf"[,;、/&|+]|\band\b|{HAN_AND}")


def read_choices(text: str, texts: OptionTexts) -> set[str]:
    """Letters of the listed options ("A, C", "A/C", "A和C", "AC"); empty if any entry is not an option."""
    if single := read_choice(text, texts):  # first, because an option's text may hold a comma
        return {single}
    lines = [re.sub(r"^\s*[-•*]\s+", "", line) for line in text.strip().splitlines()]
    stated = _stated(";".join(lines))
    if re.fullmatch(r"[A-Z]{2,26}", stated) and len(set(stated)) == len(stated):
        stated = ",".join(stated)
    stated = normalize(stated)
    words = [
        word.strip("\"'“”‘’()[]【】.:。")
        for word in re.split(rf"[,;、/&|+\s]+|(?<=\))(?=\()|\band\b|{HAN_AND}", stated)
    ]
    letters = {texts.letters.get(word, word) for word in words if word}
    if all(len(letter) == 1 and letter.isascii() and letter.isalpha() for letter in letters):
        return letters if letters <= texts.keys() else set()
    for mark in _SEPARATORS:
        parts = [part.strip() for part in re.split(mark, stated) if part.strip()]
        found = [read_choice(part, texts) for part in parts]
        is_mixed = any(len(a) == 1 and texts.get(a) != b and b in texts.values() for a, b in pairwise(parts))
        if found and all(found):  # a letter and then another option's text are no list of two
            return set() if is_mixed else {letter for letter in found if letter}
    return set()
