# SPDX-License-Identifier: Apache-2.0
"""What the completions of a prompt share, computed once: media, prefill, and the prompt in every scoring pass."""
