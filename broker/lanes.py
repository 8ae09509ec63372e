"""The queue of one engine: interactive jobs before batch jobs, and neither starved.

Interactive work goes first, but each `PATIENCE` interactive picks let one waiting batch job pass, so a steady
stream of short requests cannot hold a batch for ever. A job that is handed back goes to the head of its
lane: it has waited once already. Removal is lazy: a job that has left the QUEUED state is skipped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from .states import JobState

if TYPE_CHECKING:
    from .tables import Job

PATIENCE: Final = 8
_COMPACT_ABOVE: Final = 64


class Lanes:
    """Two FIFO lanes of `Job`s. `len()` counts live jobs only."""

    __slots__ = ("_batch", "_interactive", "_live", "_passed")

    def __init__(self) -> None:
        self._interactive: deque[Job] = deque()
        self._batch: deque[Job] = deque()
        self._passed = 0
        self._live = 0

    def __len__(self) -> int:
        return self._live

    def push(self, job: Job) -> None:
        """Append a QUEUED job to its lane."""
        self._lane(job).append(job)
        self._live += 1

    def push_front(self, job: Job) -> None:
        """Put a job that was handed back at the head of its lane."""
        self._lane(job).appendleft(job)
        self._live += 1

    def removed(self, job: Job) -> None:
        """Tell that a job has left the QUEUED state without being popped."""
        self._live -= 1
        lane = self._lane(job)
        if len(lane) > 2 * self._live + _COMPACT_ABOVE:
            alive = [job for job in lane if job.state == JobState.QUEUED]
            lane.clear()
            lane.extend(alive)

    def peek(self) -> Job:
        """The next job to dispatch; only called when `len()` is not 0."""
        return self._choose()[0]

    def pop(self) -> Job:
        """Take the next job; only called when `len()` is not 0, with the job still QUEUED."""
        lane = self._choose()
        self._passed = self._passed + 1 if lane is self._interactive and self._batch else 0
        self._live -= 1
        return lane.popleft()

    def _lane(self, job: Job) -> deque[Job]:
        return self._interactive if job.submit.lane == "interactive" else self._batch

    def _choose(self) -> deque[Job]:
        """The lane whose head goes next, with the dead at the heads of both removed."""
        for lane in (self._interactive, self._batch):
            while lane and lane[0].state != JobState.QUEUED:
                lane.popleft()
        if not self._interactive or (self._batch and self._passed >= PATIENCE):
            return self._batch
        return self._interactive

    def __iter__(self) -> Iterator[Job]:
        for lane in (self._interactive, self._batch):
            yield from (job for job in lane if job.state == JobState.QUEUED)
