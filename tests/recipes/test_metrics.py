# SPDX-License-Identifier: Apache-2.0
"""Metrics against scikit-learn's on random labels, and what scikit-learn does not say: no label, words outside."""

import doctest
import inspect
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from omni_grpo.evaluation import metrics
from omni_grpo.evaluation.metrics import out_of_vocabulary, unweighted_average_recall

WORDS = ["angry", "happy", "sad", "fear", "wistful"]
pairs = st.lists(st.tuples(st.sampled_from(WORDS[:4]), st.sampled_from(WORDS)), min_size=1, max_size=60)


def test_docstring_examples_hold():
    assert doctest.testmod(metrics).failed == 0


@pytest.mark.parametrize("name", [n for n in metrics.__all__ if n.islower()])
def test_docstrings_have_their_parts(name):
    text = inspect.getdoc(getattr(metrics, name)) or ""
    for part in ("better", "Args:", "aises", "Source:", ">>> "):
        assert part in text, part


@given(pairs)
def test_uar_is_balanced_accuracy(items):
    """Mutant: classes taken from the predictions as well."""
    gold, predicted = zip(*items, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "y_pred contains classes not in y_true": that is the point
        assert unweighted_average_recall(gold, predicted) == pytest.approx(balanced_accuracy_score(gold, predicted))


@given(pairs)
def test_words_outside_of_the_labels_are_counted(items):
    _, predicted = zip(*items, strict=True)
    outside = out_of_vocabulary([*predicted, None], WORDS[:4])
    assert outside == ({"wistful": predicted.count("wistful")} if "wistful" in predicted else {})


@given(items=pairs, data=st.data())
def test_no_label_is_a_miss_like_any_wrong_one(items, data):
    gold, predicted = zip(*items, strict=True)
    hidden = [None if data.draw(st.booleans()) else p for p in predicted]
    wrong = ["none of them" if h is None else h for h in hidden]
    assert (
        unweighted_average_recall(gold, hidden)
        == unweighted_average_recall(gold, wrong)
        <= unweighted_average_recall(gold, predicted)
    )


@given(items=pairs, order=st.randoms())
def test_order_and_names_of_the_classes_do_not_matter(items, order):
    shuffled = order.sample(items, len(items))
    renamed = [(g.upper(), p.upper()) for g, p in shuffled]
    assert unweighted_average_recall(*zip(*renamed, strict=True)) == pytest.approx(
        unweighted_average_recall(*zip(*items, strict=True))
    )


def test_uar_gives_a_rare_class_its_full_weight():
    gold = ["sad"] * 99 + ["happy"]
    assert unweighted_average_recall(gold, ["sad"] * 100) == 0.5


def test_what_is_no_pairing_is_refused():
    with pytest.raises(ValueError, match="same items, got 2 and 1"):
        unweighted_average_recall(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="no item"):
        unweighted_average_recall([], [])
