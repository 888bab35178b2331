# SPDX-License-Identifier: Apache-2.0
"""Test rows shown with their media and every stage's completion, chosen without a look at the scores."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from omni_grpo.data.media.playable import MAX_MEDIA_BYTES, media_type
from omni_grpo.data.media.segment import segment_of
from omni_grpo.data.rows.kinds import kind_of
from omni_grpo.report.markup import note, number, text
from omni_grpo.report.run_folder import Row, RunFolder
from omni_grpo.report.tables import tone

RULE = (
    "These {shown} rows were chosen by rule, not by hand, from the {pool} test rows that every stage answered: "
    "the kinds ({kinds}) take turns, and within a kind rows come in the order of the SHA-256 of their id. "
    "Scores play no part in the choice."
)
SECTIONS = ("context", "think", "answer")


def candidates(run: RunFolder) -> list[str]:
    """Ids that every evaluated stage answered with all media, in the order of the first stage's file."""
    first, *others = [*run.predictions.values()] or [{}]
    return [key for key in first if all(key in rows for rows in others)]


def choose_clips(run: RunFolder, num_clips: int) -> list[str]:
    """Up to `num_clips` ids: kinds take turns, and within a kind ids come in the order of their SHA-256.

    The choice depends on ids and kinds alone: neither scores nor completions nor the order of the rows change it.
    """
    first = next(iter(run.predictions.values()), {})
    by_kind: dict[str, list[str]] = {}
    for key in sorted(candidates(run), key=lambda key: hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()):
        by_kind.setdefault(kind_of(first[key]), []).append(key)
    queues = [by_kind[name] for name in sorted(by_kind)]
    turns = [queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue)]
    return turns[:num_clips]


def clip_cards(run: RunFolder, num_clips: int) -> str:
    """The rule of choice and one card a chosen row."""
    chosen = choose_clips(run, num_clips)
    if not chosen:
        return note("No predictions yet, or no row that every stage answered: there is nothing to play.")
    first = next(iter(run.predictions.values()))
    pool = candidates(run)
    kinds = ", ".join(sorted({kind_of(first[key]) for key in pool}))
    rule = RULE.format(shown=len(chosen), pool=len(pool), kinds=kinds)
    cards = "".join(_card(run, key, place) for place, key in enumerate(chosen, start=1))
    return f'<p class="lead">{text(rule)}</p>\n<div class="clips">{cards}</div>\n'


def _card(run: RunFolder, key: str, place: int) -> str:
    row = next(iter(run.predictions.values()))[key]
    media = "".join(_medium(item, key) for item in row.get("media") or [] if isinstance(item, dict))
    options = "".join(f"<li>{text(option)}</li>" for option in row.get("options") or [])
    stages = "".join(_completion(run, stage, rows[key]) for stage, rows in run.predictions.items())
    return (
        f'<article class="clip" data-kind="{text(kind_of(row))}"><h3>Clip {place} <span>{text(kind_of(row))}</span></h3>'
        f'<div class="ask"><div class="media">{media or note("This row has no media.")}</div>'
        f'<div class="problem"><p class="question">{text(row.get("problem", ""))}</p>'
        f"{f'<ul>{options}</ul>' if options else ''}"
        f'<p class="gold">Gold answer <b>{text(row.get("solution", ""))}</b></p>'
        f'<p class="id">id {text(key)}</p></div></div>'
        f'<div class="stages">{stages}</div></article>\n'
    )


def _medium(item: Row, key: str) -> str:
    path = Path(str(item.get("path", "")))
    kind_of_file = media_type(path)
    if kind_of_file is None:
        return note(f"{path.name}: a browser cannot show this kind of file.")
    if not path.is_file():
        return note(f"{path.name} was not found when this page was written.")
    if path.stat().st_size > MAX_MEDIA_BYTES:
        return note(f"{path.name} is too large to embed ({path.stat().st_size / 1e6:.0f} MB).")
    source = (
        f'src="data:{kind_of_file};base64,{base64.b64encode(path.read_bytes()).decode()}{segment_of(item).fragment}"'
    )
    what = kind_of_file.partition("/")[0]
    label = f"{what.capitalize()} of test row {text(key)}"
    if what == "image":
        return f'<img {source} alt="{label}">'
    inline = " playsinline" if what == "video" else ""
    return f'<{what} {source} controls{inline} preload="metadata" aria-label="{label}"></{what}>'


def _completion(run: RunFolder, stage: str, row: Row) -> str:
    completion = str(row.get("completion") or "")
    sections = row.get("sections")
    if row.get("format_ok") and isinstance(sections, dict):
        body = "".join(_section(str(name), content) for name, content in sections.items())
    else:
        reason = text(row.get("format_reason") or "invalid")
        body = f'<p class="invalid">Format not valid: <code>{reason}</code>. Raw text:</p>'
        body += f'<pre tabindex="0" dir="auto">{text(completion) or "(empty completion)"}</pre>'
    heading = f"<h4>{text(run.label(stage))} {_mark(row.get('answer_score'))}</h4>"
    return f'<section class="completion tone-{tone(stage)}">{heading}{body}</section>'


def _section(name: str, content: Any) -> str:
    if content is None:
        return ""
    colour = name if name in SECTIONS else "other-1"
    return f'<div class="section tone-{colour}"><h5>{text(name)}</h5><p dir="auto">{text(content)}</p></div>'


def _mark(score: Any) -> str:
    value = number(score)
    if value is None:
        return '<span class="mark">not scored</span>'
    if value >= 1:
        return '<span class="mark right">✓ right</span>'
    return '<span class="mark wrong">✗ wrong</span>' if value <= 0 else f'<span class="mark">score {value:.2f}</span>'
