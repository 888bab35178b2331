# SPDX-License-Identifier: Apache-2.0
"""Words of a text as the offline scorers compare them: without inflection, synonyms of one emotion as one."""

import re
import unicodedata
from functools import lru_cache

from .emotions import EMOTION_ALIASES

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
# A run of a script without spaces, a word, a number, or a mark that ends a clause.
_TOKEN = re.compile(rf"[{_CJK}]+|[^\W\d_{_CJK}]+(?:['’][^\W\d_{_CJK}]+)*|\d+(?:[.,]\d+)*|[,;:()—，；：（）、]")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)]*\s+|(?<=[。！？])|\n+")


def word_set(words: str) -> frozenset[str]:
    """The words of a string, set apart by blanks."""
    return frozenset(words.split())


NEGATIONS = word_set("not no never neither nor cannot without hardly")
CLAUSE_WORDS = word_set("and but while whereas with as although though yet so then when where because since if")
FUNCTION_WORDS = CLAUSE_WORDS | word_set(
    "a an the this that these those it its he him his she her hers they them their theirs we us our i me my you your "
    "one ones who whom whose which what how why there here is are was were be been being am do does did doing done has "
    "have had having can could will would shall should may might must of in on at by to for from into onto over under "
    "about between through during before after above below up down out off again further than too very quite rather "
    "really also just only even still both each all any some such own same other another more most much many few or "
    "if because until s t like 's per via upon around against along"
)


def fold(text: str) -> str:
    """Compatibility forms unified and case folded; line breaks kept."""
    return unicodedata.normalize("NFKC", text).casefold()


def sentences(text: str) -> list[str]:
    """The sentences of `text`, none of them blank."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part and part.strip()]


def tokens(text: str) -> list[str]:
    """
    Words, numbers and clause marks of `text`, folded; Chinese and Japanese as pairs of neighbouring characters.

    >>> tokens("The face isn't HAPPY, 3.5 times."), tokens("他很高兴")
    (['the', 'face', "isn't", 'happy', ',', '3.5', 'times'], ['他很', '很高', '高兴'])
    """
    found: list[str] = []
    for token in _TOKEN.findall(fold(text)):
        is_run = len(token) > 2 and re.match(f"[{_CJK}]", token)
        found += [token[i : i + 2] for i in range(len(token) - 1)] if is_run else [token]
    return found


def is_word(token: str) -> bool:
    return token[0].isalnum()


def is_negation(token: str) -> bool:
    return token in NEGATIONS or token.endswith(("n't", "n’t"))


@lru_cache(maxsize=1 << 15)
def root(word: str) -> str:
    """
    What `word` is compared by: the name of its emotion, if it is a word for one, without its inflection.

    A light stemmer, not a dictionary: smile, smiles, smiling, smiled are one, ran and run are two.

    >>> root("smiling") == root("smiles"), root("furious") == root("anger"), root("warm") == root("cold")
    (True, True, False)
    """
    word = word.replace("’", "'").removesuffix("'s")
    return _stem(EMOTION_ALIASES.get(word, word))


def _stem(word: str) -> str:
    if len(word) <= 3 or not word.isascii():
        return word
    for ending, instead in (("iness", "y"), ("ily", "y"), ("ness", ""), ("ly", ""), ("ies", "y")):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending) + instead
            break
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        left = word.removesuffix(ending)
        if left != word and len(left) >= 3 and re.search("[aeiouy]", left):
            word = left[:-1] if left[-1] == left[-2] and left[-1] not in "lsz" else left
            break
    word = word.removesuffix("e")
    return word[:-1] + "i" if word.endswith("y") else word
