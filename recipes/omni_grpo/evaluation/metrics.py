# SPDX-License-Identifier: Apache-2.0
"""Figures of classification. Standard library only; recalls are fractions, not percent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Sequence

__all__ = ["out_of_vocabulary", "unweighted_average_recall"]


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
    if len(gold) != len(predicted):
        raise ValueError(f"gold and predicted must label the same items, got {len(gold)} and {len(predicted)}")
    if not gold:
        raise ValueError("there is no item")
    sizes = Counter(gold)
    hits = Counter(g for g, p in zip(gold, predicted, strict=True) if g == p)
    return sum(hits[label] / n for label, n in sizes.items()) / len(sizes)


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
