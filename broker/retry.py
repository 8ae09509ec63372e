"""What becomes of a job whose attempt was lost: tried again now, later, or answered.

Execution is at least once, answers are exactly one. An attempt is lost when its worker dies, falls silent,
wedges, or says itself that it could not (a retryable code). Deterministic failures never come here.

Retries have a budget. What brings down engines is often a batch of the same thing, and trying all of it again
at once would bring down the next ones: at most a share of what is under way may be second tries. Further ones
stand aside and wait for their turn; none is given up for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..common.errors import BusError, PoisonJob, WorkerLost
from ..common.wire import STREAM

if TYPE_CHECKING:
    from ..common.config import Broker as Settings
    from .tables import Job


MOST_ATTEMPTS: Final = 1000
"""Of one job: a worker that hands back whatever it is given is given it again, and attempts have 16 bits."""
KEPT_HISTORY: Final = 16
"""Attempts whose ends are remembered: what FAILED has room for."""


def verdict(job: Job, max_attempts: int) -> BusError | None:
    """None to try the job again; otherwise the error that answers it.

    A listener has heard what was forwarded: if that ends inside a segment, speaking again would repeat words
    and going on would skip some, so a streamed job fails cleanly there. A job nobody listens to yet is
    spoken again from its last whole segment.
    """
    if job.flags & STREAM and job.mid_segment:
        return WorkerLost(
            "the worker was lost inside a segment that had been heard in part; submit the rest again"
        )
    if job.losses >= max_attempts:
        return PoisonJob(
            f"the job brought down {job.losses} workers: {'; '.join(job.history[-max_attempts:])}"
        )
    if job.attempt >= MOST_ATTEMPTS:
        return WorkerLost(f"no worker keeps the job: {job.history[-1]}")
    return None


class RetryBudget:
    """`begun()` counts the attempts under way, `resume(job)` lets a job that waited go on."""

    def __init__(self, settings: Settings, begun: Callable[[], int], resume: Callable[[Job], None]) -> None:
        self.active: dict[Job, None] = {}
        "Jobs that are being tried again, from the requeue to the end of the attempt."
        self.waiting: OrderedDict[Job, None] = OrderedDict()
        "Where jobs stand aside until there is budget for them."
        self._ratio = settings.retry_ratio
        self._floor = settings.retry_floor
        self._begun = begun
        self._resume = resume

    def admits(self, job: Job) -> bool:
        """Take a job on, or say that it has to wait."""
        if self.waiting or not self._has_room():
            return False
        self.active[job] = None
        return True

    def left(self, job: Job) -> None:
        """A job's attempt is over, or the job is: whoever waits may go on. Most jobs were never retried."""
        if job in self.active:
            del self.active[job]
            self.let_go()

    def let_go(self) -> None:
        """Resume as many waiting jobs as there is budget for."""
        while self.waiting and self._has_room():
            job = next(iter(self.waiting))
            self.active[job] = None
            self._resume(job)

    def _has_room(self) -> bool:
        return len(self.active) < max(self._floor, int(self._ratio * self._begun()))
