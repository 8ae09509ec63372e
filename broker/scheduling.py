"""Which worker gets the next job: four strategies over two tiers.

Workers with an idle slot stand in the first tier, workers that can take one job ahead (credit is slots + 1,
so an engine never waits for the wire) in the second; the first is emptied before the second is asked.
Every operation is O(1), `round_robin` O(log n): the broker never scans its workers to place a job. The
state is exact because one broker owns it, so there is no need to sample stale views.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from .states import WorkerState

if TYPE_CHECKING:
    from .tables import Worker

_READY: Final = int(WorkerState.READY)
RandBelow = Callable[[int], int]
"""`randrange`: a uniform integer in [0, n)."""


class Tier(Protocol):
    """An ordered set of workers with room, in the order a strategy prefers."""

    def add(self, worker: Worker) -> None:
        """Let a worker in, behind those that stand already."""

    def discard(self, worker: Worker) -> None:
        """Take a worker out."""

    def again(self, worker: Worker, /) -> None:
        """Note that a member was given another job and stays: behind those that stand already."""

    def eased(self, worker: Worker) -> None:
        """Note that a member's load has shrunk. Only `least_load` is told."""

    def peek(self) -> Worker:
        """The preferred worker; only called when `len()` is not 0."""
        ...

    def __len__(self) -> int: ...


class Lru(OrderedDict["Worker", None]):
    """Least recently used first: the worker that has waited longest since its last job. The default."""

    def add(self, worker: Worker) -> None:
        """Stand at the end."""
        self[worker] = None

    def discard(self, worker: Worker) -> None:
        """Leave the line."""
        self.pop(worker, None)

    again = OrderedDict["Worker", None].move_to_end
    "Go to the end."

    def eased(self, worker: Worker) -> None:
        """Keep the place: it was earned by waiting."""

    def peek(self) -> Worker:
        """The head of the line."""
        return next(iter(self))


class RoundRobin:
    """In turn: the worker whose last job was given out first, however long that job took."""

    def __init__(self) -> None:
        self._members: set[Worker] = set()
        self._heap: list[tuple[int, int, Worker]] = []

    def __len__(self) -> int:
        return len(self._members)

    def add(self, worker: Worker) -> None:
        """Stand where the turn number says."""
        self._members.add(worker)
        heapq.heappush(self._heap, (worker.turn, id(worker), worker))

    def discard(self, worker: Worker) -> None:
        """Leave; the heap entry goes when it comes up."""
        self._members.discard(worker)

    def again(self, worker: Worker) -> None:
        """Stand where the new turn number says."""
        heapq.heappush(self._heap, (worker.turn, id(worker), worker))

    def eased(self, worker: Worker) -> None:
        """Keep the turn."""

    def peek(self) -> Worker:
        """The lowest turn number among the members."""
        while True:
            turn, _, worker = self._heap[0]
            if worker in self._members and worker.turn == turn:
                return worker
            heapq.heappop(self._heap)


class LeastLoad:
    """Fewest open jobs for its slots; longest waiting first among equals."""

    def __init__(self) -> None:
        self._buckets: dict[float, OrderedDict[Worker, None]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, worker: Worker) -> None:
        """Stand in the bucket of the present load."""
        load = len(worker.inflight) / worker.slots
        bucket = self._buckets.get(load)
        if bucket is None:
            bucket = self._buckets[load] = OrderedDict()
        bucket[worker] = None
        worker.bucket = load
        self._size += 1

    def discard(self, worker: Worker) -> None:
        """Leave the bucket; an empty bucket goes, so their number stays that of the distinct loads."""
        bucket = self._buckets.get(worker.bucket)
        if bucket is not None and worker in bucket:
            del bucket[worker]
            self._size -= 1
            if not bucket:
                del self._buckets[worker.bucket]

    def again(self, worker: Worker) -> None:
        """Move to the bucket of the present load."""
        self.discard(worker)
        self.add(worker)

    eased = again

    def peek(self) -> Worker:
        """The head of the lowest bucket. There are as many buckets as distinct loads: a handful."""
        return next(iter(self._buckets[min(self._buckets)]))


class Random:
    """Any worker with room, uniformly."""

    def __init__(self, rand_below: RandBelow) -> None:
        self._rand_below = rand_below
        self._members: list[Worker] = []
        self._places: dict[Worker, int] = {}

    def __len__(self) -> int:
        return len(self._members)

    def add(self, worker: Worker) -> None:
        """Stand anywhere."""
        self._places[worker] = len(self._members)
        self._members.append(worker)

    def discard(self, worker: Worker) -> None:
        """Fill the gap with the last member."""
        place = self._places.pop(worker, None)
        if place is None:
            return
        last = self._members.pop()
        if last is not worker:
            self._members[place] = last
            self._places[last] = place

    def again(self, worker: Worker) -> None:
        """Chance knows no turns."""

    def eased(self, worker: Worker) -> None:
        """Nor any load."""

    def peek(self) -> Worker:
        """Draw one."""
        return self._members[self._rand_below(len(self._members))]


STRATEGIES: dict[str, Callable[[RandBelow], Tier]] = {
    "lru": lambda _: Lru(),
    "round_robin": lambda _: RoundRobin(),
    "least_load": lambda _: LeastLoad(),
    "random": Random,
}


class Selector:
    """The workers of one engine that have room, in two tiers, and the pick among them."""

    __slots__ = ("_ahead", "_heeds_load", "_turns", "free", "idle", "slots")

    def __init__(self, strategy: str, rand_below: RandBelow) -> None:
        self.idle = STRATEGIES[strategy](rand_below)
        self._ahead = STRATEGIES[strategy](rand_below)
        self._heeds_load = strategy == "least_load"
        self._turns = 0
        self.slots = 0
        "Slots of all workers that take jobs."
        self.free = 0
        "Those of them that are idle."

    def join(self, worker: Worker) -> None:
        """Take in a worker that has just registered."""
        self.slots += worker.slots
        worker.most_slots = max(worker.most_slots, worker.slots)
        self._turns += 1
        worker.turn = self._turns
        load = len(worker.inflight)
        tier = self.idle if load < worker.slots else self._ahead if load == worker.slots else None
        worker.tier = tier
        if tier is not None:
            tier.add(worker)
        self.free += max(0, worker.slots - load)

    def leave(self, worker: Worker) -> None:
        """Give a worker no more jobs."""
        self.slots -= worker.slots
        self.free -= max(0, worker.slots - len(worker.inflight))
        if worker.tier is not None:
            worker.tier.discard(worker)
            worker.tier = None

    def pick(self, waiting: int, avoid: Worker | None = None) -> Worker | None:
        """Choose a worker for the next of `waiting` jobs, if possible another than `avoid`.

        A job is only sent ahead of a free slot while more jobs wait than there are slots: the last jobs of a
        batch go to whoever is free first instead of queueing behind a long one.
        """
        tier = self.idle
        if not tier:
            tier = self._ahead
            if not tier or waiting <= self.slots:
                return None
        worker = tier.peek()
        if worker is avoid and len(tier) > 1:
            tier.discard(worker)
            other = tier.peek()
            tier.add(worker)
            return other
        return worker

    def given(self, worker: Worker) -> None:
        """Note that a worker was just given a job (its `inflight` has grown)."""
        self._turns += 1
        worker.turn = self._turns
        load, old = len(worker.inflight), worker.tier
        if load <= worker.slots:
            self.free -= 1
            tier = self.idle if load < worker.slots else self._ahead
            if tier is old:
                tier.again(worker)
                return
        else:
            tier = None
        if old is not None:
            old.discard(worker)
        worker.tier = tier
        if tier is not None:
            tier.add(worker)

    def freed(self, worker: Worker) -> None:
        """Note that a worker has ended an attempt (its `inflight` has shrunk)."""
        if worker.state != _READY:
            return
        load = len(worker.inflight)
        if load < worker.slots:
            self.free += 1
            tier = self.idle
        else:
            tier = self._ahead if load == worker.slots else None
        old = worker.tier
        if tier is old:
            if tier is not None and self._heeds_load:
                tier.eased(worker)
            return
        if old is not None:
            old.discard(worker)
        worker.tier = tier
        if tier is not None:
            tier.add(worker)
