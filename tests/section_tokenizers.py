# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of different merge habits, and ways to cut a text into their tokens that no tokenizer would choose."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

FIXTURES = Path(__file__).parent / "fixtures"
BYTES = bytes_to_unicode()
END, START = "<|im_end|>", "<|im_start|>"
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(merges: list[str], before: Any) -> PreTrainedTokenizerFast:
    """All bytes, the merges given in their spelling ([`BYTES`]), and how a text is cut before it is merged."""
    pairs = [tuple(merge.split(" ")) for merge in merges]
    vocabulary = [*BYTES.values(), *("".join(pair) for pair in pairs)]
    bpe = models.BPE(vocab={token: i for i, token in enumerate(dict.fromkeys(vocabulary))}, merges=pairs)
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*before, pre_tokenizers.ByteLevel(False, use_regex=not before)])
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, additional_special_tokens=[START])


def _merges(name: str) -> list[str]:
    return json.loads((FIXTURES / f"merges_{name}.json").read_text(encoding="utf-8"))["merges"]


def _with_spaces_in_front() -> PreTrainedTokenizerFast:
    """SentencePiece's habits: a word begins with its space, unknown characters are bytes."""
    texts = ["<context>He frowns. </context><think>The voice is cold.</think><answer>no</answer> yes A B C"]
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Metaspace()
    learned.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=120))
    model = json.loads(learned.to_str())["model"]
    vocabulary = dict.fromkeys([f"<0x{byte:02X}>" for byte in range(256)] + list(model["vocab"]))
    bpe = models.BPE(
        vocab={token: i for i, token in enumerate(vocabulary)},
        merges=[tuple(pair) for pair in model["merges"]],
        byte_fallback=True,
    )
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    strip = decoders.Strip(content=" ", left=1)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, additional_special_tokens=[START])


@cache
def tokenizer(name: str) -> Any:
    """`qwen` and `smollm2` (their own merges, see the fixtures), `bytes`, `byt5`, `added_tags`, `spaces`."""
    if name in ("qwen", "added_tags"):
        made = byte_level(_merges("qwen"), [pre_tokenizers.Split(Regex(_QWEN_WORDS), "isolated")])
        if name == "added_tags":
            tags = [f"<{slash}{section}>" for section in ("context", "think", "answer") for slash in ("", "/")]
            made.add_tokens([AddedToken(tag, normalized=False) for tag in tags])
        return made
    if name == "smollm2":
        return byte_level(_merges("smollm2"), [pre_tokenizers.Digits(individual_digits=True)])
    if name == "bytes":
        return byte_level([], [])
    if name == "byt5":
        return ByT5Tokenizer()
    return _with_spaces_in_front()


def token_bytes(made: Any, ids: list[int]) -> list[bytes]:
    """What each token of a byte-level tokenizer stands for."""
    if isinstance(made, ByT5Tokenizer):
        return [bytes([i - 3]) for i in ids]
    added = {str(token): str(token).encode() for token in made.added_tokens_decoder.values()}
    back = {character: byte for byte, character in BYTES.items()}
    return [
        added[t] if t in added else bytes(back[character] for character in t) for t in made.convert_ids_to_tokens(ids)
    ]


@cache
def _vocabulary(made: Any) -> dict[str, int]:
    return made.get_vocab()


def cut_at_random(made: Any, text: str, chance: random.Random) -> list[int]:
    """Ids of a byte-level tokenizer that spell `text`, chosen at random among all that do."""
    spelled, vocabulary = "".join(BYTES[byte] for byte in text.encode()), _vocabulary(made)
    ids, position = [], 0
    while position < len(spelled):
        fitting = [n for n in range(1, 12) if spelled[position : position + n] in vocabulary]
        length = chance.choice(fitting)
        ids.append(vocabulary[spelled[position : position + length]])
        position += length
    return ids
