"""The jobs a worker holds: taken in, given to engines with room, stopped, handed back, answered.

At most one more of each broker than engines can take at once, so plain walks over all are cheap enough.
"""

from __future__ import annotations

from collections import deque
from math import inf

from ..common import wire
from ..common.errors import BusError, Cancelled, DeadlineExceeded, ProtocolError
from ..common.messages import encode, failed
from ..common.wire import NO_JOB, pack_envelope
from .actions import Actions, Frames, ToChild
from .crew import Crew
from .jobs import Job, Reason
from .links import Link
from .registrations import Registrations
from .states import JobState, LinkState, Referee


class Desk:
    """All attempts that are here, and the queue of those that wait."""

    def __init__(self, links: Registrations, crew: Crew, referee: Referee) -> None:
        self.jobs: dict[bytes, Job] = {}
        "By envelope[4:22]: job id and attempt."
        self.queue: deque[Job] = deque()
        self._links = links
        self._crew = crew
        self._referee = referee

    @property
    def is_patient(self) -> bool:
        """Whether all it has are batch jobs."""
        return bool(self.jobs) and all(job.flags & wire.PATIENT for job in self.jobs.values())

    def of(self, link: Link) -> list[Job]:
        """The jobs that came over a link."""
        return [job for job in self.jobs.values() if job.link == link.index]

    def _held(self, link: Link) -> int:
        """The credits a broker knows to be taken: what was abandoned it has given to others."""
        return sum(job.state is not JobState.ABANDONED for job in self.of(link))

    # Coming in.

    def take(
        self,
        link: Link,
        frames: Frames,
        flags: int,
        first_segment: int,
        deadline: float,
        now: float,
        out: Actions,
    ) -> None:
        """Queue a JOB or hand it back. Raises `ProtocolError` for one without an id, or here already."""
        key: bytes = frames[0][4:22]
        known = self.jobs.get(key)
        if known is not None and known.link == link.index and known.state is not JobState.ABANDONED:
            raise ProtocolError("this attempt is here already")
        if key[:16] == NO_JOB:
            raise ProtocolError("a JOB needs a job id")
        job = Job(
            key,
            link.index,
            flags=flags,
            first_segment=first_segment,
            deadline=deadline,
            header=frames[1],
            text=frames[2],
            referee=self._referee,
        )
        # A client that failed over asks another broker under the same id; one that was started again gives
        # its jobs out anew; each counts attempts from 1. What an engine says must belong to one of them.
        if known is not None or link.state is LinkState.DRAINING or self._held(link) > link.most_slots:
            self._links.send(link, [pack_envelope(wire.RETURN, job.job, job.attempt)], out)
            return
        self.jobs[key] = job
        self.queue.append(job)
        self.dispatch(now, out)

    def dispatch(self, now: float, out: Actions) -> None:
        """Give waiting jobs to engines, oldest first; a job whose broker is away waits for it.

        One that was tried before gets an engine to itself. Those behind it wait with it: passing by, they
        could keep it waiting for ever.
        """
        while self.queue:
            job = self._next(now, out)
            slot = None if job is None else self._crew.place_for(job)
            if job is None or slot is None:
                break
            self.queue.remove(job)
            self._crew.assign(slot, job)
            job.move(JobState.ASSIGNED)
            left_ms = min(int((job.deadline - now) * 1000) + 1, wire.MAX_BUDGET_MS)
            envelope = pack_envelope(wire.JOB, job.job, job.attempt, job.flags, job.first_segment, left_ms)
            out.append(ToChild(slot.index, [envelope, job.header, job.text]))
        if self.queue:
            self._crew.wake(sum(map(self._is_wanted, self.queue)), out)

    def _next(self, now: float, out: Actions) -> Job | None:
        for job in list(self.queue):
            if job.deadline <= now:
                self.interrupt(job, Reason.DEADLINE, now, out)
            elif self._is_wanted(job):
                return job
        return None

    def _is_wanted(self, job: Job) -> bool:
        return self._links[job.link].state is LinkState.REGISTERED

    # Stopping.

    def cancel(self, link: Link, key: bytes, flags: int, now: float, out: Actions) -> None:
        """Stop a job at its broker's wish. Unknown ones have ended, and that is what was wished.

        With UNBEGUN the broker only wants it back: one that waits is returned, any other goes on.
        """
        job = self.jobs.get(key)
        if job is None or job.link != link.index:
            return
        if flags & wire.UNBEGUN:
            if job.state is JobState.QUEUED:
                self.end(job)
                self._links.send(link, [pack_envelope(wire.RETURN, job.job, job.attempt)], out)
        else:
            self.interrupt(job, Reason.CANCELLED, now, out)

    def interrupt(self, job: Job, reason: Reason, now: float, out: Actions) -> None:
        """Stop a job: one that waits ends here, one that runs is asked to, once."""
        if job.state is JobState.QUEUED:
            job.reason = reason
            self.end(job)
            self.answer(job, interruption(job), out)
        elif job.state in (JobState.ASSIGNED, JobState.SPEAKING):
            job.reason = reason
            job.move(JobState.CANCELLING)
            self._crew.interrupt(job, now, out)

    def abandon(self, link: Link, now: float, out: Actions) -> None:
        """Drop what came over this link, stopping what has begun."""
        for job in self.of(link):
            if job.state is JobState.ABANDONED:
                continue
            if job.state is JobState.QUEUED:
                self.end(job)
            else:
                told = job.state is JobState.CANCELLING
                job.move(JobState.ABANDONED)
                if not told:
                    self._crew.interrupt(job, now, out)

    def return_queued(self, link: Link, out: Actions) -> None:
        """Hand back what waits and came over this link."""
        for job in self.of(link):
            if job.state is JobState.QUEUED:
                self.end(job)
                self._links.send(link, [pack_envelope(wire.RETURN, job.job, job.attempt)], out)

    # Ending.

    def end(self, job: Job) -> None:
        """Forget a job. Whoever ends it answers."""
        if job.state is JobState.QUEUED:
            self.queue.remove(job)
        job.move(JobState.ENDED)
        del self.jobs[job.key]
        if job.slot is not None:
            self._crew[job.slot].jobs.pop(job.key, None)

    def answer(self, job: Job, error: BusError, out: Actions) -> None:
        """Tell the job's broker how it failed."""
        envelope = pack_envelope(wire.FAILED, job.job, job.attempt)
        self._links.send(self._links[job.link], [envelope, encode(failed(error))], out)

    # Time.

    def tick(self, now: float, out: Actions) -> None:
        """Stop what has run out of time."""
        for job in list(self.jobs.values()):
            if job.may_expire and job.deadline <= now:
                self.interrupt(job, Reason.DEADLINE, now, out)

    def next_deadline(self) -> float:
        """When `tick` has something to do."""
        return min((job.deadline for job in self.jobs.values() if job.may_expire), default=inf)


def interruption(job: Job) -> BusError:
    """The error of a job that was told to stop."""
    if job.reason is Reason.DEADLINE:
        return DeadlineExceeded("the job's deadline passed before it was spoken: give it a longer one")
    return Cancelled("the job was cancelled")
