# SPDX-License-Identifier: Apache-2.0
"""Sections enforced while sampling, and scored as they were sampled."""
