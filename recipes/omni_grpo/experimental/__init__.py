# SPDX-License-Identifier: Apache-2.0
"""
What our own tables show no gain for, kept to be tried: context gain, and pairs of rows whose media are swapped. Both ask
whether the media were used, without a judge. Names and fields here may change in any release.
"""
