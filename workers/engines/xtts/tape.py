"""A row's latents made audible, in parts that join without a seam.

Coqui streams by rendering everything again for each part and cross-fading, which costs more the longer it
speaks and sounds slightly different from the whole. The vocoder is a convolution: a sample depends on
fourteen frames to either side and on nothing else. So each part is rendered once, with that much context,
and what still depends on tokens to come is held back: streamed or not, the samples are the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

from ...engine import Samples
from .. import coqui
from .decode import Line
from .model import Model

REACH: Final = 14
"""Frames, of 10.7 ms, that a sample depends on to either side. The vocoder's layers add up to 13.3: 3 in the
first convolution, 1 in the first transposed one, and in the residual blocks 60 samples at each of four rates,
of which the first is 8 to a frame."""
WINDOW: Final = 400
"""Frames that are rendered in one piece: 4.3 s."""


class Tape:
    """One row's audio."""

    def __init__(self, model: Model, line: Line) -> None:
        self._model = model
        self._line = line
        self._frames = 0
        self.tokens = 0
        "Tokens of which everything is heard that does not depend on later ones."

    def play(self) -> Iterator[Samples]:
        """Yield what can be heard and was not: of a line that has ended, the rest."""
        line = self._line
        request = line.row.request
        torch = coqui.torch()
        self.tokens = len(line.latents)
        with torch.inference_mode():
            frames = self._model.frames(torch.stack(line.latents), request.speed)
        there = int(frames.shape[-1])
        ready = there
        if not line.ended:
            # Between two tokens' centres frames are interpolated, and at the edge they are not.
            ready -= REACH + math.ceil(self._model.frames_in(1.5, request.speed)) + 4
        while self._frames < ready and not line.row.stopped:
            end = min(self._frames + WINDOW, ready)
            first = max(0, self._frames - REACH)
            wave = self._render(frames[..., first : min(there, end + REACH)])
            hop = self._model.hop
            begin, self._frames = self._frames, end
            yield wave[(begin - first) * hop : (end - first) * hop]

    def _render(self, frames: Any) -> Samples:
        with coqui.torch().inference_mode():
            return self._model.vocode(frames, self._line.row.voice)
