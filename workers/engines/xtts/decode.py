"""Several texts turned into audio tokens together, one step at a time.

The rows' prefixes differ in length, so they are padded on the left and masked. A row that has ended, or that
nobody wants any more, leaves at once and takes its part of the cache along: the others go on faster. Between
two steps the caller may do whatever it likes, such as stream what is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...engine import Row
from .. import coqui
from .model import Model, Voice
from .options import Sampling
from .sampler import Sampler


@dataclass(slots=True, eq=False)
class Line:
    """One row on its way."""

    place: int
    row: Row[Voice]
    text: list[int]
    "Text tokens."
    way: Sampling
    most: int
    "Audio tokens after which it is cut off."
    tokens: list[int] = field(default_factory=list[int])
    latents: list[Any] = field(default_factory=list[Any])
    "Of each step, the last one's included: it is what the token that ends the row is read from."
    ended: bool = False


class Batch:
    """Rows that are decoded together; `lines` are those that are left."""

    def __init__(self, model: Model) -> None:
        self._torch = coqui.torch()
        self._model = model
        self.lines: list[Line] = []
        self.steps = 0
        self._sampler: Any = None
        self._cache: Any = None
        self._heard: Any = None
        self._tokens: Any = None

    def begin(self, lines: Sequence[Line]) -> None:
        """Take these lines in; there is at least one."""
        torch, model = self._torch, self._model
        self.lines = list(lines)
        self._sampler = Sampler(
            [line.way for line in lines],
            max(line.most for line in lines),
            model.tokens,
            model.start,
            model.device,
        )
        prefixes = [model.prefix(line.text, line.row.voice) for line in lines]
        lengths = [int(prefix.shape[1]) for prefix in prefixes]
        longest = max(lengths)
        pad = torch.nn.functional.pad
        with torch.inference_mode():
            self._cache = model.cache(len(lines), longest + max(line.most for line in lines))
            self._cache.begin([length + 1 for length in lengths])  # with the first audio token
            self._heard = torch.cat(
                [
                    pad(prefix, (0, 0, longest - length, 0))
                    for prefix, length in zip(prefixes, lengths, strict=True)
                ]
            )
            self._tokens = torch.full((len(lines),), model.start, device=model.device)

    def step(self) -> None:
        """Give every line one more token."""
        model = self._model
        with self._torch.inference_mode():
            if self._heard is not None:
                latents, logits = model.begin(self._heard, self._tokens, self._cache)
                self._heard = None
            else:
                latents, logits = model.step(self._tokens, self.steps, self._cache)
            self._tokens = self._sampler.choose(logits, self.steps)
            chosen = self._tokens.tolist()
        self.steps += 1
        for line, latent, token in zip(self.lines, latents, chosen, strict=True):
            line.latents.append(latent)
            line.tokens.append(token)
            line.ended = token == model.stop or len(line.tokens) >= line.most

    def keep(self, lines: Sequence[Line]) -> None:
        """Go on with these lines alone."""
        if len(lines) == len(self.lines):
            return
        places = [place for place, line in enumerate(self.lines) if line in lines]
        self.lines = [self.lines[place] for place in places]
        if not self.lines:
            self.clear()
            return
        with self._torch.inference_mode():
            chosen = self._torch.tensor(places, device=self._model.device)
            self._sampler.keep(chosen)
            self._cache.keep(places)
            self._tokens = self._tokens[chosen]

    def clear(self) -> None:
        """Let go of the memory, even where an exception's traceback still holds the batch."""
        self.lines = []
        self._sampler = self._cache = self._heard = self._tokens = None
