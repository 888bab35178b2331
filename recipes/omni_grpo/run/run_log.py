# SPDX-License-Identifier: Apache-2.0
"""What a person sees of a rollout: columns of TRL's completions table, which the viewer reads, and metrics."""

from __future__ import annotations

import itertools
import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from omni_grpo.credit.credit import Credited
from omni_grpo.credit.section_masks import places_of
from omni_grpo.data.dataset import media_paths
from omni_grpo.rollout.record import Rollout
from omni_grpo.run.log_file import log_playable_table
from omni_rewards import SectionSchema

logger = logging.getLogger(__name__)

ROW_COLUMNS = ("solution", "problem_type")


class RunLog:
    """
    Columns beside TRL's own, one value a completion:

    - `id`, `group`, `media`: the row; the completions of one prompt, `<train or eval> <step>.<batch>.<prompt>`, each
      once in a run; the files, one a line
    - `solution`, `problem_type`: the row's own, where the data have them
    - a column for each section, and `format`: why it is malformed
    - `reward`: the weighted sum of the rewards that are given
    - `advantage_<place>`: mean advantage of the completion's tokens at each place (sections, `tag`, `outside`); NaN
      where it has no token

    and metrics under `credit/`, `constrained/`, `padding/` and `frac_zero_variance_groups`.

    Args:
        metrics (`dict`): TRL's `_metrics`, by mode.
        logs (`dict`): TRL's `_logs`, the table's columns.
        accelerator (`Accelerator`): The run's.
        schema ([`SectionSchema`]): The run's sections.
        reward_names (`Sequence[str]`): The run's rewards.
    """

    def __init__(
        self, metrics: Any, logs: Any, accelerator: Any, schema: SectionSchema, reward_names: Sequence[str]
    ) -> None:
        self._metrics, self._logs, self.accelerator, self.schema = metrics, logs, accelerator, schema
        self.reward_names = reward_names
        self._num_batches = 0

    def metric(self, mode: str, name: str, value: float) -> None:
        """One value; TRL logs the mean of those since the last log event."""
        self._metrics[mode][name].append(value)

    def next_batch(self, step: int) -> str:
        """A name for a generation batch, each once in a run."""
        self._num_batches += 1
        return f"{step}.{self._num_batches - 1}"

    def columns(
        self, rollout: Rollout, inputs: Sequence[Mapping[str, Any]], prompts: Sequence[Any]
    ) -> dict[str, list]:
        """What the table shows of rows and completions, before they are rewarded."""
        sections = [row.sections for row in rollout.rows]
        shown: dict[str, list] = {
            "id": [row.name for row in rollout.rows],
            "group": [row.group for row in rollout.rows],
            "media": ["\n".join(dict.fromkeys(paths)) for paths in media_paths(prompts)],
            **{name: [s and s.texts.get(name) for s in sections] for name in self.schema.names},
            "format": [s and s.reason for s in sections],
        }
        for column in ROW_COLUMNS:  # always, so that the columns of the table stay of one length
            values = [row.get(column) for row in inputs]
            shown[column] = [None if value is None else str(value) for value in values]
        return shown

    def rewarded(self, rollout: Rollout, credited: Credited, stock: torch.Tensor, weights: torch.Tensor) -> None:
        """Count and show what the rewards of a rollout came to."""
        by_token, places = credited.by_token, credited.places
        self._log_variance(rollout)
        if credited.advantages is not stock:
            self._replace_advantages(by_token, places)
        self._show_credit(by_token, places, (rollout.rewards * weights).nansum(dim=1))
        self._log_sections(rollout, by_token, places)
        self._log_correlations(rollout.mode, credited.relative, rollout.rewards)

    def chosen(self, rollout: Rollout) -> list[list[int]]:
        """Which tokens were chosen among several: TRL's mask for the loss. Logs their share."""
        chosen = [row.chosen for row in rollout.rows if row.chosen is not None]
        if len(chosen) != len(rollout.rows):
            raise RuntimeError("constrained_decoding: sampling did not go through the run's own sampler")
        self.metric(rollout.mode, "constrained/chosen_share", sum(map(sum, chosen)) / sum(map(len, chosen)))
        return chosen

    def make_prompts_readable(self) -> None:
        """Prompts as plain text with their media named: of one type in every row, as wandb's tables ask."""
        self._logs["prompt"] = deque(map(_readable, self._logs["prompt"]), maxlen=self._logs["prompt"].maxlen)

    def send_playable(self, step: int, num_files: int) -> None:
        """Send the table to wandb with media that play, see [`~omni_grpo.run.log_file.log_playable_table`]."""
        columns = {"prompt": self._logs["prompt"], "completion": self._logs["completion"], **self._logs["rewards"]}
        log_playable_table(columns | self._logs["extra"] | {"advantage": self._logs["advantages"]}, step, num_files)

    def _log_variance(self, rollout: Rollout) -> None:
        """Groups whose rewards are all equal, exactly: with a weight such as 0.3 TRL's own figure misses them."""
        rewards = rollout.rewards
        grouped = torch.nan_to_num(rewards, nan=-1e9).view(-1, rollout.group_size, rewards.size(1))
        equal = (grouped == grouped[:, :1]).all(dim=1).all(dim=1)
        self.metric(rollout.mode, "frac_zero_variance_groups", equal.float().mean().item())

    def _replace_advantages(self, advantages: torch.Tensor, places: torch.Tensor) -> None:
        """The completions table shows each row's mean advantage over its tokens."""
        inside = places >= 0
        means = (advantages * inside).sum(dim=1) / inside.sum(dim=1).clamp(min=1)
        column, shown = self._logs["advantages"], self.accelerator.gather(means).tolist()
        for _ in range(min(len(column), len(shown))):
            column.pop()
        column.extend(shown)

    def _show_credit(self, advantages: torch.Tensor, places: torch.Tensor, totals: torch.Tensor) -> None:
        """
        Put what each place of each completion was credited with into the table.

        Args:
            advantages, places (`Tensor` `(B, T)`): Of this process's rows.
            totals (`Tensor` `(world B,)`): Weighted sum of the rewards.
        """
        names = places_of(self.schema)
        chosen = torch.stack([places == place for place in range(len(names))], dim=1)  # (B, P, T)
        means = (chosen * advantages[:, None]).sum(dim=2) / chosen.sum(dim=2)  # 0 / 0 is NaN: the place has no token
        shown = self.accelerator.gather(means.float())  # (world B, P)
        extra = self._logs["extra"]
        extra["reward"].extend(totals.tolist())
        for place, name in enumerate(names):
            extra[f"advantage_{name}"].extend(shown[:, place].tolist())

    def _log_sections(self, rollout: Rollout, advantages: torch.Tensor, places: torch.Tensor) -> None:
        """Share, mean advantage and its deviation for each place, and completions that lack a section's tokens."""
        names = places_of(self.schema)
        chosen = torch.stack([places == place for place in range(len(names))])  # (P, B, T)
        sums = [(chosen * values).sum(dim=(1, 2), dtype=torch.float64) for values in (1.0, advantages, advantages**2)]
        empty = ~chosen[: len(self.schema.names)].any(dim=2).all(dim=0)  # (B,)
        well_formed = [row.sections is not None and row.sections.ok for row in rollout.rows]
        if unseen := sum(bool(e) and ok for e, ok in zip(empty.tolist(), well_formed, strict=True)):
            logger.warning("%d well-formed completions have a section without a token: its rewards move none", unseen)
        local = torch.cat([*sums, torch.tensor([empty.sum(), len(empty)], device=places.device, dtype=torch.float64)])
        *flat, empties, rows = self.accelerator.reduce(local, reduction="sum").tolist()
        counts, totals, squares = (flat[i * len(names) : (i + 1) * len(names)] for i in range(3))
        self.metric(rollout.mode, "credit/frac_empty_mask", empties / rows)
        for name, count, total, square in zip(names, counts, totals, squares, strict=True):
            self.metric(rollout.mode, f"credit/share/{name}", count / max(sum(counts), 1))
            if count:
                mean = total / count
                self.metric(rollout.mode, f"credit/advantage_mean/{name}", mean)
                self.metric(rollout.mode, f"credit/advantage_std/{name}", max(square / count - mean**2, 0.0) ** 0.5)

    def _log_correlations(self, mode: str, relative: torch.Tensor, rewards: torch.Tensor) -> None:
        """How far two rewards rise and fall together within their groups, where both are given and both vary."""
        for a, b in itertools.combinations(range(rewards.size(1)), 2):
            both = ~rewards[:, [a, b]].isnan().any(dim=1)
            x, y = relative[both][:, a].double(), relative[both][:, b].double()
            value = torch.corrcoef(torch.stack([x, y]))[0, 1].item() if len(x) > 1 else float("nan")
            if math.isfinite(value):
                self.metric(mode, f"credit/correlation/{self.reward_names[a]}~{self.reward_names[b]}", value)


def keep_training_table(output_dir: str, step: int) -> None:
    """Set the completions table of a step aside that is also evaluated: upstream would write over it."""
    table = Path(output_dir, "completions", f"completions_{step:05d}.parquet")
    if table.is_file():
        table.rename(table.with_stem(f"{table.stem}_train"))


def _readable(prompt: Any) -> Any:
    """A prompt whose messages have a string as content: `[video clip.mp4]` where an item stands."""
    if isinstance(prompt, str):
        return prompt
    return [
        {**m, "content": " ".join(p.get("text") or f"[{p['type']} {Path(p['path']).name}]" for p in m["content"])}
        if isinstance(m.get("content"), list)
        else m
        for m in prompt
    ]
