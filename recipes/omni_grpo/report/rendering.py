# SPDX-License-Identifier: Apache-2.0
"""Templates to pages. Completions are untrusted: jinja2 escapes all that a template shows."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from omni_grpo.report import drawing, figures
from omni_grpo.report.run_folder import stage_label, tone

# Controls that HTML forbids, and lone surrogates, which UTF-8 cannot hold. Newline and tab stay.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_FIGURES = (figures.percent, figures.points, figures.interval, figures.spread, figures.p_value, figures.duration)


def render(template: str, styles: Sequence[str], scripts: Sequence[str] = (), **parts: Any) -> str:
    """
    A page as one string of HTML.

    Args:
        template (`str`): File in `templates`.
        styles, scripts (`Sequence[str]`): Files of this package that go into the page; its policy allows these alone.
        **parts (`Any`): What the template asks for.

    Raises:
        ImportError: if jinja2 is missing.
    """
    from markupsafe import Markup

    style, script = (Markup("".join(map(resource, names))) for names in (styles, scripts))
    return environment().get_template(template).render(style=style, script=script, **parts)


@cache
def environment() -> Any:
    """What templates are read with: escaping always on, unprintable characters as `�`, nothing as an en dash."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise ImportError("pages need jinja2: pip install 'omni-grpo[train]'") from error
    made = Environment(
        loader=PackageLoader("omni_grpo.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    made.filters |= {function.__name__: function for function in (*_FIGURES, figures.short, digest, tone)}
    made.filters |= {"label": stage_label, "x": lambda value: f"{4 + 152 * min(1.0, max(0.0, value)):.1f}"}
    made.filters |= {"drawn": drawing.addresses, "in_words": drawing.in_words}
    return made


def resource(name: str) -> str:
    """The text of a file of this package."""
    return files("omni_grpo.report").joinpath(name).read_text(encoding="utf-8")


def digest(source: str) -> str:
    """What a Content-Security-Policy calls an inline style or script of this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _shown(value: Any) -> Any:
    if value is None:
        return figures.NOTHING
    return _UNPRINTABLE.sub("\ufffd", value) if type(value) is str else value
