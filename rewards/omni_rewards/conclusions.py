# SPDX-License-Identifier: Apache-2.0
"""Whether reasoning concludes the answer that is given, for answers of closed types, where that can be read for sure."""

import re
import unicodedata
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from decimal import Decimal
from typing import cast

from ._options import OptionTexts, option_texts, read_choice, read_choices
from ._verdicts import read_yes_no
from ._words import sentences, word_set
from ._written import NUMBER, normalize, read_label, read_number
from .emotions import EMOTION_LABEL_SETS, emotion_of
from .problem_types import PROBLEM_TYPES

# What a text says, and whether it stands where an answer is named: "the answer is …", "so it is …".
_Reader = Callable[[str, bool], Hashable | None]

_LONGEST = 20_000  # characters; a conclusion stands at the end
_LONGEST_SENTENCE = 1_000
_MARKS = re.compile(r"[*`_$\"“”]|\\(?=[()\[\]])")
_STATED = re.compile(
    r"(?:^|\b(?:the|my|final|correct|right|best|so|therefore|thus|hence)[,\s]+)(?:answer|option|choice|verdict|conclusion)"
    r"(?: to (?:the|this) question)?\s*(?:is|must be|should be|has to be|[:=])\s*(?:(?:therefore|thus|then|clearly)\b)?"
    r"|\bi(?:['’]ll|['’]d| will| would)? (?:choose|pick|select|go with)\b|\\boxed\{(?:\\text\{)?"
    r"|(?:答案|结论)[^a-z0-9]{0,4}?(?:是|为|:)|选(?:择|项)?(?=[(a-z])"
)
_CUE = re.compile(
    r"(?:(?:^|[,;:]\s*|\band )so\b|\b(?:therefore|thus|hence|consequently|in conclusion|in summary|overall)\b"
    r"|所以|因此|综上|[=⇒→])[,:\s]*(?:(?:it|this|that) (?:is|must be|has to be|means)\b)?"
)
_IT = re.compile(r"(?:it|this|that|the (?:emotion|feeling|mood))\b")
_LINK = re.compile(r"\b(?:is|are|be|means|indicates|suggests|implies|conveys|expresses|feels|fits|matches)\b")
_FITS = re.compile(r" (?:fits|matches|is (?:the )?(?:correct|right|best|answer)\b).*|是(?:正确|对)的.*")
_SUPPOSED = re.compile(r"\b(?:if|whether|unless|suppose)\b|如果|是否")
_DENIED = re.compile(
    r"\b(?:not|no|never|neither|nor|cannot|hardly|doubt|deny|wrong|false|incorrect|unlikely|may|might|could|would|maybe|"
    r"perhaps|says|said|asks|asked|claims|thinks|thought|believes|believed)\b|n['’]t\b|[不没非未]"
)
_TAKEN_BACK = re.compile(
    r"\b(?:wait|but|however|actually|hmm+|instead|or|maybe|perhaps|unless|reconsider|let me|mistake|second thought|then "
    r"again)\b|等等|但|不过|其实|或"
)
_REASON = re.compile(r"\b(?:because|since|as|which|given|for|where)\b|因为")
_VAGUE = word_set(
    "clear obvious evident unclear uncertain unknown certain simple easy hard difficult straightforward ambiguous open "
    "here there this that it both none given found known right wrong correct true false yes no possible important"
)


def conclusion_agrees(
    think: str,
    answer: str,
    problem_type: str,
    options: Sequence[str] | None = None,
    aliases: Mapping[str, str] | None = None,
) -> bool | None:
    """
    Whether the reasoning concludes the answer that is given; `None` where that cannot be read for sure.

    A conclusion is the last "the answer is …", "I choose …", `\\boxed{…}` or 答案是…; else what the last sentence says
    after "so", "therefore", 所以 or "=", after "it is", or as its only words. What follows must be nothing but an
    option, yes or no, a number, or a label. A conclusion that is denied, asked, supposed, or taken back afterwards
    ("but", "wait", a question) is none. Read for `yes_no`, `judge`, the types with options, `numerical`, `regression`,
    `label` and the types of one emotion, in English and simple Chinese; every other type is `None`. Numbers of
    different units, roundings within 1 %, and part of a list of options are `None`, too. Raises nothing.

    Args:
        think (`str`): The reasoning, bare.
        answer (`str`): The answer, bare.
        problem_type (`str`): The row's problem type.
        options (`Sequence[str]`, *optional*): The row's options.
        aliases (`Mapping[str, str]`, *optional*): More words for labels, as `AnswerReward` has them.

    >>> conclusion_agrees("Praise does not fit. So the answer is (B).", "B. taunt", "multiple choice", ["praise", "taunt"])
    True
    >>> conclusion_agrees("The voice is warm. Therefore, yes.", "no", "yes_no")
    False
    >>> conclusion_agrees("There is no smile. I should look again.", "no", "yes_no") is None
    True
    """
    texts = option_texts(options) if options and len(options) <= 26 else OptionTexts()
    bare = OptionTexts((letter, _bare(text)) for letter, text in texts.items())
    bare.letters = texts.letters
    kind = PROBLEM_TYPES.get(problem_type)
    reads = kind.reads if kind else "text"
    if reads == "verdict":
        return _same(_concluded(think, _verdict), read_yes_no(answer))
    if reads == "option" and texts:
        return _same(_concluded(think, lambda text, _: read_choice(_bare(text), bare)), read_choice(answer, texts))
    if reads == "options" and texts:
        said = _concluded(think, lambda text, _: frozenset(read_choices(_bare(text), bare)) or None)
        given, said = frozenset(read_choices(answer, texts)), cast("frozenset[str] | None", said)
        return None if not given or said is None or said < given else said == given
    if reads == "number":
        return _numbers_agree(_concluded(think, _number), _number(_plain(answer)))
    if kind and reads == "label":
        read = _label_reader(emotion_of(_bare(answer), aliases), kind.labels, bare, aliases)
        return _same(_concluded(think, read), read(answer, False))
    return None


def _concluded(think: str, read: _Reader) -> Hashable | None:
    """What `think` concludes, as `read` reads it: the last statement of an answer, else what its last sentence says."""
    texts = [_plain(sentence) for sentence in reversed(sentences(think[-_LONGEST:]))]
    for number, text in enumerate(texts):
        if "?" in text or len(text) > _LONGEST_SENTENCE:
            return None
        if stated := list(_STATED.finditer(text)):
            return _read_after(text, stated[-1].end(), read, is_answer=True)
        if number == 0:
            cues = [match.end() for match in _CUE.finditer(text)][-1:]
            links = [match.end() for match in _LINK.finditer(text, cues[0] if cues else 0)]
            places = cues + links if len(links) == 1 and (cues or _IT.match(text)) else cues
            for place in places:
                if (said := _read_after(text, place, read, is_answer=place in cues)) is not None:
                    return said
            if not _TAKEN_BACK.search(text) and (said := read(_FITS.sub("", text), False)) is not None:
                is_list = bool({read(other, False) for other in texts[1:]} - {None, said})  # of options, say
                return None if is_list else said
        if _TAKEN_BACK.search(text):
            return None
    return None


def _read_after(text: str, place: int, read: _Reader, is_answer: bool) -> Hashable | None:
    """What stands at `place` of a sentence, up to a reason or a comma; `None` where it is denied or taken back."""
    before, after = text[:place], text[place:]
    clause = before[max((match.start() for match in _CUE.finditer(before)), default=0) :]
    if _SUPPOSED.search(before) or _DENIED.search(clause):
        return None
    if (said := read(after, is_answer)) is not None and not _TAKEN_BACK.search(after):
        return said
    first, *others = re.split(r"[,;:]|\s\(|\s[-–—]\s", _REASON.split(after)[0])
    said = read(_FITS.sub("", first), is_answer)
    if _TAKEN_BACK.search(after) or any(read(other, is_answer) not in (None, said) for other in others):
        return None
    return said


def _plain(text: str) -> str:
    text = normalize(_MARKS.sub("", unicodedata.normalize("NFKC", text)))
    return re.sub(r"\b(it|that|answer)['’]s\b", r"\1 is", text)


def _bare(text: str) -> str:
    return re.sub(r"^(?:(?:option|a|an|the|clearly|simply|indeed|definitely)\s+)+", "", read_label(text))


def _verdict(text: str, is_answer: bool = False) -> str | None:
    return said if (said := _bare(text)) in ("yes", "no") else None


def _number(text: str, is_answer: bool = False) -> tuple[Decimal, str] | None:
    """A number and the one word behind it."""
    match = re.fullmatch(rf"({NUMBER}) ?([^ ,;:]*)", text.strip(" (){}.。,:;"))
    number = read_number(match[1]) if match else None
    return None if match is None or number is None else (number, match[2])


def _numbers_agree(said: Hashable | None, given: tuple[Decimal, str] | None) -> bool | None:
    if said is None or given is None:
        return None
    (number, unit), (other, other_unit) = cast("tuple[Decimal, str]", said), given
    if unit != other_unit:
        return None
    is_whole = number == number.to_integral_value() and other == other.to_integral_value()
    return True if number == other else None if not is_whole and abs(number - other) <= abs(other) / 100 else False


def _label_reader(
    given: str, labels: Collection[str], texts: OptionTexts, aliases: Mapping[str, str] | None
) -> _Reader:
    """Reads one of the row's labels; where none are listed a basic emotion, or any word named as the answer."""
    labels = texts.values() or labels
    basic = EMOTION_LABEL_SETS["DFEW"]
    known = {emotion_of(label, aliases) for label in labels or basic}
    if not labels and given not in known:
        known = {given}

    def read(text: str, is_answer: bool) -> str | None:
        text = _bare(text)
        name = emotion_of(texts.get(read_choice(text, texts) or "", text), aliases)
        is_open = not labels and is_answer and name.isascii() and name.isalpha() and name not in _VAGUE
        return name if name in known or is_open else None

    return read


def _same(said: Hashable | None, given: Hashable | None) -> bool | None:
    return None if said is None or given is None else said == given
