"""Virtual time: a heap of what happens next, and nothing else that moves the clock.

Whatever a history does is a call in this heap. Equal times are ordered by when they were planned, so a
history depends on its seed alone: never on threads, the machine's load or the order of a set.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

BEGIN_S: Final = 1000.0
MOST_STEPS: Final = 1_000_000
"""A history of ten minutes of virtual time takes some ten thousand: more is a loop that spins."""


class SpinError(AssertionError):
    """Something asks to be called again at once, for ever."""


class Schedule:
    """`now` is in seconds on the virtual monotonic clock."""

    __slots__ = ("_heap", "_order", "now", "steps")

    def __init__(self) -> None:
        self.now = BEGIN_S
        self.steps = 0
        self._heap: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._order = 0

    def at(self, when: float, call: Callable[..., object], *arguments: Any) -> None:
        """Plan a call for a time, now at the earliest."""
        self._order += 1
        heappush(self._heap, (when if when > self.now else self.now, self._order, call, arguments))

    def after(self, seconds: float, call: Callable[..., object], *arguments: Any) -> None:
        """Plan a call for later."""
        self.at(self.now + seconds, call, *arguments)

    def run(self, until: float) -> None:
        """Let everything happen that is planned up to a time."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            when, _, call, arguments = heappop(heap)
            self.now = when
            self.steps += 1
            call(*arguments)
        self.now = until
        if self.steps > MOST_STEPS:
            raise SpinError(f"{self.steps:,} steps and no end")
