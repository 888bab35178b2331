# SPDX-License-Identifier: Apache-2.0
"""The next batch is encoded while the model works on this one; the order of rows is the loader's own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from datasets import Dataset

from omni_grpo.data.encoding.encoder import PromptEncoder
from omni_grpo.data.rows.prompts import Messages, as_parts

Rows = list[dict[str, Any]]
Batch = TypeVar("Batch")


def uncollated(batch: Batch) -> Batch:
    """A collator that leaves the work to [`LookAhead`]."""
    return batch


class LookAhead(Generic[Batch]):
    """
    Batches of a loader, in its order, each announced before it is handed out.

    Args:
        batches (iterator): Batches, of rows or of prompts.
        announce (`Callable`): Told each batch as soon as it is known.
        finish (`Callable`, *optional*): What becomes of a batch when it is handed out.

    Attributes:
        depth (`int`): Batches announced beyond the one that is handed out; may change.
    """

    def __init__(
        self,
        batches: Iterator[Batch],
        announce: Callable[[Batch], None],
        finish: Callable[[Batch], Any] = uncollated,
        depth: int = 1,
    ) -> None:
        self.batches, self.announce, self.finish, self.depth = batches, announce, finish, depth
        self._waiting: deque[Batch] = deque()

    def __iter__(self) -> LookAhead[Batch]:
        return self

    def __next__(self) -> Any:
        while len(self._waiting) <= self.depth and (batch := next(self.batches, None)) is not None:
            self._waiting.append(batch)
            self.announce(batch)
        if not self._waiting:
            raise StopIteration
        return self.finish(self._waiting.popleft())


# A Trainer, for type checkers of a kind unknown: upstream annotates its attributes as unions over every backend.
_Trainer: Any = object


class EncodesAhead(_Trainer):
    """
    A `Trainer` that encodes the rows of its next training step in a thread during the step before it.

    Each process looks ahead in its own share of the rows, after Accelerate has divided them, and after a resumed run has
    skipped what was trained on: sampler, order and resume are untouched. The first batch of an epoch is not foreseen. A
    row that cannot be encoded raises when its batch is handed out, in the main thread. A streamed data set, or a loader
    with worker processes, is left as it is.
    """

    _ahead: LookAhead[Rows] | None = None
    _ahead_encoder: PromptEncoder | None = None
    _ahead_depth = 1

    def encode_ahead(self, encoder: PromptEncoder, depth: int) -> None:
        """
        Look ahead from now on.

        Args:
            encoder ([`PromptEncoder`]): The trainer's own.
            depth (`int`): How many of the loader's batches to look ahead.
        """
        if isinstance(self.train_dataset, Dataset) and not self.args.dataloader_num_workers:
            self._ahead_encoder, self._ahead_depth = encoder, depth

    def train(self, *args, **kwargs):
        """Leave nothing behind in the threads, however training ends."""
        try:
            return super().train(*args, **kwargs)
        finally:
            self._ahead = None
            if self._ahead_encoder:
                self._ahead_encoder.forget()

    def get_train_dataloader(self):
        """A loader of rows that are not collated before a step takes them."""
        collate = self.data_collator
        try:
            if self._ahead_encoder:
                self.data_collator = uncollated
            return super().get_train_dataloader()
        finally:
            self.data_collator = collate

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """Take the step's batches, and announce those of the next."""
        if (encoder := self._ahead_encoder) is None:
            return super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._ahead is None or self._ahead.batches is not epoch_iterator:  # a new epoch
            announce = lambda rows: encoder.expect(_asked(rows, encoder))  # noqa: E731
            self._ahead = LookAhead(epoch_iterator, announce, self.data_collator)
        left = (self.state.max_steps - self.state.global_step) * self.args.gradient_accumulation_steps
        self._ahead.depth = min(self._ahead_depth, max(left - num_batches, 0))
        return super().get_batch_samples(self._ahead, num_batches, device)


def _asked(rows: Rows, encoder: PromptEncoder) -> list[tuple[Messages, str]]:
    """What will be asked of the encoder for these rows: prompts and names; nothing for a prompt that TRL reads."""
    prompts = ((row.get("prompt", ""), str(row.get("id", ""))) for row in rows)
    return [(as_parts(prompt), name) for prompt, name in prompts if encoder.reads(prompt)]
