# SPDX-License-Identifier: Apache-2.0
"""What the completions table needs so that people can look into a run: gold answers, groups, credit by section."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from omni_grpo.logs import log_playable_table

ROW_COLUMNS = ("solution", "problem_type")


class RolloutTable:
    """
    Mix-in for TRL's `GRPOTrainer`: columns of the completions table beside TRL's own, which the rollout viewer reads.

    - `group`: the same for the completions of one prompt, `<train or eval> <step>.<batch>.<prompt>`, each once in a run
    - `solution`, `problem_type`: the row's own, where the data have them
    - `reward`: the weighted sum of the rewards that are given
    - `advantage_<place>`: mean advantage of the completion's tokens at each place (sections, `tag`, `outside`); NaN
      where it has no token

    With `report_to: wandb` and `wandb_media_files` above 0, each log event also sends the table as `rollouts`, with
    media that play.
    """

    if TYPE_CHECKING:
        args: Any
        model: Any
        state: Any
        accelerator: Any
        num_generations: Any
        num_generations_eval: Any
        log_completions: bool
        _logs: Any
        _log_completion_extra: Any

    _num_batches_scored = 0

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        """Name each row's group, and show what the row says is right."""
        mode = "train" if self.model.training else "eval"
        size: int = self.num_generations if mode == "train" else self.num_generations_eval
        first = self.accelerator.process_index * len(inputs)  # a group may straddle two processes
        batch = f"{mode} {self.state.global_step}.{self._num_batches_scored}"
        self._num_batches_scored += 1
        self._log_completion_extra("group", [f"{batch}.{(first + i) // size}" for i in range(len(inputs))])
        for column in ROW_COLUMNS:  # always, so that the columns of the table stay of one length
            values = [row.get(column) for row in inputs]
            self._log_completion_extra(column, [None if value is None else str(value) for value in values])
        return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)  # type: ignore[misc]

    def _show_credit(
        self, advantages: torch.Tensor, places: torch.Tensor, names: Sequence[str], totals: torch.Tensor
    ) -> None:
        """
        Put what each place of each completion was credited with into the table.

        Args:
            advantages (`Tensor`): `(B, T)`, of this process's rows.
            places (`Tensor`): `(B, T)`, index of each token's place in `names`, -1 on padding.
            names (`Sequence[str]`): The places.
            totals (`Tensor`): `(world B,)`, weighted sum of the rewards.
        """
        chosen = torch.stack([places == place for place in range(len(names))], dim=1)  # (B, P, T)
        counts = chosen.sum(dim=2)
        means = (chosen * advantages[:, None]).sum(dim=2) / counts  # 0 / 0 is NaN: the place has no token
        shown = self.accelerator.gather(means.float())  # (world B, P)
        extra = self._logs["extra"]
        extra["reward"].extend(totals.tolist())
        for place, name in enumerate(names):
            extra[f"advantage_{name}"].extend(shown[:, place].tolist())

    def log(self, logs, start_time=None):
        """TRL's own, then the table with media that play, where wandb listens."""
        table = Path(self.args.output_dir, "completions", f"completions_{self.state.global_step:05d}.parquet")
        if any(key.startswith("eval_") for key in logs) and self.accelerator.is_main_process and table.is_file():
            table.rename(table.with_stem(f"{table.stem}_train"))  # upstream would write over it
        super().log(logs, start_time)  # type: ignore[misc]
        listening = self.log_completions and "wandb" in (self.args.report_to or [])
        if self.accelerator.is_main_process and listening and self.args.wandb_media_files:
            columns = {
                "prompt": self._logs["prompt"],
                "completion": self._logs["completion"],
                **self._logs["rewards"],
                **self._logs["extra"],
                "advantage": self._logs["advantages"],
            }
            log_playable_table(columns, self.state.global_step, self.args.wandb_media_files)
