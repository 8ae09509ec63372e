"""The choice of each row's next audio token, for all rows of a batch at once.

Every row has its own options and its own random numbers, drawn before it starts: what a row says does not
depend on its company, nor on the device, and a step asks the GPU for one small thing instead of one for
each row. The order (repetition penalty, temperature, top_k, top_p) is that of transformers, which coqui uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import coqui
from .options import Sampling


class Sampler:
    """Chooses tokens for rows that are sampled in these ways."""

    def __init__(self, ways: Sequence[Sampling], steps: int, tokens: int, start: int, device: Any) -> None:
        """`tokens` is how many there are, `start` the one that every row begins with."""
        torch = coqui.torch()
        self._torch = torch

        def column(values: list[float] | list[int]) -> Any:
            return torch.tensor(values, device=device)[:, None]

        self._temperature = column([way.temperature for way in ways])
        self._penalty = column([float(way.repetition_penalty) for way in ways])
        self._top_k = column([way.top_k or tokens for way in ways])
        self._top_p = column([float(way.top_p) for way in ways])
        self._sampled = column([int(way.do_sample) for way in ways])[:, 0].bool()
        self._any_sampled = any(way.do_sample for way in ways)
        draws = [torch.rand(steps, generator=torch.Generator().manual_seed(way.seed)) for way in ways]
        self._draws = torch.stack(draws).to(device)
        self._said = torch.zeros(len(ways), tokens, dtype=torch.bool, device=device)
        # Coqui puts token 1 in the place of the text and counts it, like the start, as said before.
        self._said[:, [1, start]] = True

    def choose(self, logits: Any, step: int) -> Any:
        """Return a token for each row, and remember that it was said."""
        torch = self._torch
        penalised = torch.where(logits < 0, logits * self._penalty, logits / self._penalty)
        scores = torch.where(self._said, penalised, logits)
        tokens = scores.argmax(dim=1)
        if self._any_sampled:
            tokens = torch.where(self._sampled, self._drawn(scores / self._temperature, step), tokens)
        self._said.scatter_(1, tokens[:, None], True)
        return tokens

    def keep(self, places: Any) -> None:
        """Go on with these rows alone."""
        for name in ("_temperature", "_penalty", "_top_k", "_top_p", "_sampled", "_draws", "_said"):
            setattr(self, name, getattr(self, name)[places])

    def _drawn(self, scores: Any, step: int) -> Any:
        torch = self._torch
        ordered, order = scores.sort(dim=1, descending=True)
        rank = torch.arange(ordered.shape[1], device=ordered.device)
        ordered = ordered.masked_fill(rank >= self._top_k, -torch.inf)
        chances = ordered.softmax(dim=1)
        before = chances.cumsum(dim=1) - chances
        # The first always stays, whatever rounding makes of a sum of nothing.
        chances = chances.masked_fill((before >= self._top_p) & (rank > 0), 0.0)
        sums = chances.cumsum(dim=1)
        target = self._draws[:, step, None] * sums[:, -1:]
        place = (sums <= target).sum(dim=1, keepdim=True).clamp(max=ordered.shape[1] - 1)
        return order.gather(1, place)[:, 0]
