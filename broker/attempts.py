"""Attempts: a job's way to a worker and back, and the fence around it.

A worker's open attempts stand in its `inflight` by job id and attempt number. What a worker says of anything
else is stale: it is told to stop, and changes nothing. A credit comes back only with an attempt's end; an
attempt nobody listens to any more keeps it until then, as None.

Jobs are handed out wherever something has changed. An interactive job that finds every place taken asks for
one that a batch job holds ahead of a free slot: the worker gives that back unless it has begun.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..common import wire
from ..common.errors import BusError, DeadlineExceeded
from .ledger import Ledger, Out, move
from .pools import Pools
from .results import Results
from .retry import KEPT_HISTORY, RetryBudget, verdict
from .states import JobState
from .tables import Job, Pool, Worker

if TYPE_CHECKING:
    from ..common.config import Broker as Settings
    from .durable import Durables
    from .membership import Membership

log = logging.getLogger(__name__)
SHORTEST_S: Final = 0.001
"""A job with less time left has none: JOB counts it in whole milliseconds."""
_JOB, _MAGIC, _pack = wire.JOB, wire.MAGIC, wire.ENVELOPE.pack
_ASSIGNED, _RUNNING = JobState.ASSIGNED, JobState.RUNNING


class Attempts:
    """`end(job, error)` answers a job with an error; `put_by(job)` is for a job of a broker that stops."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        pools: Pools,
        members: Membership,
        results: Results,
        durables: Durables,
        out: Out,
        end: Callable[[Job, BusError], None],
        put_by: Callable[[Job], None],
    ) -> None:
        self.draining = False
        self.budget = RetryBudget(settings, self.begun, self._bring_back)
        self._settings = settings
        self._ledger = ledger
        self._pools = pools
        self._members = members
        self._workers = members.by_peer
        self._results = results
        self._durables = durables
        self._out = out
        self._end = end
        self._put_by = put_by

    def begun(self) -> int:
        """How many jobs are with workers."""
        return len(self._ledger.jobs) - self._pools.waiting()

    # ---- out

    def flush(self, now: float) -> None:
        """Hand out waiting jobs wherever something changed since the last flush."""
        for pool in self._pools.take_touched():
            if pool.affinity.held:
                self._give_held(pool, now)
            self._give(pool, now)

    def _give(self, pool: Pool, now: float) -> None:
        queue, affinity, selector = pool.queue, pool.affinity, pool.selector
        while queue.ready:
            job = queue.peek(now)
            hold = False
            if affinity.matters and job.submit.voice:
                worker, hold = affinity.place(job, queue.size, selector, now)
            else:
                worker = selector.pick(queue.size, job.avoid)
            if hold:
                affinity.hold(job, now)
            elif worker is None:
                if queue.interactive.size:
                    self._recall(pool)
                return
            elif job.deadline - now >= SHORTEST_S or self._in_time(job, now):
                queue.take(job)
                self._assign(job, worker, now)

    def at_once(self, job: Job, now: float) -> bool:
        """Hand a new job out past an empty queue, where there are slots enough for all that may be waiting.

        The last one goes to no batch job before the whole burst was read: an interactive one may follow.
        """
        pool = job.pool
        selector = pool.selector
        spare = selector.free
        if spare < 2 and not (spare and job.submit.lane == "interactive"):
            return False
        if pool.affinity.matters or self.draining or job.deadline - now < SHORTEST_S:
            return False
        self._assign(job, selector.idle.peek(), now)
        return True

    def _give_held(self, pool: Pool, now: float) -> None:
        while (pair := pool.affinity.next_held()) is not None:
            job, worker = pair
            if self._in_time(job, now):
                pool.queue.remove(job)
                self._assign(job, worker, now)

    def _in_time(self, job: Job, now: float) -> bool:
        if job.deadline - now >= SHORTEST_S:
            return True
        self._end(job, DeadlineExceeded("the job's deadline passed while it waited"))
        return False

    def _assign(self, job: Job, worker: Worker, now: float) -> None:
        # Counted before it is sent: a job that kills its worker must not come back uncounted.
        move(job, _ASSIGNED)
        job.worker = worker
        job.progress_at = now
        job.next_chunk = 0
        inflight = worker.inflight
        left_ms = int((job.deadline - now) * 1000)
        while True:
            job.attempt += 1
            envelope = _pack(_MAGIC, _JOB, job.id, job.attempt, job.flags, job.segments_done, left_ms)
            key = envelope[4:22]
            if key not in inflight:
                break
            # Given up, submitted again, and counted from 1; this worker has yet to end the old attempt.
        inflight[key] = job
        worker.beat_at = now + worker.interval_s
        pool = worker.pool
        pool.selector.given(worker)
        if pool.affinity.matters:
            pool.affinity.given(job, worker, now)
        if len(inflight) > worker.slots and job.submit.lane == "batch":
            job.ahead = True
            worker.ahead = job
            if not job.recalled:
                pool.ahead[job] = None
        self._out.append((worker.peer, envelope, job.header, job.payload))

    def _recall(self, pool: Pool) -> None:
        """Ask for as many batch jobs that have not begun as interactive ones wait."""
        while pool.ahead and len(pool.recalls) < pool.queue.interactive.size:
            job = pool.ahead.popitem(last=False)[0]
            job.recalled = True
            pool.recalls[job] = None
            if job.worker is not None:
                envelope = wire.pack_envelope(wire.CANCEL, job.id, job.attempt, wire.UNBEGUN)
                self._out.append((job.worker.peer, envelope))

    def _bring_back(self, job: Job) -> None:
        """A retry that waited for its budget may be handed out."""
        job.pool.queue.bring_back(job)
        self._pools.touch(job.pool)

    # ---- what workers say

    def heard(self, peer: bytes, now: float) -> Worker | None:
        """The worker behind a connection, alive; an unknown one is asked to register."""
        worker = self._members.by_peer.get(peer)
        if worker is None:
            self._members.reregister(peer)
        else:
            worker.seen_at = now
        return worker

    def stray(self, peer: bytes, envelope: bytes, now: float) -> None:
        """A worker speaks of what nobody listens to: if that is no open attempt it is told to stop."""
        worker = self.heard(peer, now)
        if worker is not None and envelope[4:22] not in worker.inflight:
            self._ledger.totals["stale"] += 1
            attempt = int.from_bytes(envelope[20:22])
            self._out.append((peer, wire.pack_envelope(wire.CANCEL, envelope[4:20], attempt)))

    def close(
        self, peer: bytes, envelope: bytes, now: float, *, well: bool = False, worked: bool = True
    ) -> Job | None:
        """The same for a message that ends the attempt: its credit comes back. `worked`: an engine had it."""
        worker = self._workers.get(peer)
        if worker is None:
            self.heard(peer, now)
            return None
        worker.seen_at = now
        key = envelope[4:22]
        inflight = worker.inflight
        if key not in inflight:
            self._ledger.totals["stale"] += 1
            return None
        job = inflight.pop(key)
        if worked:
            worker.progress_at = now
        pool = worker.pool
        if worker.ahead is not None:
            # A slot has come free: it begins now, whether we have heard of that or not.
            pool.ahead.pop(worker.ahead, None)
            worker.ahead = None
        pool.selector.freed(worker)
        if pool.affinity.held:
            pool.affinity.freed(worker)
        if not pool.dirty and pool.queue.size:
            self._pools.touch(pool)
        if job is not None:
            worker.jobs_done += 1
            if well and job.begun_at:
                pool.affinity.served(now - job.begun_at)
            if job.ahead or job.cold or job.losses:
                self._over(job)
        return job

    def started(self, job: Job, now: float) -> None:
        """An attempt begins: nobody asks for it back."""
        move(job, _RUNNING)
        if job.ahead:
            self._settled(job)
        if job.silent:
            job.pool.affinity.started(job, now)

    def first_audio(self, job: Job, now: float) -> None:
        """The first audio of an attempt: its worker has learnt the voice."""
        if job.worker is not None and job.pool.affinity.first_audio(job, job.worker, now):
            self._pools.touch(job.pool)

    def _settled(self, job: Job) -> None:
        """A job that was sent ahead has begun or is over."""
        if job.ahead:
            job.ahead = False
            job.pool.ahead.pop(job, None)
            job.pool.recalls.pop(job, None)

    def _over(self, job: Job) -> None:
        """The newest attempt of a job is over, as far as the job is concerned."""
        self._settled(job)
        if job.cold and job.pool.affinity.ended(job):
            self._pools.touch(job.pool)
        if job.losses:
            self.budget.left(job)

    # ---- back

    def disown(self, job: Job) -> None:
        """Stop listening to a job's attempt, if it has one; the worker keeps the credit until it ended it."""
        worker = job.worker
        if worker is None:
            if job.losses:
                self.budget.left(job)
            return
        cancel = wire.pack_envelope(wire.CANCEL, job.id, job.attempt)
        if cancel[4:22] in worker.inflight:
            worker.inflight[cancel[4:22]] = None
            self._out.append((worker.peer, cancel))
        self._over(job)

    def abandon(self, job: Job, cause: str, *, counted: bool) -> None:
        """Take an open attempt from a worker that still lives, and try again."""
        worker = job.worker
        if worker is not None:
            self.disown(job)
            self.retry(job, worker, cause, counted=counted)

    def lost(self, worker: Worker, cause: str, counted: bool) -> None:
        """A worker is gone. Jobs it had not begun are not held against it, nor against them."""
        for job in [job for job in worker.inflight.values() if job is not None]:
            begun = job.state == JobState.RUNNING
            self._over(job)
            self.retry(job, worker, cause, counted=counted and begun)
        worker.inflight.clear()

    def retry(self, job: Job, worker: Worker, cause: str, *, counted: bool, returned: bool = False) -> None:
        """Let a job whose attempt is over wait for another, or answer it. `counted`: held against the job."""
        job.history = (
            *job.history[1 - KEPT_HISTORY :],
            f"attempt {job.attempt} on {worker.info.worker}: {cause}",
        )
        job.losses += counted
        job.worker = None
        if not job.recalled:
            job.avoid = worker
        error = verdict(job, self._settings.max_attempts)
        if error is not None:
            self._end(job, error)
            return
        if self.draining:
            self._put_by(job)
            return
        log.info("job=%s attempt=%d again: %s", job.id.hex(), job.attempt, cause)
        self._ledger.totals["returned" if returned else "retried"] += 1
        job.mid_segment = False
        self._results.rewind(job)
        if job.durable:
            self._durables.retried(job)
        move(job, JobState.QUEUED)
        if counted and not self.budget.admits(job):
            job.pool.queue.set_aside(job, self.budget.waiting)
        else:
            job.pool.queue.push_front(job)
        self._pools.touch(job.pool)

    # ---- time

    def tick(self, now: float) -> None:
        """Let go what has stood aside for its voice long enough."""
        for pool in self._pools.by_engine.values():
            while pool.affinity.held and (job := pool.affinity.next_due(now)) is not None:
                self._bring_back(job)

    def sweep(self, now: float) -> None:
        """Find wedged engines; look once more at what stands aside."""
        self._check_leases(now)
        self.budget.let_go()
        for pool in self._pools.by_engine.values():
            if pool.affinity.held and pool.affinity.sweep():
                self._pools.touch(pool)

    def _check_leases(self, now: float) -> None:
        """A worker may beat while its engine hangs: an attempt without progress is taken from it."""
        lease_s = self._settings.progress_lease_s
        for worker in self._members.by_peer.values():
            open_jobs = [job for job in worker.inflight.values() if job is not None]
            busy = sum(job.state == JobState.RUNNING for job in open_jobs) >= worker.slots
            for job in open_jobs:
                # An attempt that waits behind another is measured by the worker's progress with any,
                # and what holds it up is not its fault.
                begun = job.state == JobState.RUNNING
                since = job.progress_at if begun else max(job.progress_at, worker.progress_at)
                if now - since > lease_s:
                    cause = f"no progress for {lease_s:g} s"
                    self.abandon(job, cause, counted=begun or not busy)
                elif not begun and now - since > lease_s / 2 and job.asked != job.attempt:
                    # It may wait for an engine that died, or works for another broker: then it comes back.
                    job.asked = job.attempt
                    envelope = wire.pack_envelope(wire.CANCEL, job.id, job.attempt, wire.UNBEGUN)
                    self._out.append((worker.peer, envelope))
