# SPDX-License-Identifier: Apache-2.0
"""Intervals and paired tests for evaluation scores. The same seed gives the same numbers.

All intervals are two-sided and 95 % unless `confidence` says otherwise. A score is one number an item, larger is
better; a 0/1 score is 1 for a right answer.

- `intervals`: of one mean
- `paired`: of the difference of two runs on the same items, and over several seeds
- `resampling`: what they share
"""

from omni_grpo.evaluation.statistics.intervals import accuracy_interval, bootstrap_interval, wilson_interval
from omni_grpo.evaluation.statistics.paired import (
    Difference,
    mcnemar,
    paired_bootstrap,
    pooled_bootstrap,
    pooled_paired_bootstrap,
)

__all__ = [
    "Difference",
    "accuracy_interval",
    "bootstrap_interval",
    "mcnemar",
    "paired_bootstrap",
    "pooled_bootstrap",
    "pooled_paired_bootstrap",
    "wilson_interval",
]
