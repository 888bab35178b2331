# SPDX-License-Identifier: Apache-2.0
"""The bytes that each token of a vocabulary adds to the decoded text."""

from __future__ import annotations

import json
import re
from typing import Any


def token_bytes(tokenizer: Any, vocab_size: int | None = None) -> list[bytes | None]:
    """
    Bytes by token id; `None` where an id adds no text: special tokens, and ids of the model that the tokenizer lacks.

    A byte-level or SentencePiece token may hold part of a character, so its text alone would not do.

    Args:
        tokenizer (`PreTrainedTokenizerFast`): Byte-level (GPT-2, Qwen, SmolLM, Llama 3) or `▁` with byte fallback.
        vocab_size (`int`, *optional*): Width of the model's logits; defaults to the tokenizer's own.

    Raises:
        `ValueError`: The tokenizer decodes in another way.
    """
    as_bytes = _reader_of(tokenizer)
    added = tokenizer.added_tokens_decoder
    special = {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}
    vocabulary = tokenizer.get_vocab()
    table: list[bytes | None] = [None] * max(vocab_size or 0, max(vocabulary.values()) + 1)
    for token, i in vocabulary.items():
        if i not in special:
            table[i] = str(added[i].content).encode() if i in added else as_bytes(token)
    _compare(tokenizer, table)
    return table[:vocab_size]


def byte_alphabet() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for: itself where it prints, else 256 and up."""
    prints = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in prints]
    return {chr(b): b for b in prints} | {chr(256 + n): b for n, b in enumerate(others)}


def _reader_of(tokenizer: Any):
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = json.loads(backend.to_str())["decoder"] if backend is not None else None
    kinds = set(re.findall(r'"type": "(\w+)"', json.dumps(decoder)))
    if "ByteLevel" in kinds:
        alphabet = byte_alphabet()
        return lambda token: bytes(alphabet[c] for c in token)
    if kinds & {"ByteFallback", "Metaspace"}:
        return lambda token: (
            bytes([int(token[3:5], 16)])
            if re.fullmatch("<0x[0-9A-F]{2}>", token)
            else token.replace("▁", " ").encode()
        )
    raise ValueError(
        f"{type(tokenizer).__name__} decodes by {sorted(kinds) or 'unknown means'}; constrained decoding knows "
        "byte-level vocabularies and those of SentencePiece with byte fallback"
    )


def _compare(tokenizer: Any, table: list[bytes | None]) -> None:
    """A few hundred tokens against the tokenizer's own decoding, which may drop one leading space."""
    known = [i for i, text in enumerate(table) if text]
    for i in known[:: max(1, len(known) // 300)]:
        text = table[i] or b""
        try:
            expected = text.decode()
        except UnicodeDecodeError:
            continue
        decoded = tokenizer.decode([i], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if decoded.lstrip(" ") != expected.lstrip(" "):
            raise ValueError(f"token {i} decodes to {decoded!r}, not to {expected!r} as its vocabulary entry says")
