# SPDX-License-Identifier: Apache-2.0
"""Whether reasoning says the same as the answer that follows it and the context that precedes it."""

from collections.abc import Callable, Sequence

from ._claims import grounding
from ._conclusions import (
    TRIMMINGS,
    backwards,
    concluded_numbers,
    concluded_options,
    concluded_phrases,
    concluded_verdict,
    contains,
    named_options,
    numbers_in,
)
from ._elements import key_elements
from ._options import option_texts, read_choice, read_choices
from ._verdicts import read_yes_no
from ._words import fold, root, tokens
from .emotions import EMOTION_ALIASES, emotions_of

Options = Sequence[str] | None

# What a think section concludes can be read for these, so that one which concludes nothing has failed to.
READABLE_TYPES = frozenset(
    {
        *("multiple choice", "emer_ov_mc", "yes_no", "judge", "label", "numerical", "regression"),
        *("emotion", "DFEW", "MAFW", "RAVDESS"),
    }
)


def conclusion_agrees(
    think: str, answer: str, problem_type: str, options: Options = None, question: str = ""
) -> bool | None:
    """
    Whether the reasoning concludes the answer that is given; `None` where it concludes nothing that can be recognised.

    Options are read by letter and by text, verdicts from yes, no and words of agreement ("they do not agree"), numbers
    as digits and as words, emotions by their synonyms, and anything else from what sentences end in after "so … is",
    "means", "the answer is", or "is". The last sentence that concludes something counts; questions and what is negated
    or ruled out do not. English; conclusions in another language are mostly `None`. Raises nothing.

    Args:
        think (`str`): The reasoning, bare.
        answer (`str`): The answer, bare.
        problem_type (`str`): The row's problem type; an unknown one is read like free text.
        options (`Sequence[str]`, *optional*): The row's options.
        question (`str`, *optional*):
            Where it asks for a difference ("Do they disagree?"), agreement means no; without it, yes.

    >>> conclusion_agrees("The voice is warm, so this is praise.", "taunt", "label")
    False
    >>> conclusion_agrees("Praise does not fit. So the answer is (B).", "B. taunt", "multiple choice", ["praise", "taunt"])
    True
    >>> conclusion_agrees("I should look again.", "42", "numerical") is None
    True
    """
    if problem_type in ("yes_no", "judge"):
        return _same(concluded_verdict(think, question), read_yes_no(answer))
    if options and len(options) <= 26:
        letters = _options_agree(think, answer, options, is_list=problem_type == "emer_ov_mc")
        if letters is not None or problem_type in ("multiple choice", "emer_ov_mc"):
            return letters
    return _READERS.get(problem_type, _text_agrees)(think, answer)


def reasoning_score(
    think: str, agrees: bool | None, problem_type: str, context: str | None = None, reference: str | None = None
) -> float | None:
    """
    Score in `[0, 1]` of one bare think section, by the formula of `reasoning_reward`; `None` if no part applies.

    `agrees` is what `conclusion_agrees` returned. Raises nothing.

    >>> reasoning_score("The voice is cold. So no.", True, "yes_no", context="A cold voice.")
    1.0
    """
    if agrees is False:
        return 0.0
    parts: list[float] = []
    if agrees or problem_type in READABLE_TYPES:
        parts.append(float(bool(agrees)))
    said = _plain_elements(think)
    if context is not None:
        claimed = grounding(think, context)
        parts += [] if claimed is None else [claimed]
        seen = _plain_elements(context)
        parts += [float(not seen.isdisjoint(said))] if seen else []
    if reference is not None and (gold := _plain_elements(reference)):
        parts.append(2 * len(gold & said) / (len(gold) + len(said)))
    return sum(parts) / len(parts) if parts else None


def _plain_elements(text: str) -> set[str]:
    """Elements of `text` under whatever sense, negated or not."""
    return {element.removeprefix("not ") for elements in key_elements(text).values() for element in elements}


def _same(concluded: str | None, given: str | None) -> bool | None:
    return None if concluded is None or given is None else concluded == given


def _options_agree(think: str, answer: str, options: Sequence[str], is_list: bool) -> bool | None:
    texts = option_texts(options)
    concluded = concluded_options(think, texts)
    if not is_list:
        choice = read_choice(answer, texts)
        return None if concluded is None or len(concluded) > 1 or choice is None else concluded == {choice}
    chosen = read_choices(answer, texts)
    if concluded is None or not chosen:
        return None
    # The last sentence may name the last of several alone; none of it may be missing, none of the answer unheard of.
    mentioned = set[str]().union(*(named_options(sentence, texts) for sentence in backwards(think)))
    return concluded <= chosen <= mentioned


def _number_agrees(think: str, answer: str) -> bool | None:
    given, concluded = numbers_in(fold(answer)), concluded_numbers(think)
    if len(given) != 1 or not concluded:
        return None
    if given[0] in (concluded[0], concluded[-1]):  # "the answer is 7 of 12", "3 and 4 is 7"
        return True
    return None if given[0] in concluded else False


def _numbers_agree(think: str, answer: str) -> bool | None:
    """Boxes and spans: the same numbers in the same order."""
    given, concluded = numbers_in(fold(answer)), concluded_numbers(think)
    if not given or not concluded:
        return None
    if contains(concluded, given):
        return True
    return False if len(given) == len(concluded) else None


def _emotions_agree(think: str, answer: str) -> bool | None:
    given = emotions_of(answer)
    if not given <= set(EMOTION_ALIASES.values()):
        return _text_agrees(think, answer)
    names = {root(name): name for name in EMOTION_ALIASES.values()}
    for sentence in backwards(think):
        said = set[str]().union(*key_elements(sentence).values())
        if concluded := {names[element] for element in said if element in names}:
            return True if concluded == given else False if concluded.isdisjoint(given) else None
    return None


def _text_agrees(think: str, answer: str) -> bool | None:
    words = tokens(answer)
    given = [root(word) for word in words if word not in TRIMMINGS] or [root(word) for word in words]
    phrases = list(concluded_phrases(think))
    if not given or not phrases:
        return None
    weight = max(weight for weight, _ in phrases)
    phrase = next(phrase for w, phrase in phrases if w == weight)  # the last of the strongest
    if contains(phrase, given):
        return True
    said = set[str]().union(*key_elements(think).values())
    is_another = len(phrase) <= 2 and len(given) <= 3 and (weight == 2 or said.isdisjoint(given))
    return False if is_another else None


_READERS: dict[str, Callable[[str, str], bool | None]] = {
    **dict.fromkeys(("numerical", "regression"), _number_agrees),
    **dict.fromkeys(("box", "box_giou", "boxes", "time_span"), _numbers_agree),
    **dict.fromkeys(("emotion", "DFEW", "MAFW", "RAVDESS", "emer_ov"), _emotions_agree),
}
