# SPDX-License-Identifier: Apache-2.0
"""Rows: their fields and checks, their prompts, and published data sets rewritten as rows."""
