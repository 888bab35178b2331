# SPDX-License-Identifier: Apache-2.0
"""The package's templates, styles and scripts, and the digests by which a page's policy knows them."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from string import Template


def resource(name: str) -> str:
    """The text of a file of this package."""
    return files("omni_grpo.report").joinpath(name).read_text(encoding="utf-8")


def fill(template: str, /, **parts: str) -> str:
    """A template with its `$parts` filled in."""
    return Template(resource(template)).substitute(parts)


def digest(source: str) -> str:
    """What a Content-Security-Policy calls an inline style or script of this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
