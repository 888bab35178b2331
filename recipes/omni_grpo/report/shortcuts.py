# SPDX-License-Identifier: Apache-2.0
"""Shortcuts: what accuracy is left when a channel is taken away, blanked, swapped or shuffled; the shortcut index."""

from __future__ import annotations

from collections.abc import Iterator

from omni_grpo.evaluation.records import FULL, GroupFigures, Metrics
from omni_grpo.report.figures import NOTHING, Cell, Table, accuracy, number, points, share, spread
from omni_grpo.report.run_folder import RunFolder, stage_label, tone

VARIANTS = {
    FULL: "All media",
    "no_audio": "Without audio",
    "no_video": "Without video",
    "neither": "Without both",
    "silent": "Silence for the audio",
    "blank": "Blank picture",
    "swapped_audio": "Another row's audio",
    "swapped_video": "Another row's video",
    "shuffled_frames": "Frames shuffled",
}
_SENSES = {"audio": "Audio", "video": "Picture"}


def variant_tables(run: RunFolder) -> list[Table | str]:
    """
    For each stage that was tested so: accuracy, the points lost, the shortcut index and what did not change, where
    `metrics.json` has them; a note for each reason for which a variant did not ask some rows.
    """
    tested = {stage: m for stage, m in run.evaluated.items() if m["variants"] or m.get("sufficiency")}
    shown = [part for stage, measured in tested.items() for part in _of_stage(run, stage, measured)]
    return shown or ["No evaluation with media taken away in this run."]


def _of_stage(run: RunFolder, stage: str, measured: Metrics) -> Iterator[Table | str]:
    name, colour, by_variant = stage_label(stage), tone(stage), variants_of(measured)
    groups, shortcuts = [g for g in run.groups if g in measured["groups"]], measured["shortcuts"]
    rows = [[variant_label(v), *(accuracy(f.get(g), colour) for g in groups)] for v, f in by_variant.items()]
    yield Table(f"{name}, accuracy in percent", ["Media", *groups], rows)
    rows = [[variant_label(v), *(_lost(measured, v, g) for g in groups)] for v in by_variant if v != FULL]
    yield Table(f"{name}, points of accuracy lost against all media", ["Media", *groups], rows)
    indices = {group: s["index"] for group in groups if (s := shortcuts.get(group)) and s["index"]}
    found = {g: [index.get(sense) for sense in _SENSES] for g, index in indices.items()}
    rows = [[g, *(share(i["value"], i["ci95"], None, colour) if i else NOTHING for i in f)] for g, f in found.items()]
    if rows:
        caption = "shortcut index, in percent: the part of the score that is left under another row's …"
        yield Table(f"{name}, {caption}", ["Group", *_SENSES.values()], rows)
    variants = shortcuts["all"]["variants"] if "all" in shortcuts else {}
    pairs = {variant: (changed["answers"], changed["contexts"]) for variant, changed in variants.items()}
    rows = [
        [variant_label(v), *(share(s["share"], s["ci95"], None, colour) if s else NOTHING for s in pair)]
        for v, pair in pairs.items()
    ]
    if rows:
        caption = f"{name}, percent that do not change when the evidence does, all groups"
        yield Table(caption, ["Media", "Answers", "Contexts"], rows)
    means = [(g, measured.get("sufficiency", {}).get(g)) for g in groups]
    rows = [[g, share(m["mean"], m["ci95"], None, colour), str(m["n"])] for g, m in means if m]
    if rows:
        caption = f"{name}, percent of questions that a reader without media answers right from the context alone"
        yield Table(caption, ["Group", "Sufficient contexts", "n"], rows)
    for variant, figures in measured["variants"].items():
        for reason, ids in figures.get("left_out", {}).items():
            some = ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
            yield f"{variant_label(variant)}: {len(ids)} rows are left out, for each {reason} ({some})."


def _lost(measured: Metrics, variant: str, group: str) -> str | Cell:
    """Points lost on the rows that both answered, with their interval; an earlier version wrote none, nor which."""
    if group in measured["shortcuts"] and variant in measured["shortcuts"][group]["variants"]:
        lost = measured["shortcuts"][group]["variants"][variant]["lost"]
        return Cell(points(lost["difference"]), spread(lost["ci95"]))
    whole, altered = (groups.get(group) for groups in (measured["groups"], measured["variants"][variant]["groups"]))
    if whole is None or altered is None or number(altered["accuracy"]) is None:
        return NOTHING
    return Cell(points(whole["accuracy"] - altered["accuracy"]))


def variants_of(measured: Metrics) -> dict[str, dict[str, GroupFigures]]:
    """Variant -> group -> figures, all media first, then in the order of [`VARIANTS`], others alphabetically."""
    found = {variant: figures["groups"] for variant, figures in measured["variants"].items()}
    known = list(VARIANTS)
    order = sorted(found.keys() - {FULL}, key=lambda v: (known.index(v) if v in known else len(known), v))
    return {FULL: measured["groups"], **{variant: found[variant] for variant in order}}


def variant_label(name: str) -> str:
    """A variant's name on the page."""
    return VARIANTS.get(name, name.replace("_", " ").capitalize())
