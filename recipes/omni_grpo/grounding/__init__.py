# SPDX-License-Identifier: Apache-2.0
"""Whether the media were used, asked without a judge: context gain, and pairs of rows whose media are swapped."""
