# SPDX-License-Identifier: Apache-2.0
"""
Completions by vLLM in the training process, from the policy's own features and positions.

The policy's towers encode each item, as for every pass. vLLM is given the expanded ids, these features as its
multimodal items, and the positions of the policy; it holds the language model alone, places no medium and counts no
position by itself. So what it samples from is what is scored.
"""
