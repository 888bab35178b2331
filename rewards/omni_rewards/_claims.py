# SPDX-License-Identifier: Apache-2.0
"""What a text claims of a face or a voice, and whether a description bears it out."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ._elements import AUDIO, UNMARKED, VISUAL, is_element, key_elements, sense_of
from ._words import FUNCTION_WORDS, is_negation, is_word, root, sentences, tokens, word_set

_SUBJECTS = word_set("face expression voice tone speech eyes mouth gaze smile music sound gesture posture")
_LINKS = word_set(
    "is are was were look looks looked sound sounds sounded seem seems seemed appear appears appeared remain remains "
    "feel feels"
)
_AUXILIARIES = word_set("do does did doesn't don't didn't")
_RELATIVES = word_set("that which who")
_BEFORE_LINK = _AUXILIARIES | _RELATIVES | {"alone", "also", "still"}
_BEFORE_ATTRIBUTE = word_set("very so quite really rather too also both a an like to be more most")
_JOINS = word_set(", and or but")


class Claim(NamedTuple):
    """That what is seen or heard is so, or is not so."""

    sense: str
    element: str
    negated: bool


def claims(text: str) -> list[Claim]:
    """
    Claims of the forms "the face is (not) X", "an X voice", "both are X", "so is the face", and "it is X" after a bare
    "the face"; each once, in order.

    >>> claims("A warm voice. I look at the face. It does not look happy.")
    [Claim(sense='audio', element='affectionat', negated=False), Claim(sense='visual', element='happi', negated=True)]
    """
    found: list[Claim] = []
    pending: str | None = None  # sense of a subject that was named and of which nothing has been said yet
    for sentence in sentences(text):
        words = tokens(sentence)
        for position, word in enumerate(words):
            if word in _SUBJECTS and (sense := sense_of(word)):
                said = list(_attributes_before(words, position))
                # "With a warm voice that is praise": such a relative clause is not about the voice
                if not said or _at(words, position + 1) not in _RELATIVES:
                    said += _said_of(words, position + 1) or _said_by_ellipsis(words, position, found)
                found += [Claim(sense, *claim) for claim in said]
                pending = None if said else sense
            elif word == "it" and pending and (said := _said_of(words, position + 1)):
                found += [Claim(pending, *claim) for claim in said]
                pending = None
            elif word == "both":
                link = position - 1 if _at(words, position - 1) in _LINKS else position + 1
                found += [Claim(sense, *claim) for sense in (VISUAL, AUDIO) for claim in _said_of(words, link)]
    return list(dict.fromkeys(found))


def _at(words: Sequence[str], position: int) -> str:
    return words[position] if 0 <= position < len(words) else ""


def _attributes_before(words: Sequence[str], position: int) -> Iterator[tuple[str, bool]]:
    """The adjectives of "a low, trembling voice", up to ten."""
    start = position
    while start > max(0, position - 10) and (is_element(words[start - 1]) or words[start - 1] == ","):
        start -= 1
    if start > 0 and (words[start - 1] in FUNCTION_WORDS or is_negation(words[start - 1])):
        negated = any(is_negation(word) for word in words[max(0, start - 2) : start])
        for word in words[start:position]:
            if is_word(word) and not word.endswith(("'s", "’s")):
                yield root(word), negated


def _said_of(words: Sequence[str], position: int) -> list[tuple[str, bool]]:
    """What follows a subject and a link: `(element, negated)` of each of the joined attributes."""
    said: list[tuple[str, bool]] = []
    negated, has_link, is_open = False, False, True
    for word in words[position : position + 20]:
        if is_negation(word):
            negated = True
            has_link |= word.removesuffix("n't").removesuffix("n’t") in _LINKS
        elif word in _LINKS and not has_link:
            has_link = True
        elif not has_link:
            if word not in _BEFORE_LINK:
                break
        elif is_element(word) and is_open:
            said.append((root(word), negated))
            negated, is_open = False, False
        elif word in _JOINS:
            is_open = True
            negated |= word == "or" and bool(said) and said[-1][1]
        elif word not in _BEFORE_ATTRIBUTE:
            break
    return said


def _said_by_ellipsis(words: Sequence[str], position: int, found: Sequence[Claim]) -> list[tuple[str, bool]]:
    """ "The voice is sad and so is the face", "the voice is sad and the face is not": the claim before, taken up."""
    if not found:
        return []
    before, after = words[max(0, position - 3) : position], words[position + 1 :]
    if "so" in before and not _LINKS.isdisjoint(before):
        return [(found[-1].element, found[-1].negated)]
    is_denied = len(after) <= 2 and any(map(is_negation, after))  # "… is not." or "… isn't." ends the sentence
    return [(found[-1].element, not found[-1].negated)] if is_denied else []


def grounding(think: str, context: str) -> float | None:
    """
    Share of the claims of `think` that `context` bears out; `None` if it claims nothing.

    A claim holds if the context has the element under the same sense, a negated one if it does not. A context that
    marks no sense at all is searched as a whole.
    """
    made = claims(think)
    if not made:
        return None
    said: dict[str, set[str]] = key_elements(context)
    if not said[VISUAL] and not said[AUDIO]:
        said = {VISUAL: said[UNMARKED], AUDIO: said[UNMARKED]}
    return sum((claim.element in said[claim.sense]) != claim.negated for claim in made) / len(made)
