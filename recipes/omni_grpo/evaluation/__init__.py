# SPDX-License-Identifier: Apache-2.0
"""Answers to a test file, resumable to the row, and the figures that follow from them."""
