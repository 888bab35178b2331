# SPDX-License-Identifier: Apache-2.0
"""How long a file says it is, which tells a whole one from a truncated one without decoding it."""

from typing import BinaryIO, Literal

MP4_BOXES = set(b"ftyp styp moov moof mdat sidx mfra free skip wide uuid udta meta pdin emsg".split())


def declared_bytes(file: BinaryIO) -> int:
    """How long an mp4, a RIFF (wav, avi), an AIFF or a matroska file says it is; 0 where it does not say.

    A program that writes into a pipe learns the size too late, and leaves a mark in its place (`_stated`).
    """
    head = file.read(4096)
    if head[4:8] in MP4_BOXES:
        return _end_of_boxes(file)
    if head[:4] == b"RIFF":
        return max(8 + _stated(head[4:8], "little"), _end_of_data(file) if head[8:12] == b"WAVE" else 0)
    if head[:4] in (b"RF64", b"BW64"):
        return 8 + int.from_bytes(head[20:28], "little")
    if head[:4] == b"FORM":
        return 8 + _stated(head[4:8], "big")
    segment = head.find(b"\x18\x53\x80\x67") + 4 if head[:4] == b"\x1a\x45\xdf\xa3" else 0
    if segment < 4 or not head[segment : segment + 1]:
        return 0
    width = 9 - head[segment].bit_length()  # of an EBML number, by its leading zeros
    size = int.from_bytes(head[segment : segment + width], "big") - (1 << 7 * width)
    return 0 if size == (1 << 7 * width) - 1 else segment + width + size  # all ones: a live recording


def _stated(size: bytes, order: Literal["little", "big"]) -> int:
    """A size of four bytes; 0 for the marks of an unknown one: 0, FFFFFFFF, 7FFFFFFF, or less by some headers."""
    value = int.from_bytes(size, order)
    return 0 if 0x7FFFF000 <= value <= 0x80000100 or value >= 0xFFFFF000 else value


def _end_of_data(file: BinaryIO) -> int:
    """Where a wav's chunk of samples ends."""
    at = 12
    while True:
        file.seek(at)
        head = file.read(8)
        size = _stated(head[4:], "little")
        if len(head) < 8 or head[:4] == b"data":
            return at + len(head) + size
        at += 8 + size + size % 2


def _end_of_boxes(file: BinaryIO) -> int:
    """Where the last of an mp4's top-level boxes ends; what is no box (padding behind them) is left out."""
    end = 0
    while True:
        file.seek(end)
        head = file.read(16)
        size = int.from_bytes(head[8:16] if head[:4] == b"\0\0\0\1" else head[:4], "big")
        if head[4:8] not in MP4_BOXES or size < 8:  # 0: to the end of the file
            return end
        end += size
