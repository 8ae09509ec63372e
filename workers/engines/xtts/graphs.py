"""Decoding steps recorded on a GPU and played back.

A step is some four hundred small kernels, and Python takes longer to ask for them than the GPU to run them.
CUDA can record what is asked and play it back at once, as long as the same shapes lie in the same memory:
so there is one cache, a step is recorded for each power of two of rows and each 256 positions of length as
they are first needed, and where in the cache it writes is a number on the GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from ....common.errors import EngineError
from .. import coqui
from .transformer import Cache, Transformer

PIECE: Final = 256
"""Positions; attention looks at all of the length that was recorded."""
PREPARED: Final = 512
"""Positions that are recorded before the first job: a text of a hundred tokens, and 17 s of speech."""
ROOM: Final = 768
"""Positions that the cache has at first: such a text, and as much speech as is ever made of it."""
TRIALS: Final = 2
"""Steps before the one that is recorded: libraries set themselves up in the first."""

Step = Callable[[Any, Any, Any, Any, Any], tuple[Any, Any]]
"""Tokens, their position, layers, how they are written, mask: to latents and logits."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A graph, and where it leaves what it computed."""

    graph: Any
    latents: Any
    logits: Any


class Graphs:
    """Recordings of a step, and the one cache that they work on.

    The step is an argument of each call: held here, it would keep its model, gigabytes, in a circle.
    """

    def __init__(self) -> None:
        self._torch = coqui.torch()
        self._recordings: dict[tuple[int, int], Recording] = {}
        self._cache: Cache | None = None
        self._rows = 0
        self._pool: Any = None
        self._tokens: Any = None
        self._position: Any = None
        self._place: Any = None

    def cache(self, transformer: Transformer, rows: int, length: int) -> Cache:
        """The cache, with room for a batch; whoever had it before has it no more."""
        rows, length = _bucket(rows), _pieces(length)
        cache = self._cache
        if cache is None or rows > self._rows or length > cache.length:
            rows = max(rows, self._rows)
            length = max(length, cache.length if cache is not None else 0)
            del cache
            self.clear()
            torch, device = self._torch, transformer.device
            self._tokens = torch.zeros(rows, dtype=torch.long, device=device)
            self._position = torch.zeros(1, dtype=torch.long, device=device)
            self._place = torch.zeros(1, dtype=torch.long, device=device)
            self._rows, self._cache = rows, Cache(transformer, rows, length)
            cache = self._cache
        cache.wipe()
        return cache

    def prepare(self, step: Step, transformer: Transformer, rows: int) -> None:
        """Record what batches of up to `rows` will need soon. Each takes a fifth of a second."""
        with self._torch.inference_mode(), self._torch.cuda.device(transformer.device):
            cache = self.cache(transformer, rows, ROOM)
            cache.begin([1] * rows)
            for halvings in range(_bucket(rows).bit_length()):
                for length in range(PIECE, PREPARED + 1, PIECE):
                    self._recording(step, cache, _bucket(rows) >> halvings, length)

    def step(self, step: Step, tokens: Any, position: int, cache: Cache) -> tuple[Any, Any]:
        """Play a step for the rows of the cache, all of it on the GPU.

        Raises `EngineError` for a cache that is another's now.
        """
        if cache is not self._cache:
            raise EngineError("xtts: a batch went on after another had begun")
        self._tokens[: cache.rows] = tokens
        self._position.fill_(position)
        self._place.fill_(cache.filled)
        with self._torch.cuda.device(tokens.device):
            recording = self._recording(step, cache, _bucket(cache.rows), _pieces(cache.filled + 1))
            recording.graph.replay()
        cache.filled += 1
        return recording.latents[: cache.rows].clone(), recording.logits[: cache.rows]

    def clear(self) -> None:
        """Let go of all memory."""
        self._recordings.clear()
        self._cache = self._pool = self._tokens = self._position = self._place = None
        self._rows = 0

    def _recording(self, step: Step, cache: Cache, rows: int, length: int) -> Recording:
        made = self._recordings.get((rows, length))
        if made is None:
            made = self._recordings[rows, length] = self._record(step, cache, rows, length)
        return made

    def _record(self, step: Step, cache: Cache, rows: int, length: int) -> Recording:
        torch = self._torch
        layers = cache.layers(rows, length)
        seen = cache.open[:rows, :length]
        place = self._place

        def put(room: Any, new: Any) -> None:
            room.index_copy_(2, place, new)

        def run() -> tuple[Any, Any]:
            seen.index_fill_(1, place, True)
            return step(self._tokens[:rows], self._position, layers, put, seen[:, None, None])

        aside = _aside(cache.open.device)
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(TRIALS):  # a trial writes what the step will write
                run()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=aside, capture_error_mode="thread_local"):
            latents, logits = run()
        self._pool = graph.pool()
        return Recording(graph, latents, logits)


@cache
def _aside(device: Any) -> Any:
    """The stream that is recorded. One for good: cuBLAS keeps 32 MiB for each that it was ever called on."""
    return coqui.torch().cuda.Stream(device)


def _bucket(rows: int) -> int:
    """The power of two that so many rows fit into."""
    return 1 << (rows - 1).bit_length()


def _pieces(length: int) -> int:
    return -(-length // PIECE) * PIECE
