"""What the stood-in models say: a tone for every character, so that audio tells which text it is of.

Imported by the tests and, under another Python with an older numpy, by the server they run.
"""

from __future__ import annotations

from typing import Any

import numpy as np

RATE_HZ = 32_000
PER_CHARACTER = 800
"25 ms"


def spoken(text: str, speed: float = 1.0) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Samples of a text: 16 bit at `RATE_HZ`."""
    length = round(PER_CHARACTER / speed)
    times = np.arange(length) / RATE_HZ
    tones = [np.sin(2 * np.pi * 200 * 2 ** (ord(c) % 36 / 12) * times + 0.5) * 9000 for c in text]
    return np.concatenate(tones).astype(np.int16)


def fragments(text: str, speed: float = 1.0) -> list[np.ndarray[Any, np.dtype[np.int16]]]:
    """The same in up to three pieces, as a stream brings it."""
    return [part for part in np.array_split(spoken(text, speed), 3) if part.size]
