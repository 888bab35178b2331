# SPDX-License-Identifier: Apache-2.0
"""What the entry scripts share: fields and their mistakes, stages, rewards by name, the machine."""
