# SPDX-License-Identifier: Apache-2.0
"""The rollout viewer: every group that a run logged, in one page that needs no server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omni_grpo.report.embedding import Medium, choose_media
from omni_grpo.report.rendering import render
from omni_grpo.report.rollout_flags import FLAGS, flag
from omni_grpo.report.rollouts import Group, Rollout, read_rollouts
from omni_grpo.report.run_folder import stage_label
from omni_grpo.report.segments import TAG_OR_OUTSIDE, segments
from omni_rewards import SECTION_REASONS, parse_sections

_DIGITS = 4  # of rewards and advantages; the page shows two


def write_viewer(run: Path, output: Path | None = None, num_embedded: int = 48) -> Path:
    """
    Writes every completion that a run logged as one HTML page with filters, search and media that play.

    Args:
        run (`Path`):
            Folder with `<stage>/completions/*.parquet`, which TRL writes with `log_completions`.
        output (`Path`, *optional*):
            Where the page goes; `<run>/rollouts.html` by default. Missing folders are made.
        num_embedded (`int`, *optional*, defaults to `48`):
            Media files inside the page (8 MB at most each, 12 MB together); the page links the others where they lie.

    Returns:
        `Path`: the page.

    Raises:
        FileNotFoundError: if no stage logged completions.
        ValueError: if `num_embedded` is negative.
        ImportError: if pyarrow is missing.
    """
    if num_embedded < 0:
        raise ValueError(f"num_embedded must not be negative, got {num_embedded}")
    groups = read_rollouts(Path(run))
    if not groups:
        raise FileNotFoundError(f"no completions/*.parquet in a stage of {run}; train with log_completions: true")
    output = Path(output or Path(run) / "rollouts.html")
    output.parent.mkdir(parents=True, exist_ok=True)
    media = choose_media((path for group in groups for path in group.media), output, num_embedded)
    output.write_text(render_viewer(groups, media, Path(run).resolve().name), encoding="utf-8")
    return output


def render_viewer(groups: Sequence[Group], media: dict[str, Medium], name: str) -> str:
    """The page as one string of HTML; sets the flags of `groups`."""
    answer = flag(groups)
    shown = {flag: (label, words.format(answer=answer)) for flag, (label, words) in FLAGS.items()}
    if answer is None:
        shown = {flag: words for flag, words in shown.items() if flag not in ("wrong", "rewarded")}
    return render(
        "viewer.html.j2",
        styles=["page.css", "viewer.css"],
        scripts=["viewer_list.js", "viewer_group.js", "viewer.js"],
        title=f"omni-grpo: rollouts of {name}",
        name=name,
        num_completions=sum(len(group.rollouts) for group in groups),
        num_groups=len(groups),
        definitions=list(shown.values()),
        media=list(media.values()),
        data=_data(groups, media, answer, shown),
    )


def _data(
    groups: Sequence[Group], media: dict[str, Medium], answer: str | None, shown: dict[str, tuple[str, str]]
) -> dict[str, Any]:
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    tables = {
        "rewards": list(dict.fromkeys(name for r in rollouts for name in r.rewards)),
        "notes": list(dict.fromkeys(name for r in rollouts for name in r.notes)),
        "places": list(dict.fromkeys([*(n for g in groups for n in g.schema.names), *TAG_OR_OUTSIDE])),
        "stages": list(dict.fromkeys(group.stage for group in groups)),
        "reasons": list(SECTION_REASONS),
    }
    index = {path: position for position, path in enumerate(media)}
    return tables | {
        "stageNames": [stage_label(stage) for stage in tables["stages"]],
        "reasonWords": list(SECTION_REASONS.values()),
        "answer": tables["rewards"].index(answer) if answer else -1,
        "flags": [[name, *words] for name, words in shown.items()],
        "media": [[m.name, m.kind or "", m.link, m.reason] for m in media.values()],
        "groups": [_packed_group(group, tables, index, list(shown)) for group in groups],
    }


def _packed_group(group: Group, tables: dict[str, list[str]], index: dict[str, int], flags: list[str]) -> list[Any]:
    """A group as a list; viewer_list.js names its places."""
    where = [tables["stages"].index(group.stage), group.step, int(group.held_out), group.id]
    asked = [group.question, group.gold, group.problem_type, [index[path] for path in group.media]]
    return [*where, *asked, [_packed(rollout, group, tables, flags) for rollout in group.rollouts]]


def _packed(rollout: Rollout, group: Group, tables: dict[str, list[str]], flags: list[str]) -> list[Any]:
    """A rollout as a list; viewer_list.js names its places."""
    pieces = segments(rollout.text, group.schema)
    rewards, places = map(rollout.rewards.get, tables["rewards"]), map(rollout.by_place.get, tables["places"])
    return [
        [part for place, piece in pieces for part in (tables["places"].index(place), piece)],
        [*map(_rounded, rewards)],
        _rounded(rollout.total),
        _rounded(rollout.advantage),
        [*map(_rounded, places)],
        [*map(rollout.notes.get, tables["notes"])],
        sum(1 << position for position, name in enumerate(flags) if name in rollout.flags),
        tables["reasons"].index(parse_sections(rollout.text, group.schema).reason),
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)
