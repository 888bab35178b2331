# SPDX-License-Identifier: Apache-2.0
"""Figures of classification and of answer sets. Standard library only; recalls are fractions, not percent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Sequence

__all__ = ["out_of_vocabulary", "set_f1", "unweighted_average_recall", "weighted_average_recall"]


def weighted_average_recall(gold: Sequence[Hashable], predicted: Sequence[Hashable]) -> float:
    r"""
    WAR: the recall of each class, weighted by how often the class occurs; higher is better.

    $$\mathrm{WAR} = \sum_{c} \frac{n_c}{N} \cdot \frac{h_c}{n_c} = \frac{1}{N} \sum_i [g_i = p_i] \in [0, 1]$$

    with $$n_c$$ items of class $$c$$ in the gold labels and $$h_c$$ of them predicted right. That is plain accuracy.

    A prediction that is none of the gold's classes is a miss, and so is `None`, which stands for "gave no label".

    Args:
        gold (`Sequence[Hashable]`): One label an item, shape `(N,)`, spelled as in `predicted`.
        predicted (`Sequence[Hashable]`): One label an item, shape `(N,)`, or `None`.

    Raises `ValueError` if the lengths differ or there is no item.

    Source: the metric of DFEW (https://dl.acm.org/doi/10.1145/3394171.3413620), there in percent.

    >>> weighted_average_recall(["sad", "sad", "sad", "happy"], ["sad", "sad", "wistful", None])
    0.5
    """
    _check(gold, predicted)
    return sum(g == p for g, p in zip(gold, predicted, strict=True)) / len(gold)


def unweighted_average_recall(gold: Sequence[Hashable], predicted: Sequence[Hashable]) -> float:
    r"""
    UAR: the mean of the classes' recalls, each class counting the same however rare it is; higher is better.

    $$\mathrm{UAR} = \frac{1}{|C|} \sum_{c \in C} \frac{h_c}{n_c} \in [0, 1]$$

    over the classes $$C$$ that occur in the gold labels. That is balanced accuracy; always giving one class earns
    $$1 / |C|$$.

    A prediction that is none of these classes is a miss of its item's class and makes no class of its own; `None`
    likewise.

    Args:
        gold (`Sequence[Hashable]`): One label an item, shape `(N,)`, spelled as in `predicted`.
        predicted (`Sequence[Hashable]`): One label an item, shape `(N,)`, or `None`.

    Raises `ValueError` if the lengths differ or there is no item.

    Source: B. Schuller et al. (2009), "The INTERSPEECH 2009 Emotion Challenge"; R1-Omni
    (https://huggingface.co/papers/2503.05379) gives it in percent.

    >>> unweighted_average_recall(["sad", "sad", "sad", "happy"], ["sad", "sad", "sad", "wistful"])
    0.5
    """
    _check(gold, predicted)
    sizes = Counter(gold)
    hits = Counter(g for g, p in zip(gold, predicted, strict=True) if g == p)
    return sum(hits[label] / n for label, n in sizes.items()) / len(sizes)


def set_f1(gold: Collection[Hashable], predicted: Collection[Hashable]) -> float:
    r"""
    F1 of two sets of answers; higher is better.

    $$F_1 = \frac{2\,|G \cap P|}{|G| + |P|} \in [0, 1]$$

    An empty prediction earns `0.0`; an item named twice counts once.

    Args:
        gold (`Collection[Hashable]`): What holds.
        predicted (`Collection[Hashable]`): What was answered.

    Raises `ValueError` for an empty gold set: nothing could be right.

    Source: the emotion questions of IntentBench (https://huggingface.co/papers/2506.21277); its script counts an
    option that is named twice twice, which we do not.

    >>> set_f1({"B", "E"}, {"B"})
    0.6666666666666666
    """
    truth, answer = set(gold), set(predicted)
    if not truth:
        raise ValueError("the gold set is empty")
    return 2 * len(truth & answer) / (len(truth) + len(answer))


def out_of_vocabulary(predicted: Sequence[str | None], labels: Collection[str]) -> dict[str, int]:
    """
    Predictions that are none of `labels` with their counts, the most frequent first; fewer are better.

    Counts from 0 to the number of items. `None` (no label at all) is not a word and is not counted here.

    Args:
        predicted (`Sequence[str | None]`): One label an item.
        labels (`Collection[str]`): The vocabulary.

    Raises nothing.

    Source: R1-Omni's evaluation, where such answers are misses that nobody sees.

    >>> out_of_vocabulary(["sad", "wistful", None, "wistful"], {"sad", "happy"})
    {'wistful': 2}
    """
    return dict(Counter(p for p in predicted if p is not None and p not in labels).most_common())


def _check(gold: Sequence[object], predicted: Sequence[object]) -> None:
    if len(gold) != len(predicted):
        raise ValueError(f"gold and predicted must label the same items, got {len(gold)} and {len(predicted)}")
    if not gold:
        raise ValueError("there is no item")
