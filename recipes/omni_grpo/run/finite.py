# SPDX-License-Identifier: Apache-2.0
"""A run stops at the first loss, gradient or reward that is not finite, before the optimiser takes it."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from trl.trainer.grpo_trainer import is_async_callable

from omni_grpo.run.checkpoints import last_complete_checkpoint, on_any_process
from omni_grpo.run.heartbeat import Heartbeat

_KEPT = (*functools.WRAPPER_ASSIGNMENTS, "sections")  # an instance's may be a property, which no __dict__ holds


class NonFiniteError(ArithmeticError):
    """A number of a step is NaN or infinite. The message names the number, and the file with the step's rows."""


# A Trainer, for type checkers of a kind unknown: upstream annotates its attributes as unions over every backend.
_Trainer: Any = object


class FiniteSteps(_Trainer):
    """
    A `Trainer`, the outermost: every loss is looked at before its backward pass and every gradient before
    its step, on all processes; every reward as its function returns it. DeepSpeed steps within the backward pass and
    looks for itself only in half precision: its step is held up until its gradients were looked at.
    """

    def begin_watch(self) -> None:
        """Called once, when the trainer is there."""
        self._names: list[str] = []
        self._batches: list[tuple[list[str], Any]] = []  # ids and tokens of the step's micro-batches
        log = Path(self.args.output_dir) / "log.jsonl"
        self.heartbeat = Heartbeat(log, self.accelerator.process_index)
        self.add_callback(self.heartbeat)
        if (rewards := getattr(self, "reward_funcs", None)) is not None:
            self.reward_funcs = [self._watched(f, n) for f, n in zip(rewards, self.reward_func_names, strict=True)]

    def _watched(self, reward: Any, name: str) -> Any:
        """A reward function whose values are looked at, and while which the heartbeat shows its name."""

        def looked_at(values: Iterable[float | None], args: Any, columns: Any) -> list[float | None]:
            values = list(values)
            self.heartbeat.enter("what comes after the rewards")
            completions = columns.get("completions", args and args[0])
            names = columns.get("id") or [f"#{i}" for i in range(len(values))]
            told = [{"id": i, "completion": c, name: v} for i, c, v in zip(names, completions, values, strict=False)]
            if bad := [row["id"] for row in told if row[name] is not None and not math.isfinite(row[name])]:
                self._stop(f"reward {name} of row {bad[0]!r}", told)
            return values

        @functools.wraps(reward, assigned=_KEPT)
        def checked(*args: Any, **kwargs: Any) -> Any:
            self.heartbeat.enter(f"reward {name}")
            return looked_at(reward(*args, **kwargs), args, kwargs)

        @functools.wraps(reward, assigned=_KEPT)
        async def checked_later(*args: Any, **kwargs: Any) -> Any:
            self.heartbeat.enter(f"reward {name}")
            return looked_at(await reward(*args, **kwargs), args, kwargs)

        return checked_later if is_async_callable(reward) else reward if isinstance(reward, nn.Module) else checked

    def note_rows(self, names: list[str]) -> None:
        """Told the ids of a micro-batch when its loss is computed: a step that stops writes them down."""
        self._names = names

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """As the parent; in training it must be finite."""
        self.heartbeat.enter("loss and gradient")
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self._check_step_of(model)
        output = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self._batches.append((self._names, inputs.get("completion_ids", inputs.get("labels"))))
        loss = output[0] if return_outputs else output
        if on_any_process(not bool(loss.isfinite().all()), loss.device):
            self._stop("loss")
        return output

    def _get_grad_norm(self, model, grad_norm=None):
        """Known just before the optimiser's step; a scaler of fp16 passes over infinite ones by itself."""
        norm = super()._get_grad_norm(model, grad_norm)
        if self.accelerator.scaler is None and norm is not None and not math.isfinite(float(norm)):
            self._stop("gradient")
        self._batches.clear()
        return norm

    def _check_step_of(self, engine: Any) -> None:
        """Have DeepSpeed's engine look at its gradients before it steps; any other model is left alone."""
        optimizer: Any = getattr(engine, "optimizer", None)
        if not hasattr(optimizer, "has_overflow") or "step" in vars(engine) or engine.fp16_enabled():
            return
        step: Callable[..., Any] = engine.step

        def checked(*args: Any, **kwargs: Any) -> Any:
            if engine.is_gradient_accumulation_boundary() and optimizer.has_overflow():
                self._stop("gradient")
            return step(*args, **kwargs)

        engine.step = checked

    def _stop(self, what: str, rows: Sequence[dict[str, Any]] | None = None) -> None:
        if rows is None:
            decode = getattr(self.processing_class, "tokenizer", self.processing_class).decode
            texts = [(n, t[t >= 0]) for names, tokens in self._batches for n, t in zip(names, tokens, strict=True)]
            rows = [{"id": name, "completion": decode(ids, skip_special_tokens=True)} for name, ids in texts]
        step, process = self.state.global_step + 1, self.accelerator.process_index
        file = Path(self.args.output_dir) / f"not_finite_step{step}_process{process}.json"
        file.write_text(
            json.dumps({"what": what, "step": step, "rows": rows}, indent=1, ensure_ascii=False, default=str)
        )
        raise NonFiniteError(
            f"step {step}: the {what} is not finite; nothing was learnt from it. Rows and completions of the step are in "
            f"{file}. The last whole checkpoint is {last_complete_checkpoint(self.args.output_dir)}: mend the rows or the "
            "reward, or lower learning_rate, and go on from it with `--resume force`"
        )
