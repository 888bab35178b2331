# SPDX-License-Identifier: Apache-2.0
"""[`encode_prompt`] with a bounded memory, and with foresight: equal prompts are encoded once, coming ones ahead."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase, ProcessorMixin

from omni_grpo.data.encoding.checks import longest_sound
from omni_grpo.data.encoding.inputs import EncodedPrompt
from omni_grpo.data.encoding.prompt import encode_prompt
from omni_grpo.data.media.decode_cache import DecodeCache
from omni_grpo.data.media.reader import MediaReader, read_media
from omni_grpo.data.media.settings import MediaSettings
from omni_grpo.data.rows.prompts import Messages, is_in_parts
from omni_grpo.families import family_of_processor, tokenizer_of

logger = logging.getLogger(__name__)


def prompt_key(messages: Messages, blank: Collection[str] = ()) -> str:
    """Equal for equal prompts: same text, same files, same order, the same modalities blanked."""
    return json.dumps([messages, sorted(blank)], sort_keys=True)


def processing_key(processor: ProcessorMixin | PreTrainedTokenizerBase) -> str:
    """Equal for processors that make the same inputs of a prompt; 64 hexadecimal digits."""
    settings = processor.init_kwargs if isinstance(processor, PreTrainedTokenizerBase) else processor.to_dict()
    parts = [settings, processor.chat_template, tokenizer_of(processor).get_vocab()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


class PromptEncoder:
    """
    [`encode_prompt`] with its arguments bound, and a bounded memory: equal prompts are decoded and processed once.

    Args:
        processor (`ProcessorMixin`): The model's processor.
        settings ([`MediaSettings`]): How media are sampled and capped.
        max_prompt_length (`int`, *optional*): Longest prompt allowed, in tokens.
        cache_mb (`int`, defaults to `512`): Memory for encodings, in MB; the least recently used go first.
        decode_cache ([`DecodeCache`], *optional*): Where decoded frames and waveforms are kept on disk.
        escape (`bool`, defaults to `False`): Write control tokens in texts as ordinary text; they are refused otherwise.

    Attributes:
        encoded (`int`): Prompts decoded and processed so far (not those answered from memory).
    """

    def __init__(
        self,
        processor: ProcessorMixin | PreTrainedTokenizerBase,
        settings: MediaSettings,
        max_prompt_length: int | None = None,
        cache_mb: int = 512,
        decode_cache: DecodeCache | None = None,
        escape: bool = False,
    ) -> None:
        self.processor = processor
        self.settings = family_of_processor(processor).fitted(settings, processor)
        self.max_prompt_length = max_prompt_length
        self.escape = escape
        self.encoded = 0
        self.read: MediaReader = decode_cache.read if decode_cache else read_media
        self._cache: OrderedDict[str, EncodedPrompt] = OrderedDict()
        self._bytes, self._max_bytes = 0, cache_mb * 2**20
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}
        self._ahead: dict[str, Future[EncodedPrompt]] = {}
        self._threads: ThreadPoolExecutor | None = None

    def __call__(self, messages: Messages, name: str = "", blank: Collection[str] = ()) -> EncodedPrompt:
        """
        The encoding of a prompt, from memory if it is there; safe to call from several threads.

        Modalities in `blank` are encoded as silence or grey, see [`encode_prompt`].
        """
        key = prompt_key(messages, blank)
        row = self._take(key, name) or self._encoded_once(key, messages, name, blank)
        return row if row.name == name else replace(row, name=name)  # equal prompts of two rows: errors name this one

    def reads(self, prompt: Any) -> bool:
        """Whether a prompt is encoded here: all turns, but for text-only models those of TRL's form, as TRL does."""
        is_text = isinstance(self.processor, PreTrainedTokenizerBase)
        return not isinstance(prompt, str) and (not is_text or is_in_parts(prompt))

    def lenient(self, max_prompt_length: int | None) -> PromptEncoder:
        """One that cuts long sounds and escapes control tokens, to see what else is wrong with a row."""
        longest = min(self.settings.max_audio_seconds or math.inf, longest_sound(self.processor))
        settings = replace(self.settings, long_audio="truncate", max_audio_seconds=longest)
        twin = PromptEncoder(self.processor, settings, max_prompt_length, cache_mb=0, escape=True)
        twin.read = self.read
        return twin

    def expect(self, prompts: Iterable[tuple[Messages, str]], blank: Collection[str] = ()) -> None:
        """
        Begin to encode prompts that will be asked for, each with its row's name, in threads; returns at once.

        They are kept beside the memory until they are asked for, or until [`forget`]. What fails here is tried again
        when it is asked for, and raises there.
        """
        for messages, name in prompts:
            key = prompt_key(messages, blank)
            with self._lock:
                if key in self._ahead:
                    continue
                if self._threads is None:  # one thread in four cores: the others are the model's
                    workers = min(max((os.cpu_count() or 1) // 4, 1), 4)
                    self._threads = ThreadPoolExecutor(workers, thread_name_prefix="encode-ahead")
                self._ahead[key] = self._threads.submit(self._encoded_once, key, messages, name, blank)

    def forget(self) -> None:
        """Drop what was expected and not asked for."""
        with self._lock:
            for future in self._ahead.values():
                future.cancel()
            self._ahead.clear()

    def _take(self, key: str, name: str) -> EncodedPrompt | None:
        """An expected prompt, once it is encoded; `None` if it was not expected, or failed."""
        with self._lock:
            future = self._ahead.pop(key, None)
        if future is None:
            return None
        if (error := future.exception()) is None:
            return future.result()
        if not isinstance(error, ValueError):  # bad data raises again in a moment; anything else may not
            logger.warning("row %r: encoding it ahead failed (%r); encoding it now", name, error)
        return None

    def _encoded_once(self, key: str, messages: Messages, name: str, blank: Collection[str]) -> EncodedPrompt:
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        try:
            with turn:  # who asks for a prompt that is being encoded waits for it
                return self._recall(key) or self._encode(key, messages, name, blank)
        finally:
            with self._lock:
                self._turns.pop(key, None)

    def _recall(self, key: str) -> EncodedPrompt | None:
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
            return self._cache.get(key)

    def _encode(self, key: str, messages: Messages, name: str, blank: Collection[str]) -> EncodedPrompt:
        limit = self.max_prompt_length
        row = encode_prompt(self.processor, messages, self.settings, name, limit, blank, self.read, self.escape)
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
