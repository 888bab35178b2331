# SPDX-License-Identifier: Apache-2.0
"""The six ways to say a phrase: rate, pitch, pitch range, loudness, tremor."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Prosody:
    """How a phrase is said. eSpeak's own scales for `pitch` and `pitch_range` (0 to 99)."""

    rate_wpm: float  # words per minute
    pitch: float
    pitch_range: float
    level_db: float  # RMS of the speech, relative to full scale
    tremor: float  # depth of a 9 Hz tremble, 0 to 1

    def jittered(self, rng: random.Random) -> Prosody:
        """The same manner of speaking, a little different each time."""
        return Prosody(
            rate_wpm=self.rate_wpm * rng.uniform(0.93, 1.07),
            pitch=min(99.0, max(0.0, self.pitch + rng.uniform(-5, 5))),
            pitch_range=min(99.0, max(0.0, self.pitch_range + rng.uniform(-6, 6))),
            level_db=self.level_db + rng.uniform(-1.5, 1.5),
            tremor=self.tremor * rng.uniform(0.85, 1.15),
        )


#                           wpm pitch range   dB  tremor
PROSODY: dict[str, Prosody] = {
    "happy": Prosody(195, 75, 95, -17.0, 0.0),
    "angry": Prosody(215, 35, 90, -11.0, 0.0),
    "sad": Prosody(115, 38, 15, -30.0, 0.0),
    "afraid": Prosody(265, 92, 25, -22.0, 0.7),
    "warm": Prosody(135, 70, 85, -25.0, 0.0),
    "cold": Prosody(180, 8, 0, -16.0, 0.0),
}
