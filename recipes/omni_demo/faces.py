# SPDX-License-Identifier: Apache-2.0
"""Drawn faces: Open Peeps (CC0, by Pablo Stanley) through DiceBear, rendered by resvg.

A face is a body, drawn once for a person, under an expression, drawn once for all.
"""

from __future__ import annotations

import io
import json
import random
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from itertools import product
from typing import Any

from PIL import Image

# Expressions told apart by a person at 84 x 84 pixels, no name in two classes. Left out as ambiguous there:
# awe, blank, calm, cheeky, concerned, concernedFear, cute, driven, eatingHappy, explaining, eyesClosed, lovingGrin2, old.
EXPRESSIONS: dict[str, tuple[str, ...]] = {
    "happy": ("smile", "smileTeethGap", "lovingGrin1"),
    "angry": ("rage", "veryAngry", "angryWithFang"),
    "sad": ("solemn", "tired"),
    "afraid": ("fear", "hectic"),
    "amused": ("smileLOL", "smileBig"),
    "scornful": ("suspicious", "contempt"),
}
NEUTRAL_EXPRESSION = "serious"

# Left out: `bear` (a costume), and hair that covers the brow or fills the frame.
HEADS = (
    *("afro", "bangs", "bangs2", "bantuKnots", "bun", "bun2", "buns", "cornrows", "cornrows2", "dreads2", "flatTop"),
    *("flatTopLong", "grayBun", "grayMedium", "grayShort", "hatBeanie", "hatHip", "hijab", "long", "longCurly"),
    *("medium1", "medium2", "medium3", "mediumBangs", "mediumBangs2", "mediumBangs3", "mediumStraight", "mohawk"),
    *("mohawk2", "noHair1", "noHair2", "noHair3", "pomp", "shaved1", "shaved2", "shaved3", "short1", "short2"),
    *("short3", "short4", "short5", "turban", "twists", "twists2"),
)
SKINS = ("ffdbb4", "edb98a", "d08b5b", "ae5d29")
CLOTHES = ("8fa7df", "78e185", "ffcf77", "e279c7", "e78276", "9ddadb", "fdea6b")
HAIRS = ("2c1b18", "e8e1e1", "ecdcbf", "d6b370", "b58143", "a55728", "724133", "c93305")
BACKGROUNDS = ("#dfe9f5", "#f5ecdf", "#e6f5df", "#f2dff5", "#eeeeee", "#fff7cc")

MARGIN_PX = 8  # drawn beyond the frame on every side, so that a moving head shows no edge
_VIEW = (215, 130, 420)  # left, top, side of the square around the face, in the style's units


@dataclass(frozen=True)
class Identity:
    """A drawn person."""

    head: str
    skin: str
    hair: str
    clothes: str

    def __str__(self) -> str:
        return f"{self.head}-{self.skin}-{self.hair}-{self.clothes}"


def identity_groups(seed: int) -> dict[str, list[Identity]]:
    """
    People for `training`, `validation` and `test`, each shuffled.

    A head with a skin colour belongs to one group only: what validation and test show differs from training in more
    than the colour of a shirt.
    """
    looks = list(product(HEADS, SKINS))
    rng = random.Random(f"{seed}/identities")
    rng.shuffle(looks)
    shares = {"validation": looks[:16], "test": looks[16:48], "training": looks[48:]}
    groups = {}
    for group, pairs in shares.items():
        groups[group] = [Identity(*look, *rest) for look, *rest in product(pairs, HAIRS, CLOTHES)]
        rng.shuffle(groups[group])
    return groups


def face_image(identity: Identity, expression: str, background: str, frame_size_px: int) -> Image.Image:
    """RGB picture of `frame_size_px + 2 * MARGIN_PX` pixels a side."""
    size = frame_size_px + 2 * MARGIN_PX
    picture = Image.new("RGBA", (size, size), background)
    picture.alpha_composite(_body(identity, size))
    picture.alpha_composite(_expression(expression, size))
    return picture.convert("RGB")


@cache
def _definition() -> dict[str, Any]:
    return json.loads(files("dicebear_styles").joinpath("open-peeps.json").read_text(encoding="utf-8"))


@cache
def _style(component: str, variant: str) -> Any:
    """Open Peeps with one variant of one component: a head on its shoulders, or an expression and nothing else."""
    from dicebear import Style

    definition = _definition()
    canvas, part = definition["canvas"], definition["components"][component]
    wanted = (component, None) if component == "head" else (component,)
    elements = [e for e in canvas["elements"] if (e["name"] if e["type"] == "component" else None) in wanted]
    # DiceBear checks a definition against its schema, which takes seconds for all of it: hand it what is drawn.
    components = {component: {**part, "variants": {variant: part["variants"][variant]}}}
    return Style({**definition, "canvas": {**canvas, "elements": elements}, "components": components})


# Clips of one person follow each other, so a few bodies are enough.
@lru_cache(maxsize=4)
def _body(identity: Identity, size_px: int) -> Image.Image:
    colors = {"skin": identity.skin, "clothing": identity.clothes, "headContrast": identity.hair}
    options = {"headVariant": [identity.head], **{f"{part}Color": [f"#{color}"] for part, color in colors.items()}}
    return _render(_style("head", identity.head), options, size_px)


@lru_cache(maxsize=64)
def _expression(name: str, size_px: int) -> Image.Image:
    return _render(_style("expression", name), {"expressionVariant": [name]}, size_px)


def _render(style: Any, options: dict[str, Any], size_px: int) -> Image.Image:
    from dicebear import Avatar
    from resvg_py import svg_to_bytes

    left, top, side = _VIEW
    svg = Avatar(style, {"seed": "omni", **options}).to_string()
    framed = svg.replace('viewBox="0 0 704 704"', f'viewBox="{left} {top} {side} {side}"', 1)
    if framed == svg:
        raise RuntimeError("the Open Peeps canvas is no longer 704 x 704; `_VIEW` needs a new look")
    png = svg_to_bytes(svg_string=framed, width=size_px, height=size_px, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")
