# SPDX-License-Identifier: Apache-2.0
"""How far the log-probabilities of sampling and of scoring lie apart, in every batch of a run."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from omni_grpo.data.encoding.inputs import EncodedPrompt
from omni_grpo.data.media.settings import MediaError
from omni_grpo.families import MODALITIES
from omni_grpo.rollout.prefill import drops_out
from omni_grpo.rollout.record import Row
from omni_grpo.scoring.scorer import computing_dtype

logger = logging.getLogger(__name__)

# Mean difference in nats a token: where a run warns, and where it stops. docs/agreement.md says what they are taken from.
LIMITS = {torch.float16: (1e-2, 1e-1), torch.bfloat16: (5e-2, 2e-1)}
EXACT = (1e-4, 1e-3)  # in float32, with weights that are not quantised


class Agreement:
    """
    Compares the log-probabilities that a sampler gave with those of the first scoring pass on the same weights.

    With Δ = scored − sampled over the tokens of a batch, of all processes, it logs under `agreement/`: `mean` and `max`
    of |Δ|; `token_error`, exp(mean |Δ|), by which factor a token's probability is off; `k3`, mean of exp(Δ) − 1 − Δ, an
    estimate of KL(sampled ‖ scored); the mean of |Δ| by `section/<place>` and by `modality/<what the row shows>`. Rows
    without a log-probability for each token, such as those that a tool has answered, are left out.

    Args:
        accelerator (`Accelerator`): The run's.
        policy (`nn.Module`): What is trained.
        args ([`AgreementArguments`]): What is done about differences.
        places (`Sequence[str]`): Names of the sections, see [`~omni_grpo.credit.section_masks.places_of`].
        metric (`Callable`): Takes mode, name and value of what is logged.
    """

    def __init__(
        self, accelerator: Any, policy: Any, args: Any, places: Sequence[str], metric: Callable[..., None]
    ) -> None:
        self.accelerator, self.policy, self.args, self.places = accelerator, policy, args, places
        self.metric, self._warned = metric, False

    def __call__(
        self,
        rows: Sequence[Row],
        logps: torch.Tensor,
        mask: torch.Tensor,
        ratio: torch.Tensor | None = None,
        name: str = "agreement",
    ) -> None:
        """
        Measure a batch; all processes come here together. Where dropout is on it is logged, but not judged.

        Args:
            rows (`Sequence[Row]`): With their `logprobs`, `places` and prompts.
            logps (`Tensor` `(B, T)`): As scored.
            mask (`Tensor` `(B, T)`): 1 at tokens that were scored.
            ratio (`Tensor` `(B, T)` or `(B, 1)`, *optional*):
                TRL's importance-sampling correction of tokens or of rows. What it leaves is judged; what it sets to zero
                is not learnt from, and left out. Logged as `corrected`.
            name (`str`): What the metrics begin with.

        Raises:
            `RuntimeError`: The mean is beyond `agreement_stop`.
        """
        if self.args.agreement == "off":
            return
        delta = logps.detach().double() - _table([_known(row) for row in rows], logps, math.nan)  # (B, T)
        counted = mask.bool() & ~delta.isnan()
        delta = delta.masked_fill(~counted, 0.0)
        left = delta if ratio is None else _uncorrected(delta, counted, ratio.double())
        judged, places = counted & ~left.isnan(), _table([row.places for row in rows], logps, -1)
        shown = [[row.prompt.counts[m] > 0 for m in MODALITIES] for row in rows]
        shows = torch.tensor([[*has, not any(has)] for has in shown], device=logps.device).T[..., None]  # (M, B, 1)
        names = ["mean", *(f"section/{n}" for n in self.places), *(f"modality/{m}" for m in (*MODALITIES, "text"))]
        parts = [counted, *(counted & (places == i) for i in range(len(self.places))), *(counted & shows)]
        k3 = delta.clamp(max=20.0).expm1() - delta.clamp(max=20.0)
        sums = [(delta.abs() * part).sum() for part in parts] + [part.sum() for part in parts]
        sums += [k3.sum(), (left.nan_to_num().abs() * judged).sum(), judged.sum(), delta.abs().max()]
        told = self.accelerator.gather(torch.stack([value.double() for value in sums])[None])  # (W, …)
        *flat, k3_sum, left_sum, num_judged = told[:, :-1].sum(dim=0).tolist()
        totals, counts = flat[: len(names)], flat[len(names) :]
        if not counts[0]:
            return
        means = {part: total / count for part, total, count in zip(names, totals, counts, strict=True) if count}
        found = means | {"max": told[:, -1].max().item(), "k3": k3_sum / counts[0]}
        found |= {"token_error": math.exp(min(means["mean"], 700)), "corrected": left_sum / max(num_judged, 1)}
        for part, value in found.items():
            if ratio is not None or part != "corrected":
                self.metric("train" if self.policy.training else "eval", f"{name}/{part}", value)
        if self.args.agreement == "stop" and (name != "agreement" or not drops_out(self.policy)):
            self._judge(found["corrected"], means)

    def _judge(self, mean: float, means: dict[str, float]) -> None:
        is_quantized = any(getattr(module, "is_quantized", False) for module in self.policy.modules())
        dtype = torch.bfloat16 if is_quantized else computing_dtype(self.accelerator, self.policy)
        warns, stops = LIMITS.get(dtype, EXACT)
        warns, stops = self.args.agreement_warn or warns, self.args.agreement_stop or stops
        worst = max(means, key=means.__getitem__)
        said = (
            f"agreement: sampling and scoring give the same tokens log-probabilities that differ by {mean:.2g} nats on "
            f"average ({means[worst]:.2g} in {worst})"
        )
        if mean > stops:
            raise RuntimeError(
                f"{said}; agreement_stop is {stops:g}. One of the two saw other media, positions, weights or settings: "
                "docs/agreement.md lists causes"
            )
        if mean > warns and not self._warned:
            self._warned = True
            logger.warning("%s; agreement_warn is %g. The metrics go on, this is said once", said, warns)


def check_prompts(prompts: Sequence[EncodedPrompt], shown: Sequence[list[int]]) -> None:
    """
    Hold what a sampler was shown to what will be scored.

    Raises:
        `MediaError`: Another prompt, or a different one; the row is named.
    """
    for prompt, ids in zip(prompts, shown, strict=True):
        if prompt.input_ids != ids:
            raise MediaError(
                f"row {prompt.name!r}: sampling was shown another prompt than scoring will be, of {len(ids)} tokens for "
                f"{len(prompt.input_ids)}"
            )


def _known(row: Row) -> list[float]:
    """A row's log-probabilities, NaN where the sampler has none; empty where they are not of its tokens."""
    if row.logprobs is None or len(row.logprobs) != len(row.completion_ids):
        return []
    return [math.nan if value is None else value for value in row.logprobs]


def _table(rows: Sequence[list[Any]], like: torch.Tensor, filler: float) -> torch.Tensor:
    """Lists as rows of one tensor, filled up to the width of `like` `(B, T)`."""
    width = like.size(1)
    filled = [[*row[:width], *[filler] * (width - len(row))] for row in rows]
    return torch.tensor(filled, dtype=torch.float64, device=like.device)


def _uncorrected(delta: torch.Tensor, counted: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
    """What a correction leaves of Δ `(B, T)`, a row's share on each of its tokens; NaN where it is zero."""
    if ratio.size(1) == 1:
        delta = (delta.sum(dim=1, keepdim=True) - ratio.log()) / counted.sum(dim=1, keepdim=True).clamp(min=1)
        return delta.masked_fill(ratio == 0, math.nan).expand_as(counted)
    return (delta - ratio.log()).masked_fill(ratio == 0, math.nan)
