# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of completions: plain, or packed so that a prompt is computed once for all of its completions."""
