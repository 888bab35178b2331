# SPDX-License-Identifier: Apache-2.0
"""
Whisper's encoder out of a file of CTranslate2's, under the names of transformers.

The format: version, name of the kind, revision and number of tensors; of each its name, shape, type, size and bytes; then
names that stand for others. Strings are measured in 16 bits, numbers in 32, little-endian.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch

TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
KIND = "WhisperSpec"


def read_tensors(file: Path) -> dict[str, np.ndarray]:
    """
    Tensors by name.

    Raises:
        `ValueError`: It is no model of Whisper's in that format.
    """
    data, place = memoryview(file.read_bytes()), 0

    def number(form: str) -> int:
        nonlocal place
        (value,) = struct.unpack_from("<" + form, data, place)
        place += struct.calcsize(form)
        return value

    def text() -> str:
        nonlocal place
        size = number("H")
        place += size
        return bytes(data[place - size : place]).rstrip(b"\0").decode()

    tensors: dict[str, np.ndarray] = {}
    number("I")
    if (kind := text()) != KIND:
        raise ValueError(f"{file}: a {kind!r} where a {KIND} is wanted")
    number("I")
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        kind, size = TYPES[number("B")], number("I")
        tensors[name] = np.frombuffer(data[place : place + size], kind).reshape(shape)
        place += size
    for _ in range(number("I")):
        name = text()
        tensors[name] = tensors[text()]
    return tensors


def encoder_state(file: Path) -> dict[str, torch.Tensor]:
    """The encoder's weights in float32, as transformers' `WhisperEncoder` names them."""
    tensors = {name: torch.from_numpy(values.astype(np.float32)) for name, values in read_tensors(file).items()}
    state = {"embed_positions.weight": tensors["encoder/position_encodings/encodings"]}

    def take(name: str, source: str, weight: str = "weight", bias: str = "bias") -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = tensors[f"{source}/{weight}"], tensors[f"{source}/{bias}"]

    for name in ("conv1", "conv2"):
        take(name, f"encoder/{name}")
    take("layer_norm", "encoder/layer_norm", "gamma", "beta")
    layers = {name.split("/")[1] for name in tensors if name.startswith("encoder/layer_") and name.count("/") > 2}
    for i in range(len(layers)):
        here, there = f"layers.{i}", f"encoder/layer_{i}"
        take(f"{here}.self_attn_layer_norm", f"{there}/self_attention/layer_norm", "gamma", "beta")
        take(f"{here}.final_layer_norm", f"{there}/ffn/layer_norm", "gamma", "beta")
        take(f"{here}.self_attn.out_proj", f"{there}/self_attention/linear_1")
        take(f"{here}.fc1", f"{there}/ffn/linear_0")
        take(f"{here}.fc2", f"{there}/ffn/linear_1")
        for part in ("weight", "bias"):  # queries, keys and values lie in one matrix
            parts = tensors[f"{there}/self_attention/linear_0/{part}"].chunk(3)
            state |= {f"{here}.self_attn.{n}_proj.{part}": t for n, t in zip("qkv", parts, strict=True)}
        del state[f"{here}.self_attn.k_proj.bias"]  # zero: Whisper's keys have none
    return state
