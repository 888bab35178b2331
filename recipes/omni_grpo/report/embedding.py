# SPDX-License-Identifier: Apache-2.0
"""Which media files go into a page and which are linked from it."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from omni_grpo.data.media.playable import MAX_MEDIA_BYTES, media_type, split_fragment

MAX_EMBEDDED_BYTES = 12_000_000  # of all files together, before base64


@dataclass(frozen=True)
class Medium:
    """
    A file as the page has it: `data` holds it whole, as a `data:` address; else `link` leads to it from the page's
    folder; else `reason` says why it cannot be shown.
    """

    name: str
    kind: str | None = None
    data: str = ""
    link: str = ""
    reason: str = ""


def choose_media(paths: Iterable[str], page: Path, num_embedded: int) -> dict[str, Medium]:
    """
    Each distinct path as a [`Medium`] of `page`.

    The first `num_embedded` playable files in the order of the SHA-256 of their path, so from all over the run, are
    embedded as long as they are of at most 8 MB each and 12 MB together; the others are linked.
    """
    distinct = list(dict.fromkeys(paths))
    chosen: set[str] = set()
    budget = MAX_EMBEDDED_BYTES
    for path in sorted(distinct, key=lambda path: hashlib.sha256(path.encode("utf-8", "replace")).hexdigest()):
        if len(chosen) == num_embedded:
            break
        file = Path(split_fragment(path)[0])
        if media_type(path) and file.is_file() and file.stat().st_size <= min(budget, MAX_MEDIA_BYTES):
            chosen.add(path)
            budget -= file.stat().st_size
    return {path: embed(path) if path in chosen else _linked(path, page) for path in distinct}


def embed(path: str) -> Medium:
    """A file as part of a page, if it is of at most 8 MB and a browser can show it."""
    plain, fragment = split_fragment(path)
    file, kind = Path(plain), media_type(path)
    name = file.name + fragment
    if kind is None:
        return Medium(name, reason="a browser cannot show this kind of file")
    if not file.is_file():
        return Medium(name, kind, reason="was not found when this page was written")
    if (size := file.stat().st_size) > MAX_MEDIA_BYTES:
        return Medium(name, kind, reason=f"is too large to embed ({size / 1e6:.0f} MB)")
    data = base64.b64encode(file.read_bytes()).decode()
    return Medium(name, kind, data=f"data:{kind};base64,{data}{fragment}")


def _linked(path: str, page: Path) -> Medium:
    plain, fragment = split_fragment(path)
    if media_type(path) is None or not Path(plain).is_file():
        return embed(path)  # which says why not
    address = quote(os.path.relpath(Path(plain).resolve(), page.resolve().parent)) + fragment
    return Medium(Path(plain).name + fragment, media_type(path), link=address)
