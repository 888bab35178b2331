# SPDX-License-Identifier: Apache-2.0
"""The page: what was run, the headline, tables, curves, clips, and the machine; `templates/report.html.j2` shows it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from omni_grpo.report.clips import read_clips
from omni_grpo.report.confusion import MAX_CLASSES, confusion_tables
from omni_grpo.report.curves import build_curves
from omni_grpo.report.drawing import save_plots
from omni_grpo.report.figures import accuracy
from omni_grpo.report.length import length_tables, training_sentences
from omni_grpo.report.rendering import render
from omni_grpo.report.rollouts import Group, read_rollouts
from omni_grpo.report.run_folder import RunFolder, read_run, stage_label, tone
from omni_grpo.report.shortcuts import variant_tables
from omni_grpo.report.tables import comparison_table, format_table, results_table


def write_report(run: Path, output: Path | None = None, num_clips: int = 12, viewer: Path | None = None) -> Path:
    """
    Writes a run folder as one self-contained HTML page, and its curves as PNG files into `<run>/plots/`.

    Parts of the run that do not exist are left out and named on the page.

    Args:
        run (`Path`):
            Folder with any of `<stage>/log.jsonl`, `eval/<stage>/predictions.jsonl`, `eval/<stage>/metrics.json` and
            `metrics.json`.
        output (`Path`, *optional*):
            Where the page goes; `<run>/report.html` by default. Missing folders are made.
        num_clips (`int`, *optional*, defaults to `12`):
            Test rows shown with their media, which are embedded (files above 8 MB are only named).
        viewer (`Path`, *optional*):
            The run's rollout viewer, which the page then links.

    Returns:
        `Path`: the page.

    Raises:
        FileNotFoundError: if the folder holds neither logs nor an evaluation.
        ValueError: if `num_clips` is negative or a metrics.json is not a JSON object.
        ImportError: if jinja2 or matplotlib is missing.
    """
    folder = read_run(Path(run))
    output = Path(output or folder.path / "report.html")
    link = quote(os.path.relpath(viewer.resolve(), output.resolve().parent)) if viewer else ""
    page = render_page(folder, num_clips, read_rollouts(folder.path), link)
    save_plots(build_curves(folder), folder.path / "plots")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")
    return output


def render_page(run: RunFolder, num_clips: int = 12, groups: Sequence[Group] = (), viewer: str = "") -> str:
    """The page as one string of HTML, without writing anything. See [`write_report`]."""
    if num_clips < 0:
        raise ValueError(f"num_clips must not be negative, got {num_clips}")
    stages = list(run.evaluated)
    last = "rl" if "rl" in stages else stages[-1] if stages else None
    # RL is measured from its start; a base that was never taught sections would flatter it.
    first = "sft" if "sft" in stages and last == "rl" else stages[0] if stages else None
    lead = next(iter(run.groups), None)
    return render(
        "report.html.j2",
        styles=["page.css"],
        scripts=["page.js"],
        title=f"omni-grpo: {run.path.resolve().name}",
        summary=_summary(run),
        run=run,
        lead=lead,
        first=first,
        last=last,
        accuracies={stage: accuracy(run.figures(stage, lead), tone(stage)) for stage in stages} if lead else {},
        results=[results_table(run), comparison_table(run), format_table(run)],
        variants=variant_tables(run),
        matrices=confusion_tables(run),
        max_classes=MAX_CLASSES,
        lengths=length_tables(run),
        sentences=training_sentences(groups),
        viewer=viewer,
        curves=build_curves(run),
        chosen=read_clips(run, num_clips),
    )


def _summary(run: RunFolder) -> str:
    trained = [stage_label(stage) for stage in run.logs if stage != "control"]
    sentence = f"was trained ({', then '.join(trained)})" if trained else "was evaluated"
    model = ""
    for measured in list(run.evaluated.values())[:1]:
        model, data = (_short_name(measured.get(name, "")) for name in ("model", "data"))
        size = f"{measured['n']} examples" if "n" in measured else "the examples"
        sentence += f", and every stage was tested on {size} of {data or 'the test set'}"
    machine = run.metrics["machine"]
    where = [part for part in (machine.get("accelerator"), machine.get("processor")) if part and part != "none"]
    return f"{model or 'The model'} {', on '.join([sentence, *where[:1]])}."


def _short_name(name: str) -> str:
    """A hub or relative name, at most two parts; of an absolute path the last, which tells no home folder."""
    path = Path(name)
    return path.name if path.is_absolute() else "/".join(path.parts[-2:])
