# SPDX-License-Identifier: Apache-2.0
"""Speech by eSpeak NG, called through ctypes from the espeakng-loader wheel.

eSpeak NG keeps state between phrases that no call of its interface resets, so the same phrase sounds a little
different after another one. Here a small server process loads the library and never speaks itself: each phrase is
spoken by a fork of it. The samples then depend on the request alone. (POSIX only, as it forks.)

This file is also the server's program; it imports nothing heavy at the top, which keeps a fork near one millisecond.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import subprocess
import sys
from types import TracebackType
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

NATIVE_RATE_HZ = 22_050  # of every eSpeak NG voice
_RATE, _PITCH, _RANGE = 1, 3, 4  # espeak_PARAMETER
_LENGTH = struct.Struct("<i")  # bytes of sound that follow; -1 when the voice does not exist

ACCENTS = ("en-us", "gmw/en", "gmw/en-GB-x-rp", "gmw/en-GB-scotland", "gmw/en-029", "gmw/en-US-nyc")

# Variants, by who may hear them. Left out: whispers, and variants whose pitch or pitch range does not move.
# Near twins (steph/steph2, klatt/klatt2 …) stay in one group.
VARIANTS: dict[str, tuple[str, ...]] = {
    "training": (
        *("Alex", "Alicia", "Andrea", "Andy", "AnxiousAndy", "Denis", "Diogo", "Gene", "Gene2", "Henrique"),
        *("Jacky", "Lee", "Marco", "Mario", "Michael", "Mike", "Mr serious", "RicishayMax", "RicishayMax2"),
        *("RicishayMax3", "Storm", "Tweaky", "adam", "anika", "anikaRobot", "antonio", "aunty", "benjamin", "boris"),
        *("david", "ed", "edward", "edward2", "f1", "f2", "f3", "f4", "fast", "grandma", "gustave", "iven"),
        *("iven2", "iven3", "iven4", "john", "kaukovalta", "klatt", "klatt2", "klatt3", "klatt4", "klatt5", "klatt6"),
        *(
            "linda",
            "announcer",
            "robosoft",
            "robosoft2",
            "m1",
            "m2",
            "m3",
            "m4",
            "m5",
            "m6",
            "marcelo",
            "max",
            "michel",
            "mike2",
            "norbert",
            "pedro",
        ),
        *("quincy", "robert", "robosoft3", "robosoft4", "robosoft5", "robosoft7", "steph", "steph2"),
        *("steph3", "travis", "victor"),
    ),
    "validation": ("Hugo", "pablo", "belinda", "m8", "Nguyen"),
    "test": ("Reed", "ian", "f5", "miguel", "paul", "shelby", "Annie", "sandro", "m7", "grandpa"),
}


class Speaker:
    """
    A running eSpeak NG. Use it as a context manager, or `close()` it.

    The same arguments give the same samples, whatever was said before.
    """

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=True
        )

    def speak(self, text: str, voice_name: str, rate_wpm: float, pitch: float, pitch_range: float) -> np.ndarray:
        """
        Say `text`; int16 samples at `NATIVE_RATE_HZ`, shape `(num_samples,)`.

        Raises:
            ValueError: no voice of that name.
            RuntimeError: the server died; what it said is on standard error.
        """
        import numpy as np

        requests, replies = self._pipes()
        request = {"text": text, "voice": voice_name, "parameters": [int(rate_wpm), int(pitch), int(pitch_range)]}
        requests.write(json.dumps(request).encode() + b"\n")
        requests.flush()
        header = replies.read(_LENGTH.size)
        if len(header) < _LENGTH.size:
            raise RuntimeError(f"the eSpeak NG server ended, code {self._server.wait()}")
        (length,) = _LENGTH.unpack(header)
        if length < 0:
            raise ValueError(f"eSpeak NG has no voice {voice_name!r}")
        return np.frombuffer(replies.read(length), dtype=np.int16)

    def close(self) -> None:
        """End the server; a second call does nothing."""
        requests, replies = self._pipes()
        requests.close()
        self._server.wait()
        replies.close()

    def __enter__(self) -> Speaker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._server.stdin is None or self._server.stdout is None:
            raise RuntimeError("the eSpeak NG server has no pipes")
        return self._server.stdin, self._server.stdout


def _load_library(chunks: list[bytes]) -> tuple[ctypes.CDLL, object]:
    """The initialised library, which appends what it says to `chunks`, and the callback to keep alive."""
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

    def receive(samples: object, count: int, _events: object) -> int:
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))  # type: ignore[arg-type]
        return 0

    callback = kind(receive)
    synchronous = 2
    rate = library.espeak_Initialize(synchronous, 0, espeakng_loader.get_data_path().encode(), 0)
    if rate != NATIVE_RATE_HZ:
        raise RuntimeError(f"eSpeak NG speaks at {rate} Hz, expected {NATIVE_RATE_HZ}")
    library.espeak_SetSynthCallback(callback)
    return library, callback


def _say(library: ctypes.CDLL, chunks: list[bytes], request: dict) -> bytes:
    """A reply: length, then int16 samples."""
    if library.espeak_SetVoiceByName(request["voice"].encode()) != 0:
        return _LENGTH.pack(-1)
    for parameter, value in zip((_RATE, _PITCH, _RANGE), request["parameters"], strict=True):
        library.espeak_SetParameter(parameter, value, 0)
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    text = request["text"].encode()
    utf8 = 1
    library.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, 0, 0, utf8, None, None)
    library.espeak_Synchronize()
    sound = b"".join(chunks)
    return _LENGTH.pack(len(sound)) + sound


def _serve() -> None:
    """Answer requests, one JSON object a line, each from a fresh fork."""
    chunks: list[bytes] = []
    library, _callback = _load_library(chunks)
    out = sys.stdout.buffer.fileno()
    for line in sys.stdin.buffer:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                reply = memoryview(_say(library, chunks, json.loads(line)))
                while reply:
                    reply = reply[os.write(out, reply) :]
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        if status != 0:
            raise SystemExit(f"eSpeak NG failed on {line.decode().strip()}")


if __name__ == "__main__":
    _serve()
