# SPDX-License-Identifier: Apache-2.0
"""What a chain of thought concludes, read from its sentences, the last first."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from ._elements import sense_of
from ._words import CLAUSE_WORDS, FUNCTION_WORDS, fold, is_negation, is_word, root, sentences, tokens, word_set
from ._written import NUMBER, read_number

_LONGEST = 2_000  # characters of one sentence; what is longer is no conclusion
_NUM_SENTENCES = 100  # a conclusion is looked for among the last so many
_STATES = re.compile(
    r"\b(?:answer|conclusion|verdict|label|option|choice)\b\s*(?:is|are|must be|should be|would be|[:=])?",
    re.IGNORECASE,
)
_CUE = re.compile(
    rf"{_STATES.pattern}|\b(?:so|thus|hence|therefore|conclude|means?|implies|points to|choose|pick)\b|[=⇒→]",
    re.IGNORECASE,
)
_DENIED = re.compile(r"\b(?:rule[sd]? out|incorrect|wrong|unlikely|eliminated?|rather than|instead of|unlike)\b")
_LINK = re.compile(
    r"\b(?:is|are|be|means?|suggests|indicates|shows|looks|sounds|seems|appears|expresses|conveys|reads|says|spells)\b"
)
# (B), option b, B. or B) before a blank, a letter that ends the sentence or begins a list, and B itself; a bare A or I
# elsewhere is a word.
_LETTER = re.compile(
    r"^\W*([A-Za-z])(?=\s*(?:,|\bor\b|\band\b))|"
    r"\(([A-Za-z])\)|\b[Oo]ption ([A-Za-z])\b|(?<![^\s])([A-Za-z])[.)](?=\s)|\b([A-Za-z])[.):]?(?=\s*$)|\b([B-HJ-Z])\b"
)
_REASON = re.compile(r"(?<=\w) (?:because|since|which|given|whereas)\b")
_NUMBERS_IN_WORDS = {
    word: Decimal(number)
    for number, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
            "twenty",
        ]
    )
}
_AGREE = word_set(
    "agree agrees agreed agreement match matches matched matching consistent congruent align aligns aligned"
)
_DISAGREE = word_set(
    "disagree disagrees disagreed disagreement mismatch mismatched inconsistent incongruent contradict contradicts "
    "contradictory conflict conflicts conflicting clash clashes differ differs different"
)
_HEDGES = word_set(
    "unclear uncertain unknown difficult hard possible impossible ambiguous obvious clear true right correct wrong "
    "important needed question answer there here yes no agree agreed enough evident"
)
TRIMMINGS = (FUNCTION_WORDS - CLAUSE_WORDS - {"or"}) | word_set(
    "clearly probably likely simply indeed definitely mostly"
)


def backwards(think: str) -> Iterator[str]:
    """The last sentences that state something, the last first: no questions, none too long to be a conclusion."""
    for sentence in reversed(sentences(unicodedata.normalize("NFKC", think))[-_NUM_SENTENCES:]):
        if len(sentence) <= _LONGEST and not sentence.endswith("?"):
            yield sentence


def concluded_verdict(think: str, question: str = "") -> str | None:
    """`"yes"` or `"no"`: said as such, or said as agreement or disagreement of what the question asks about."""
    asks_for_difference = not _DISAGREE.isdisjoint(tokens(question))
    for sentence in backwards(think):
        text = " ".join(fold(sentence).split())
        stated = re.search(r"(?:answer|verdict|conclusion)\b[^.]*?\b(yes|no)\b", text)
        stated = stated or re.search(r"(?:^|\b(?:so|thus|hence|therefore),? )[\"'“]?(yes|no)\b(?=\W*$|[,.;:!])", text)
        stated = stated or re.search(r"\b(?:is|be|:) [\"'“*]*(yes|no)\W*$", text)
        if stated:
            return stated[1]
        words = tokens(sentence)
        places = [place for place, word in enumerate(words) if word in _AGREE | _DISAGREE]
        if not places:
            continue
        clause = words[: places[-1]]
        start = max((place + 1 for place, word in enumerate(clause) if _ends_clause(word)), default=0)
        if not {"if", "whether"}.isdisjoint(words[max(0, start - 1) : places[-1]]):
            continue
        differ = (words[places[-1]] in _DISAGREE) != any(map(is_negation, clause[start:]))
        return "yes" if differ == asks_for_difference else "no"
    return None


def _ends_clause(word: str) -> bool:
    return not is_word(word) or word in CLAUSE_WORDS


def concluded_options(think: str, texts: Mapping[str, str]) -> set[str] | None:
    """
    Letters of the options that the last sentence which names any concludes; `None` where no sentence does.

    `texts` are the options' normalised texts by letter. What stands after a word such as "so" or "answer" goes before
    the rest of its sentence; an option that is negated or ruled out does not count.
    """
    for sentence in backwards(think):
        last_cue = max((match.end() for match in _CUE.finditer(sentence)), default=0)
        if named := named_options(sentence[last_cue:], texts) or named_options(sentence, texts):
            return named
    return None


def named_options(sentence: str, texts: Mapping[str, str]) -> set[str]:
    """Letters of the options that `sentence` names, by letter or by text, without denying them."""
    spans: list[tuple[int, int, str]] = []
    for letter, option in texts.items():
        if len(option) > 1:
            found = re.finditer(rf"(?<!\w){re.escape(option)}(?!\w)", sentence, re.IGNORECASE)
            spans += [(*match.span(), letter) for match in found]
    # "very happy" is not also "happy"
    spans = [a for a in spans if not any(b[:2] != a[:2] and b[0] <= a[0] and a[1] <= b[1] for b in spans[:200])]
    spans += [(*match.span(), match[match.lastindex or 0].lower()) for match in _LETTER.finditer(sentence)]
    named: set[str] = set()
    for start, end, letter in spans[:200]:
        before = re.split(r"[,;]|\b(?:but|so)\b", sentence[max(0, start - 200) : start].lower())[-1]
        after = re.split(r"[,;]|\b(?:but|so|and)\b", sentence[end : end + 200].lower())[0]
        is_denied = any(map(is_negation, tokens(before))) or _DENIED.search(before)
        if (
            letter in texts
            and not is_denied
            and not _DENIED.search(after)
            and not re.search(r"\bnot\b|n['’]t\b", after)
        ):
            named.add(letter)
    return named


def concluded_phrases(think: str) -> Iterator[tuple[int, list[str]]]:
    """
    What sentences end in, the last sentence first: `(weight, roots)` of what stands after its last "is", "means", ….

    The weight is 2 where the sentence names an answer, 1 where it draws a conclusion ("so", "means"), else 0. Words
    that decide nothing are left out; a denied or vague phrase, or one of several alternatives, is not given.
    """
    for sentence in backwards(think):
        text = _REASON.split(fold(sentence))[0]
        links = [match.end() for match in re.finditer(rf"{_LINK.pattern}|{_CUE.pattern}", text)]
        if not links:
            continue
        words = tokens(text[links[-1] :].lstrip(" :\"'“*"))
        end = next((place for place, word in enumerate(words) if word != "," and _ends_clause(word)), len(words))
        phrase = [word for word in words[:end] if word not in TRIMMINGS and word != ","]
        is_several = (
            "or" in phrase or "," in words[:end] or (words[end : end + 1] == ["and"] and len(words) == end + 2)
        )
        is_vague = all(word in _HEDGES or sense_of(word) for word in phrase)
        if not is_several and not is_vague and not any(map(is_negation, phrase)):
            weight = 2 if _STATES.search(text) else 1 if _CUE.search(text) else 0
            yield weight, [root(word) for word in phrase]


def concluded_numbers(think: str) -> list[Decimal] | None:
    """The numbers of the last sentence that has any: those after its last cue, if there are, else all of them."""
    for sentence in backwards(think):
        text = fold(sentence)
        cue = max((match.end() for match in _CUE.finditer(text)), default=0)
        for part in (text[cue:], text):
            if found := numbers_in(part):
                return found
    return None


def numbers_in(text: str) -> list[Decimal]:
    """All numbers of `text`, also zero to twenty in words."""
    found: list[Decimal] = []
    for match in re.finditer(rf"(?<![\w.]){NUMBER}(?![\w]|\.[0-9])|[a-z]+", text):
        number = _NUMBERS_IN_WORDS.get(match[0]) if match[0].isalpha() else read_number(match[0])
        found += [] if number is None else [number]
    return found


def contains(row: Sequence[object], part: Sequence[object]) -> bool:
    """Whether `part` stands in `row`, whole and in order."""
    return any(list(row[i : i + len(part)]) == list(part) for i in range(len(row) - len(part) + 1))
