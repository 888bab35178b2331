# SPDX-License-Identifier: Apache-2.0
"""Key elements of a description, what is seen apart from what is heard."""

import re
from bisect import bisect
from collections.abc import Iterator, Sequence

from ._words import CLAUSE_WORDS, FUNCTION_WORDS, is_negation, is_word, root, sentences, tokens, word_set

VISUAL, AUDIO, UNMARKED = "visual", "audio", "unmarked"


def _roots(words: str) -> frozenset[str]:
    return frozenset(root(word) for word in words.split())


# What only names the sense. They place the words around them and are no elements themselves.
_SIGHT = _roots(
    "face facial expression image picture photo photograph video frame frames footage clip camera screen visual visually "
    "see sees seen saw look looks looked looking watch show shows shown showing display displays view visible sight "
    "画面 视频 图片 图像 表情 看到 看见 镜头"
)
_HEARING = _roots(
    "voice voices vocal vocally audio acoustic sound sounds sounded sounding hear hears heard hearing listen listening "
    "audible audibly tone speech soundtrack 声音 音频 听到 听见 语气 语调"
)
# What can only be seen or only be heard: these place the words around them, and are elements too.
_SEEN = _roots(
    "frown smile grin eye brow eyebrow mouth lip gaze gesture posture wear stand sit nod tear colour color hair shirt "
    "suit dress jacket hand arm head background foreground bright dark red blue green yellow white black"
)
_HEARD = _roots(
    "music song loud quiet loudness shout whisper laugh laughter say speak talk sing pitch volume noise hum murmur "
    "scream yell sigh sob tremble intonation accent word words melody rhythm beat applause"
)
_SENSE = {**dict.fromkeys(_SIGHT | _SEEN, VISUAL), **dict.fromkeys(_HEARING | _HEARD, AUDIO)}
# What follows in the sentence is supposed, not said; "as if" is how something looks.
_SUPPOSING = word_set("if whether unless would should 如果 是否")
_NO_ELEMENT = _SIGHT | _HEARING | _roots("seem seems appear appears notice observe feel note perceive clearly")


def sense_of(token: str) -> str | None:
    """`"visual"` or `"audio"` for a word that tells which sense is spoken of; `None` for any other."""
    return _SENSE.get(root(token)) if is_word(token) else None


def is_element(token: str) -> bool:
    """Whether a word says something: no function word, no negation, no mere name of a sense."""
    if not is_word(token) or is_negation(token) or token in FUNCTION_WORDS or token in _SUPPOSING:
        return False
    return root(token) not in _NO_ELEMENT


def key_elements(text: str) -> dict[str, set[str]]:
    """
    What `text` says, as sets of roots under `"visual"`, `"audio"` and `"unmarked"`; a negated word is another element,
    and so is one that is asked, or supposed.

    A clause belongs to the sense that a word in it names. One that names none belongs with the clause before it in its
    sentence, else with the one after, else with the sentence before; what stands before any of them is unmarked.

    >>> {sense: sorted(found) for sense, found in key_elements("He smiles. I hear that his voice is not warm.").items()}
    {'visual': ['smil'], 'audio': ['not affectionat'], 'unmarked': []}
    """
    found: dict[str, set[str]] = {VISUAL: set(), AUDIO: set(), UNMARKED: set()}
    before = UNMARKED
    for sentence in sentences(text):
        words = tokens(sentence)
        sure = _num_sure(sentence, words)
        clauses = [*(said := _clauses(words[:sure])), *_clauses(words[sure:])]
        named = [_named_senses(clause) for clause in clauses]
        first = next((senses[0] for _, senses in named if senses), before)
        place = None
        for number, (clause, (positions, senses)) in enumerate(zip(clauses, named, strict=True)):
            place = senses[0] if senses else place or first
            for position, element in _clause_elements(clause):
                element = element if number < len(said) else f"if {element}"
                found[_nearest(position, positions, senses) or place].add(element)
        before = place or before
    return found


def runs(text: str) -> Iterator[list[str]]:
    """
    Elements that stand side by side, in their order: "three men argue", "red coat".

    >>> list(runs("Three men argue about a red coat."))
    [['thre', 'men', 'argu'], ['red', 'coat']]
    """
    for sentence in sentences(text):
        for clause in _clauses(tokens(sentence)):
            run, end = list[str](), 0
            for position, element in _clause_elements(clause):
                if run and position > end:
                    yield run
                    run = []
                run.append(element)
                end = position + 1
            if run:
                yield run


def _num_sure(sentence: str, words: Sequence[str]) -> int:
    """How many of its words a sentence says: none of a question's, those before an "if"."""
    if sentence.endswith(("?", "？")) and not re.search('["“”«»]', sentence):  # a quotation may well ask
        return 0
    supposing = (i for i, word in enumerate(words) if word in _SUPPOSING and words[max(i - 1, 0)] != "as")
    return next(supposing, len(words))


def _clauses(words: Sequence[str]) -> list[list[str]]:
    clauses: list[list[str]] = [[]]
    for word in words:
        if is_word(word) and word not in CLAUSE_WORDS:
            clauses[-1].append(word)
        elif clauses[-1]:
            clauses.append([])
    return clauses


def _named_senses(clause: Sequence[str]) -> tuple[list[int], list[str]]:
    named = [(position, sense) for position, word in enumerate(clause) if (sense := sense_of(word))]
    return [position for position, _ in named], [sense for _, sense in named]


def _nearest(position: int, positions: Sequence[int], senses: Sequence[str]) -> str | None:
    """The sense named nearest to `position`, the later of two as near; `None` where none is named."""
    at = bisect(positions, position)
    near = [(abs(positions[i] - position), -i, senses[i]) for i in (at - 1, at) if 0 <= i < len(positions)]
    return min(near)[2] if near else None


def _clause_elements(clause: Sequence[str]) -> Iterator[tuple[int, str]]:
    """`(position, element)`; a negation turns the next element, and those joined to it by "or"."""
    negated = turned = False
    for position, word in enumerate(clause):
        if is_negation(word):
            negated = True
        elif word == "or":
            negated = turned
        elif is_element(word) or (position and clause[position - 1] in ("no", "without") and sense_of(word)):
            yield position, f"not {root(word)}" if negated else root(word)
            negated, turned = False, negated
