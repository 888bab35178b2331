# SPDX-License-Identifier: Apache-2.0
"""Which part of a file to take: HumanOmniV2's `first:`, `end:` and `random:`."""

from __future__ import annotations

import random
import re


def taken_indices(num_records: int, take: str, seed: int = 0) -> list[int]:
    """
    Positions that a `"first:…"`, `"end:…"` or `"random:…"` of N records or N% selects, in file order.

    A share is rounded up, and down for `end`, so that `first:p%` and `end:(100-p)%` split a file without overlap or
    gap. (HumanOmniV2 rounds both up and reads an unknown keyword as the whole file.)

    Raises:
        `ValueError`: Unknown keyword, unreadable amount, or an amount that is none or more than there is.

    >>> taken_indices(5, "first:50%"), taken_indices(5, "end:50%"), taken_indices(5, "end:1")
    ([0, 1, 2], [3, 4], [4])
    """
    match = re.fullmatch(r"(first|end|random):([0-9]+)(%?)", take)
    if not match:
        raise ValueError(f"take must be first:, end: or random: and N or N%, such as first:50%, got {take!r}")
    keyword, amount, is_share = match[1], int(match[2]), bool(match[3])
    if is_share:
        if amount > 100:
            raise ValueError(f"take {take!r} asks for more than all")
        amount = num_records * amount // 100 if keyword == "end" else -(-num_records * amount // 100)
    if not 0 < amount <= num_records:
        raise ValueError(f"take {take!r} is {amount} of {num_records} records")
    if keyword == "random":
        return sorted(random.Random(seed).sample(range(num_records), amount))
    return list(range(amount)) if keyword == "first" else list(range(num_records - amount, num_records))
