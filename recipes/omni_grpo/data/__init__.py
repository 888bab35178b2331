# SPDX-License-Identifier: Apache-2.0
"""From a row of a file to token ids and media: rows and prompts, decoders, the encoder that runs the processor."""
