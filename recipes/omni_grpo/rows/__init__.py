# SPDX-License-Identifier: Apache-2.0
"""Rows: their fields and checks, their prompts, published data sets rewritten as rows, and rows as TRL data sets."""
