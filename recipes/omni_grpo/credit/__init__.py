# SPDX-License-Identifier: Apache-2.0
"""Which reward moves which tokens of a completion, and what changes over a run."""
