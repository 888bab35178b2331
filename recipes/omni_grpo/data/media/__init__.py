# SPDX-License-Identifier: Apache-2.0
"""Media files to arrays: reading, settings, keys by content, and a cache of what was decoded."""
