# SPDX-License-Identifier: Apache-2.0
"""A run around its trainer: fields and their mistakes, stages, rewards by name; checkpoints, logs, and how it ends."""
