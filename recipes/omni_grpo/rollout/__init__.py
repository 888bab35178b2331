# SPDX-License-Identifier: Apache-2.0
"""From prompts to completions: the record of a generation batch, and who samples."""
