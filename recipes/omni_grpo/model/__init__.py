# SPDX-License-Identifier: Apache-2.0
"""The model: loading and freezing, media through its towers, and what its encoders gave, kept."""
