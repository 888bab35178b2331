# SPDX-License-Identifier: Apache-2.0
"""Many completions a row, scored and kept; and what is chosen from them: a difficulty band, worked examples, pairs."""
