# SPDX-License-Identifier: Apache-2.0
"""Messages to token ids and media features, remembered, collated, and made ahead of the model."""
