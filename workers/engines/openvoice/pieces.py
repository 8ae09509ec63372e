"""Cut speech that is still being made into pieces that can be converted one by one.

The converter looks 1.3 s ahead and back, so short pieces would cost several times their length in context.
What it says of a moment hardly depends on what lies beyond a pause, though. So pieces are some seconds long,
end where it is quiet, and are converted with half a second of what surrounds them, which is then thrown away.
Silence of the purest kind is passed over: a converter would fill it with its own noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ...engine import Samples

MOST_S: Final = 8.0
"A job can be stopped only between pieces, and a CPU may take as long for one as it lasts."
FIRST_MOST_S: Final = 2.5
"For a listener, who waits for the first piece; each may be twice as long as the one that plays meanwhile."
LEAST: Final = 0.4
"Of the most: a shorter piece is made only of speech that ends."
CONTEXT_S: Final = 0.5
_WINDOW_S: Final = 0.04


@dataclass(frozen=True, slots=True)
class Piece:
    """Speech with its surroundings: `samples[start:stop]` is wanted. Silent ones need no conversion."""

    samples: Samples
    start: int
    stop: int
    is_silent: bool = False


class Pieces:
    """Takes parts of one segment at `rate_hz`, gives pieces whose wanted samples are the parts' in order."""

    def __init__(self, rate_hz: int, *, streamed: bool = False) -> None:
        self._rate_hz = rate_hz
        self._most_s = FIRST_MOST_S if streamed else MOST_S
        self._before = np.zeros(0, np.float32)
        "What was given last, as context."
        self._waiting = np.zeros(0, np.float32)

    def feed(self, samples: Samples) -> list[Piece]:
        """Take a part; return the pieces that are now complete."""
        if not samples.any():
            if not samples.size:
                return []
            given = self.end()
            return [*given, Piece(np.asarray(samples, np.float32), 0, len(samples), is_silent=True)]
        self._waiting = np.concatenate([self._waiting, np.asarray(samples, np.float32)])
        found: list[Piece] = []
        context = round(CONTEXT_S * self._rate_hz)
        while len(self._waiting) > round(self._most_s * self._rate_hz) + context:
            found.append(self._cut(self._quietest(), context))
            self._most_s = min(MOST_S, 2 * self._most_s)
        return found

    def end(self) -> list[Piece]:
        """Nothing follows, or silence does: return what is left."""
        found = [self._cut(len(self._waiting), 0)] if len(self._waiting) else []
        self._before = np.zeros(0, np.float32)
        return found

    def _cut(self, at: int, after: int) -> Piece:
        before = len(self._before)
        samples = np.concatenate([self._before, self._waiting[: at + after]])
        context = round(CONTEXT_S * self._rate_hz)
        self._before = samples[max(0, before + at - context) : before + at]
        self._waiting = self._waiting[at:]
        return Piece(samples, before, before + at)

    def _quietest(self) -> int:
        """Where to cut: the middle of the quietest 40 ms between the least and the most."""
        window = max(1, round(_WINDOW_S * self._rate_hz))
        first, last = round(LEAST * self._most_s * self._rate_hz), round(self._most_s * self._rate_hz)
        energy = np.concatenate([[0.0], np.cumsum(np.square(self._waiting[first:last], dtype=np.float64))])
        sums = energy[window:] - energy[:-window]
        return first + int(np.argmin(sums)) + window // 2
