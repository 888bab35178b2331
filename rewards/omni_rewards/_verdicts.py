# SPDX-License-Identifier: Apache-2.0
"""Yes or no, as an answer states it."""

import re

from ._written import normalize

_YES = ("yes", "是", "是的", "对", "对的", "正确", "是对的")
_NO = ("no", "否", "不", "不是", "不是的", "不对", "不对的", "不正确", "错", "错的", "错误")
_VERDICTS: dict[str, str] = {**dict.fromkeys(_YES, "yes"), **dict.fromkeys(_NO, "no")}
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_CLAUSE_END = re.compile(r"[.,;!?。、–—→]+|\b(?:because|since|so|therefore|thus|hence)\b")
# "No" before a word such as these is a verdict ("No they do not"); before others it is "no sound", "no idea", and of
# "yes is wrong" nobody says yes.
_NO_SUCH = re.compile(
    r"(?<!\bor )(?<!\band )(?<!\byes )\bno (?=\w)"
    r"(?!(?:they|he|she|it|i|we|you|there|the|this|that|these|those|his|her|their|its|my|not|no|yes|or|and|as)\b)|"
    r"\byes (?=(?:is|isn't|was|would|can|cannot|can't|could|seems)\b)"
)
# What may stand before a verdict in its clause; after any other word, "not" among them, it is none.
_BEFORE = re.compile(
    r"(?:(?:the|an?|my|our|final|correct|right|answer|response|verdict|conclusion|is|it|it's|this|that|that's|be|must|"
    r"would|should|will|i|i'd|we|can|one|say|think|believe|well|oh|ok|okay|then|overall|definitely|certainly|absolutely|"
    r"clearly|probably|likely|most|surely|simply|just|of|course|maybe|perhaps|possibly|clear|definite|to|question|"
    r"and|or|actually|boxed|text)\b|我认为|正确|答案|应该|是|为|[\W_])*"
)


def read_yes_no(text: str) -> str | None:
    """
    `"yes"` or `"no"`: the verdict that `text` is, or that its sentences state; `None` for both or neither.

    The first time that it is said it must be a verdict: one that is denied ("not a yes") or told of somebody ("he says
    no") is none, while "no sound" and "no idea" are passed over.

    >>> read_yes_no("No, they do not."), read_yes_no("Yes, there is no sound."), read_yes_no("definitely not a yes")
    ('no', 'yes', None)
    """
    written = _NO_SUCH.sub("", normalize(text.replace("\n", ". ")).replace("’", "'"))
    clauses = ((clause, _WORD.finditer(clause)) for clause in _CLAUSE_END.split(written))
    said = [(clause[: word.start()], word[0]) for clause, words in clauses for word in words if word[0] in _VERDICTS]
    verdicts = {_VERDICTS[word] for _, word in said}
    return verdicts.pop() if len(verdicts) == 1 and _BEFORE.fullmatch(said[0][0]) else None
