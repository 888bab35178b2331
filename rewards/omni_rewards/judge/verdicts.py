# SPDX-License-Identifier: Apache-2.0
"""The score in what a judge wrote; `None` where it wrote none."""

import json
import math
import re
from typing import Any

TOP_SCORE = 5
VERDICT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 0, "maximum": TOP_SCORE}},
    "required": ["score"],
    "additionalProperties": False,
}

_LONGEST = 8_000  # characters; a verdict is short, and what is longer is not one
_NUMBER = r"[+-]?[0-9]+(?:\.[0-9]+)?"
_OF_TOP = rf"({_NUMBER})(?: {{0,2}}(?:/|out of|of) {{0,2}}({_NUMBER}))?"
_LABEL = r"(?:score|rating|grade)[\"']? {0,2}(?:is|of|[:=]) {0,2}"
_OBJECT = re.compile(r"\{[^{}]*\}")
_ALONE = re.compile(rf"(?:(?:the |my )?(?:final |overall )?{_LABEL})?{_OF_TOP} ?(%|points?|stars?)?", re.IGNORECASE)
_STATED = re.compile(rf"\b{_LABEL}['\"]?{_OF_TOP}(%?)(?![0-9/%–-]|e[0-9]|\.[0-9]| ?(?:to|or|/) ?[0-9])", re.IGNORECASE)


def read_score(text: str, top: int = TOP_SCORE) -> float | None:
    """
    The score that a judge's reply states, as a share of the scale, in `[0, 1]`; `None` if it states none.

    Read are `{"score": 4}` (also `{'Score': 4}`) and `Score: 4` anywhere in a text, if all such statements in it agree,
    and alone `4`, `4/5`, `4 out of 5`, `80%`, `**4**`, `4 points`. A stated denominator is the scale; `top` is it
    otherwise. What a reasoning model wrote before `</think>` is not read. **A number outside its scale is refused, not
    clipped**: whoever answers `50` on a scale to 5 used another scale, and which one is unknown. Refused as well are
    ranges (`3-4`), refusals, NaN, and what breaks off or has more than 8,000 characters. Never raises.

    >>> read_score('{"score": 4}'), read_score("4/5"), read_score("Score: 4"), read_score("80%")
    (0.8, 0.8, 0.8, 0.8)
    >>> read_score("50"), read_score("3-4"), read_score("I cannot grade this.")
    (None, None, None)
    """
    text = text.rpartition("</think>")[2].strip()
    if len(text) > _LONGEST or text.startswith("<think>"):
        return None
    stated: set[float | None] = set()
    for written in _OBJECT.findall(text):
        if scores := [value for name, value in _read_object(written) if name.casefold() == "score"]:
            stated |= {_share(str(score), None, "", top) for score in scores}
            text = text.replace(written, " ")  # what else it holds, a reason say, states no score
    text = " ".join(re.sub(r"```json|[*_`]+", "", text).split())
    if text.count("{") > text.count("}"):  # an object breaks off
        return None
    if match := _ALONE.fullmatch(text.rstrip(".")):
        stated.add(_share(match[1], match[2], match[3] or "", top))
    stated |= {_share(match[1], match[2], match[3], top) for match in _STATED.finditer(text)}
    return stated.pop() if len(stated) == 1 else None


def _read_object(text: str) -> list[tuple[str, Any]]:
    """Names and values of an object in JSON, each as often as it stands there; none of what is not JSON."""
    try:
        return json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return []


def _share(number: str, denominator: str | None, unit: str, top: int) -> float | None:
    """`"4"` of `"5"` as 0.8; `None` outside the scale and for what is no number, `True` and `nan` included."""
    if not re.fullmatch(_NUMBER, number):
        return None
    scale = 100.0 if unit == "%" else float(top if denominator is None else denominator)
    share = float(number) / scale if scale > 0 and math.isfinite(scale) else -1.0
    return share if 0.0 <= share <= 1.0 else None


def read_reply(body: bytes) -> str:
    """
    What the judge wrote, from the body of a chat completion.

    Raises `ValueError` if the body is not one: not JSON, another schema, or an empty message.
    """
    try:
        reply: Any = json.loads(body)
        content = reply["choices"][0]["message"]["content"]
    except (ValueError, RecursionError, KeyError, IndexError, TypeError) as error:
        raise ValueError("the reply is no chat completion") from error
    if not isinstance(content, str) or not content.strip():
        raise ValueError("the reply holds no text")
    return content
