# SPDX-License-Identifier: Apache-2.0
"""Scores of answers that name options, or say yes or no."""

import re

from ._options import OptionTexts, option_texts, read_choice, read_choices
from ._scored import Options, Scored
from ._verdicts import read_yes_no
from ._written import normalize


def chance_corrected_f1(num_right: int, num_answered: int, num_gold: int, num_options: int) -> float:
    r"""
    F1 of two sets of options, corrected for what a blind answer of the same size would get.

    $$R = \max\left(0, \frac{F_1 - E}{1 - E}\right) \in [0, 1], \quad E = \frac{2 s k}{n (s + k)}$$

    with $$s$$ options answered, $$k$$ in the gold set and $$n$$ offered; $$E$$ is the mean $$F_1$$ of all answers of
    $$s$$ options. This is Cohen's kappa between the two choices. Choosing everything earns 0, and so does on average,
    before it is cut off at 0, every answer that does not depend on the gold set. Where all options are gold there is
    nothing to choose wrongly, and the value is $$F_1$$ itself.

    >>> chance_corrected_f1(num_right=1, num_answered=1, num_gold=2, num_options=4)
    0.5
    >>> chance_corrected_f1(num_right=2, num_answered=4, num_gold=2, num_options=4)
    0.0
    """
    f1 = 2 * num_right / (num_answered + num_gold)
    if num_gold == num_options:
        return f1
    # (F1 - E) / (1 - E), multiplied out: one minus the observed over the expected number of differing options.
    differing = num_answered + num_gold - 2 * num_right
    expected = num_answered * (num_options - num_gold) + num_gold * (num_options - num_answered)
    return max(0.0, 1 - num_options * differing / expected)


def score_choice(answer: str, solution: str, options: Options) -> Scored:
    """Whether `answer` names the one gold option."""
    texts = option_texts(options)
    gold = read_choice(solution, texts)
    if gold is None:
        raise ValueError(f"gold answer {solution!r} is not one of the options {options}")
    chosen = read_choice(answer, texts)
    if chosen is None:
        return Scored(0.0, None, is_spam=_names_several(answer, texts))
    return Scored(float(chosen == gold), chosen.upper(), is_spam=False)


def _names_several(answer: str, texts: OptionTexts) -> bool:
    letters = set(re.findall(r"\b[a-z]\b", normalize(answer[:1000]))) & texts.keys()
    return len(letters) > 1 or len(read_choices(answer[:1000], texts)) > 1


def score_choices(answer: str, solution: str, options: Options, chance_corrected: bool = True) -> Scored:
    """F1 of the two sets of options, by default corrected for chance."""
    texts = option_texts(options)
    gold = read_choices(solution, texts)
    if not gold:
        raise ValueError(f"gold answer {solution!r} is not a list of the options {options}")
    chosen = read_choices(answer, texts)
    if not chosen:
        return Scored(0.0, None, is_spam=False)
    right = len(chosen & gold)
    if chance_corrected:
        score = chance_corrected_f1(right, len(chosen), len(gold), len(texts))
    else:
        score = 2 * right / (len(chosen) + len(gold))
    return Scored(score, ",".join(sorted(chosen)).upper(), is_spam=len(chosen) == len(texts) > len(gold))


def score_yes_no(answer: str, solution: str) -> Scored:
    """Whether `answer` says yes or no as the gold answer does."""
    gold = read_yes_no(solution)
    if gold is None:
        raise ValueError(f"gold answer {solution!r} is neither yes nor no")
    said = read_yes_no(answer)
    if said is None:
        return Scored(0.0, None, is_spam={"yes", "no"} <= set(re.findall(r"\w+", normalize(answer))))
    return Scored(float(said == gold), said, is_spam=False)
