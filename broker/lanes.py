"""The queue of one engine: interactive jobs before batch jobs, neither starved, and tenants served fairly.

Interactive work goes first, but after `PATIENCE` interactive picks one waiting batch job passes; each
`ageing_s` that the batch lane's next job has waited halves that number, down to taking turns. So a stream of
short requests can slow a batch but never stop it, and a batch never holds an interactive job for longer than
one of its jobs. Within a lane tenants share by deficit round robin.

A job that is handed back goes to the head of its flow: it has waited once already. A job can also stand
aside, in the queue but in nobody's way, while it waits for something of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from .fairness import FairQueue

if TYPE_CHECKING:
    from .tables import Job

PATIENCE: Final = 8
_HALVINGS: Final = PATIENCE.bit_length() - 1


class Lanes:
    """All QUEUED jobs of one engine."""

    __slots__ = ("_ageing_s", "_aside", "_passed", "batch", "interactive", "ready", "size")

    def __init__(self, ageing_s: float) -> None:
        self.interactive = FairQueue()
        self.batch = FairQueue()
        self.ready = 0
        "How many jobs could be given out now."
        self.size = 0
        "How many there are, with those that stand aside."
        self._aside: OrderedDict[Job, None] = OrderedDict()
        self._ageing_s = ageing_s
        self._passed = 0
        "Interactive picks since the last batch pick, while a batch job waited."

    def push(self, job: Job) -> None:
        """Append a QUEUED job to its lane."""
        (self.interactive if job.submit.lane == "interactive" else self.batch).push(job)
        self.ready += 1
        self.size += 1

    def push_front(self, job: Job) -> None:
        """Put a job that was handed back at the head of its tenant's flow."""
        self._lane(job).push_front(job)
        self.ready += 1
        self.size += 1

    def peek(self, now: float) -> Job:
        """The next job to give out; only called when `ready` is not 0."""
        interactive, batch = self.interactive, self.batch
        if not batch.size:
            return interactive.peek()
        job = batch.peek()
        if not interactive.size:
            return job
        waited_s = now - job.entered_at
        patience = PATIENCE >> min(_HALVINGS, max(0, int(waited_s / self._ageing_s)))
        return job if self._passed >= patience else interactive.peek()

    def take(self, job: Job) -> None:
        """Take the job that `peek` named, still QUEUED."""
        self.ready -= 1
        self.size -= 1
        if job.submit.lane == "interactive":
            self.interactive.take(job)
            self._passed = self._passed + 1 if self.batch.size else 0
        else:
            self.batch.take(job)
            self._passed = 0

    def set_aside(self, job: Job, place: OrderedDict[Job, None]) -> None:
        """Have a job that `peek` named, or one in no lane yet, wait at `place` until it is brought back."""
        if job.flow is not None:
            self._lane(job).take(job)
            self.ready -= 1
        else:
            self.size += 1
        self._aside[job] = place[job] = None
        job.aside = place

    def bring_back(self, job: Job) -> None:
        """Let a job that stands aside be the next of its flow."""
        self._leave_aside(job)
        self._lane(job).push_front(job)
        self.ready += 1

    def remove(self, job: Job) -> None:
        """Take out a job, wherever it is: it has ended, or goes to a worker from aside."""
        self.size -= 1
        if job.aside is not None:
            self._leave_aside(job)
        else:
            self._lane(job).discard(job)
            self.ready -= 1

    def _leave_aside(self, job: Job) -> None:
        if job.aside is not None:
            del job.aside[job]
            job.aside = None
            del self._aside[job]

    def _lane(self, job: Job) -> FairQueue:
        return self.interactive if job.submit.lane == "interactive" else self.batch

    def __iter__(self) -> Iterator[Job]:
        yield from self.interactive
        yield from self.batch
        yield from self._aside
