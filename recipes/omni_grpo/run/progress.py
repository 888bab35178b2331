# SPDX-License-Identifier: Apache-2.0
"""A stage on the terminal: one line while it lasts, three when it is over."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy import stats
from tqdm.auto import tqdm
from transformers import ProgressCallback, TrainerCallback

from omni_grpo.run.scripts import announce, is_main_process, save_final
from omni_grpo.run.stages import Stage, config_path

# What is shown of a log event; answers and format are shares.
_FIGURES = {
    "loss": "loss",
    "reward": "reward",
    "answers": r"rewards/\w*answer\w*/mean|answer_accuracy",
    "valid format": r"rewards/\w*format\w*/mean|format_rate",
}
_SHARES = ("answers", "valid format")


class ProgressLine(TrainerCallback):
    """
    `RL 57/200, reward 0.81, answers 64.1 %, valid format 99.2 %, 4.10s/step, 09:46 left`, written over and over: on a
    terminal at once, in a file every 30 seconds.

    Args:
        stage (`str`): What the line begins with.
    """

    def __init__(self, stage: str) -> None:
        self.stage, self.shown = stage, {}

    def on_train_begin(self, args, state, control, **kwargs):
        limit = getattr(args, "max_train_seconds", None)
        left = f"of {limit:.0f} s {{elapsed}} are over" if limit else "{remaining} left"
        shown: Any = {"bar_format": "{desc} {n_fmt}/{total_fmt}{postfix}, {rate_inv_fmt}, " + left, "unit": "step"}
        shown["disable"] = not state.is_world_process_zero
        shown["mininterval"] = 0.1 if sys.stderr.isatty() else 30
        self.bar = tqdm(None, self.stage, state.max_steps, initial=state.global_step, **shown)

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.shown |= figures(logs or {}) | figures(logs or {}, "eval_")
        self.bar.set_postfix_str(", ".join(f"{n} {_value(n, v)}" for n, v in self.shown.items()), refresh=False)

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


def follow(trainer: Any, stage: str) -> None:
    """Show a [`ProgressLine`] in place of transformers' bar and figures, unless `log_level` asks for all there is."""
    if trainer.args.log_level not in ("info", "debug", "detail") and not trainer.args.disable_tqdm:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(ProgressLine(stage))


def finish(trainer: Any, processor: Any, stage: Stage, name: str, argv: Sequence[str], start: float) -> None:
    """Save what was trained, mark the stage done, and say what came of it."""
    save_final(trainer, processor)
    if is_main_process():
        best = {"best": trainer.state.best_metric, "best_step": trainer.state.best_global_step}
        stage.finish(seconds=time.time() - start, steps=trainer.state.global_step, **best)
    for line in closing(trainer, name, argv):
        announce(line)


def figures(logs: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The figures of a log event that a person looks at; a reward says more than the loss that it leads to."""
    found = {n: v for n, p in _FIGURES.items() for k, v in logs.items() if re.fullmatch(f"{prefix}({p})", k)}
    return {n: v for n, v in found.items() if n != "loss" or "reward" not in found}


def closing(trainer: Any, stage: str, argv: Sequence[str]) -> Iterator[str]:
    """
    What a stage came to, with 95 % intervals: on validation, Wilson's over its rows; else Student's over the last tenth
    of the steps that were logged, at least two. Then where it lies, what comes next, and whether nothing was learnt.
    """
    args, state = trainer.args, trainer.state
    steps = [e for e in state.log_history if "loss" in e]
    parts = []
    if evaluated := [e for e in state.log_history if figures(e, "eval_")]:
        best = [e for e in evaluated if args.load_best_model_at_end and e["step"] == state.best_global_step]
        rows = len(trainer.eval_dataset)
        for name, value in figures([*best, evaluated[-1]][0], "eval_").items():
            wilson = stats.binomtest(round(value * rows), rows) if name in _SHARES else None
            parts.append(_with_interval(name, value, wilson and wilson.proportion_ci(method="wilson")))
        where = f"on {rows} rows of validation"
    else:
        last = [figures(e) for e in steps[-max(2, len(steps) // 10) :]]
        for name in _FIGURES:
            if values := [e[name] for e in last if name in e]:
                mean = sum(values) / len(values)
                error = stats.sem(values) if len(values) > 1 else 0.0
                parts.append(
                    _with_interval(name, mean, stats.t.interval(0.95, len(values) - 1, mean, error) if error else None)
                )
        where = f"over the last {len(last)} of {len(steps)} logged steps"
    yield f"{stage}: {', '.join(parts) or 'nothing was logged'}, {where}"
    yield f"weights in {args.output_dir}, every step in {args.output_dir}/log.jsonl"
    yield f"next: {next_command(args.output_dir, config_path(argv), stage)}"
    groups = [e["frac_zero_variance_groups"] for e in steps if "frac_zero_variance_groups" in e]
    if groups and min(groups) == 1 and not any(e.get("grad_norm") for e in steps):
        yield "no step moved the policy: in no group did two completions earn different rewards; look at the rewards"


def next_command(folder: str, config: Path | None, stage: str) -> str:
    """The stage whose configuration, beside this one, begins with the model in `folder`; else RL after SFT, and the report."""
    named = re.compile(rf"[ =]{re.escape(folder)}(?=[,\]\s])")
    for script, names in (("sft_omni", "*sft.yaml"), ("grpo_omni", "rl*.yaml"), ("eval_omni", "eval*.yaml")):
        for other in sorted(config.parent.glob(names)) if config else ():  # the plain one before its variants
            if other != config and named.search(other.read_text(encoding="utf-8")):
                return f"python recipes/{script}.py --config {other}"
    report = f"python recipes/report.py --run {Path(folder).parent}"
    return f"RL, with `model_name_or_path: {folder}`" if stage == "SFT" else report


def _value(name: str, value: float) -> str:
    return f"{100 * value:.1f} %" if name in _SHARES else f"{value:.3g}"


def _with_interval(name: str, value: float, interval: Any) -> str:
    ends = f" [{_value(name, interval[0])}, {_value(name, interval[1])}]" if interval is not None else ""
    return f"{name} {_value(name, value)}{ends}"
