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


def fill_page(template: str, /, *, title: str, style: str, script: str = "", media: str = "", **parts: str) -> str:
    """
    A whole page: the head that all pages share, and a template for its body.

    Args:
        template (`str`): The body.
        title (`str`): As HTML.
        style, script (`str`): Inline; the page's policy allows these two texts, and no others.
        media (`str`): Where images and clips may come from, as the policy says it; from nowhere by default.
        **parts (`str`): What the template asks for.
    """
    # No request leaves the page, and no script runs but its own, even if a completion should get past the escaping.
    policy = "default-src 'none'; "
    policy += f"img-src {media}; media-src {media}; " if media else ""
    policy += f"style-src '{digest(style)}'; "
    policy += f"script-src '{digest(script)}'; " if script else ""
    policy += "base-uri 'none'; form-action 'none'"
    head = fill("head.html", policy=policy, title=title, style=style)
    return head + fill(template, title=title, script=script, **parts)


def digest(source: str) -> str:
    """What a Content-Security-Policy calls an inline style or script of this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
