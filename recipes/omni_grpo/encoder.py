# SPDX-License-Identifier: Apache-2.0
"""[`encode_prompt`] with a bounded memory: equal prompts are decoded and processed once."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import replace

from transformers import ProcessorMixin

from omni_grpo.encoding import EncodedPrompt, encode_prompt
from omni_grpo.media import MediaSettings
from omni_grpo.prompts import Messages


def prompt_key(messages: Messages, blank: Collection[str] = ()) -> str:
    """Equal for equal prompts: same text, same files, same order, the same modalities blanked."""
    return json.dumps([messages, sorted(blank)], sort_keys=True)


def processing_key(processor: ProcessorMixin) -> str:
    """Equal for processors that make the same inputs of a prompt; 64 hexadecimal digits."""
    tokenizer = processor.tokenizer
    parts = [processor.to_dict(), processor.chat_template, tokenizer.get_vocab()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


class PromptEncoder:
    """
    [`encode_prompt`] with its arguments bound, and a bounded memory: equal prompts are decoded and processed once.

    Args:
        processor (`ProcessorMixin`): The model's processor.
        settings ([`MediaSettings`]): How media are sampled and capped.
        max_prompt_length (`int`, *optional*): Longest prompt allowed, in tokens.
        cache_mb (`int`, defaults to `512`): Memory for encodings, in MB; the least recently used go first.

    Attributes:
        encoded (`int`): Prompts decoded and processed so far (not those answered from memory).
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        settings: MediaSettings,
        max_prompt_length: int | None = None,
        cache_mb: int = 512,
    ) -> None:
        self.processor = processor
        self.settings = settings
        self.max_prompt_length = max_prompt_length
        self.encoded = 0
        self._cache: OrderedDict[str, EncodedPrompt] = OrderedDict()
        self._bytes, self._max_bytes = 0, cache_mb * 2**20
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}

    def __call__(self, messages: Messages, name: str = "", blank: Collection[str] = ()) -> EncodedPrompt:
        """
        The encoding of a prompt, from memory if it is there; safe to call from several threads.

        Modalities in `blank` are encoded as silence or grey, see [`encode_prompt`].
        """
        key = prompt_key(messages, blank)
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        try:
            with turn:  # who asks for a prompt that is being encoded waits for it
                row = self._recall(key) or self._encode(key, messages, name, blank)
        finally:
            with self._lock:
                self._turns.pop(key, None)
        return row if row.name == name else replace(row, name=name)  # equal prompts of two rows: errors name this one

    def _recall(self, key: str) -> EncodedPrompt | None:
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
            return self._cache.get(key)

    def _encode(self, key: str, messages: Messages, name: str, blank: Collection[str]) -> EncodedPrompt:
        row = encode_prompt(self.processor, messages, self.settings, name, self.max_prompt_length, blank)
        with self._lock:
            self.encoded += 1
            if key not in self._cache:
                self._cache[key] = row
                self._bytes += _size(row)
            while self._bytes > self._max_bytes and len(self._cache) > 1:
                self._bytes -= _size(self._cache.popitem(last=False)[1])
        return row


def _size(row: EncodedPrompt) -> int:
    return sum(t.nbytes for t in row.media.values()) + 8 * len(row.input_ids)
