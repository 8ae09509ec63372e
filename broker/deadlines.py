"""Deadlines of up to 100,000 jobs at a cost that does not show: a wheel of buckets.

A heap would keep the entry of every finished job until its deadline passes: minutes of traffic. Here a job is
a member of its bucket, gone in O(1) when it ends, and the heap holds bucket numbers only. Buckets keep the
order of entry: the same messages make the same broker, whatever a set's order would be.
"""

from __future__ import annotations

import heapq
from typing import Final

GRANULARITY_S: Final = 0.1
"""How late an expiry may be noticed. Speech takes seconds; finer buckets would only cost more."""


class DeadlineWheel:
    """Job ids by deadline (monotonic seconds), in buckets of `GRANULARITY_S`."""

    __slots__ = ("_buckets", "_order")

    def __init__(self) -> None:
        self._buckets: dict[int, dict[bytes, None]] = {}
        self._order: list[int] = []

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def add(self, job: bytes, deadline: float) -> dict[bytes, None]:
        """Watch a job; return the bucket it is in until it is removed from there: it has ended."""
        key = int(deadline / GRANULARITY_S) + 1
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = {}
            heapq.heappush(self._order, key)
        bucket[job] = None
        return bucket

    def expired(self, now: float) -> list[bytes]:
        """Remove and return the jobs whose deadline has passed."""
        due: list[bytes] = []
        while self._order and self._order[0] * GRANULARITY_S <= now:
            due += self._buckets.pop(heapq.heappop(self._order))
        return due

    def next_deadline(self) -> float | None:
        """When `expired` can next return something; empty buckets on the way are dropped."""
        while self._order:
            if self._buckets[self._order[0]]:
                return self._order[0] * GRANULARITY_S
            del self._buckets[heapq.heappop(self._order)]
        return None
