"""The broker without the world: what every message does to the tables, and what is sent because of it.

Sans-IO: no socket, clock, thread or randomness is imported. The loop calls one method a message, with the
time; messages to send are appended to `to_clients` and `to_workers` as tuples of frames behind the routing
id, which the loop flushes as a burst. That is also how a simulator runs thousands of failures a second.

A worker's open attempts stand in its `inflight` by job id and attempt, so whatever an older attempt sends
finds nothing: that is the fence. A credit comes back only with the attempt's end. Jobs are opened and closed
by the ledger alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ..common import wire
from ..common.errors import (
    BadRequest,
    BusError,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    Overloaded,
    ProtocolError,
)
from ..common.messages import Accepted, Failed, Submit, decode, encode
from .invariants import check_invariants
from .ledger import Ledger, Out, move
from .membership import Membership
from .pools import RETRY_AFTER_S, Pools
from .retry import verdict
from .states import JobState
from .tables import Client, Job, Payload, Worker

if TYPE_CHECKING:
    from ..common.config import Broker as Settings

log = logging.getLogger(__name__)


def _stopping() -> Overloaded:
    return Overloaded("this broker stops; try another, or again later", retry_after_s=RETRY_AFTER_S)


class BrokerCore:
    """All state of one broker. `expected` names engines that may be waited for before a worker has come."""

    def __init__(
        self, settings: Settings, rand_below: Callable[[int], int], now: float, expected: Iterable[str] = ()
    ) -> None:
        self.settings = settings
        self.started_at = now
        self.ledger = Ledger()
        self.to_workers: Out = []
        self.pools = Pools(settings, rand_below, now, expected)
        self.members = Membership(settings, self.to_workers, self.pools.of, self._worker_lost)
        self.draining = False
        self._sweep_every_s = min(1.0, settings.heartbeat_interval_s / 2)
        self._sweep_at = now + self._sweep_every_s
        # The hot path reads these; the objects never change.
        self.to_clients = self.ledger.to_clients
        self._jobs = self.ledger.jobs
        self._workers = self.members.by_peer

    # ---- from clients

    def submit(self, peer: bytes, envelope: bytes, header: bytes, payload: Payload, now: float) -> None:
        """Take a job in, or refuse it with one FAILED."""
        client = self.ledger.client(peer, now)
        job_id = envelope[4:20]
        try:
            known = self._jobs.get(job_id)
            if known is not None:
                self._attach(known, client, header, payload, now)
            else:
                self._accept(client, job_id, envelope, header, payload, now)
        except BusError as error:
            self.ledger.totals["refused"] += 1
            self.ledger.totals["protocol_errors"] += isinstance(error, ProtocolError)
            self.ledger.refuse(peer, job_id, 0, error)

    def _accept(
        self, client: Client, job_id: bytes, envelope: bytes, header: bytes, payload: Payload, now: float
    ) -> None:
        submit = decode(header, Submit)
        settings = self.settings
        if job_id == wire.NO_JOB:
            raise ProtocolError("a job needs an id of its own: 16 random bytes")
        if not len(payload):
            raise BadRequest("the text is empty: give at least one word to speak")
        if submit.durable:
            raise BadRequest("this broker keeps no journal and cannot promise durability: submit without it")
        if self.draining:
            raise _stopping()
        if len(self._jobs) >= settings.max_jobs or client.jobs >= settings.max_jobs_per_client:
            raise Overloaded("the bus holds as many jobs as it may", retry_after_s=RETRY_AFTER_S)
        pool = self.pools.choose(submit.engine or settings.default_engine, now)
        budget_ms = int.from_bytes(envelope[28:32])
        budget_s = min(budget_ms, wire.MAX_BUDGET_MS) / 1000 if budget_ms else settings.default_deadline_s
        flags = envelope[23] & wire.STREAM
        job = Job(job_id, client, pool, flags, now + budget_s, header, submit, payload)
        ahead = len(pool.queue)
        self.ledger.open(job)
        pool.queue.push(job)
        self.pools.touch(pool)
        self._say_accepted(job, 0, ahead)

    def _attach(self, job: Job, client: Client, header: bytes, payload: Payload, now: float) -> None:
        """The same id again: a client whose connection or answer was lost."""
        if header != job.header or bytes(payload) != bytes(job.payload):
            raise Conflict("this job id is in use for another text or voice")
        if client is not job.client:
            self.ledger.give_to(job, client)
            # What the old connection was sent is lost to the new one: begin again, at no one's cost.
            job.segments_done, job.mid_segment = 0, False
            self._abandon(job, "its client connected anew", counted=False)
        self._say_accepted(job, wire.ATTACHED, 0)

    def _say_accepted(self, job: Job, flags: int, queued_ahead: int) -> None:
        envelope = wire.pack_envelope(wire.ACCEPTED, job.id, flags=flags)
        self.to_clients.append((job.client.peer, envelope, encode(Accepted(job.pool.engine, queued_ahead))))

    def cancel(self, peer: bytes, job_id: bytes, now: float) -> None:
        """End a job at its submitter's wish. Unknown or ended jobs are no error: CANCEL is idempotent."""
        self.ledger.client(peer, now)
        job = self._jobs.get(job_id)
        if job is not None:
            self._end(job, Cancelled("the job was cancelled"), JobState.CANCELLED)

    def ping(self, peer: bytes, envelope: bytes, now: float) -> None:
        """Say that we are here."""
        self.ledger.client(peer, now)
        self.to_clients.append((peer, envelope[:3] + bytes((wire.PONG,)) + envelope[4:]))

    def client_gone(self, peer: bytes) -> None:
        """Cancel what a vanished client has left: nobody waits for it."""
        client = self.ledger.clients.pop(peer, None)
        if client is not None and client.jobs:
            log.warning("client %s gone, its %d jobs are cancelled", peer.hex(), client.jobs)
            for job in [job for job in self._jobs.values() if job.client is client]:
                self._end(job, Cancelled("its client is gone"), JobState.CANCELLED)

    def malformed(self, peer: bytes, job_id: bytes, error: ProtocolError, *, from_worker: bool) -> None:
        """Count a message that is not VB1 and say so once; nothing else changes."""
        self.ledger.totals["protocol_errors"] += 1
        log.warning("malformed message from %s: %s", peer.hex(), error.message)
        if from_worker:
            self.members.refuse(peer, job_id, error)
        else:
            self.ledger.refuse(peer, job_id, 0, error)

    # ---- from workers

    def started(self, peer: bytes, envelope: bytes, header: bytes, now: float) -> None:
        """An attempt begins."""
        job = self._open_attempt(peer, envelope, now)
        if job is not None and job.state == JobState.ASSIGNED:
            move(job, JobState.RUNNING)
            self.to_clients.append((job.client.peer, envelope, header))

    def chunk(self, peer: bytes, envelope: bytes, payload: Payload, now: float) -> None:
        """Forward audio, and remember where a retry could resume."""
        job = self._open_attempt(peer, envelope, now)
        if job is None:
            return
        if envelope[23] & wire.SEGMENT_END:
            job.segments_done = int.from_bytes(envelope[28:32]) + 1
            job.mid_segment = False
        elif len(payload):
            job.mid_segment = True
        self.to_clients.append((job.client.peer, envelope, payload))

    def done(self, peer: bytes, envelope: bytes, header: bytes, now: float) -> None:
        """An attempt has spoken everything."""
        job = self._close_attempt(peer, envelope, now)
        if job is not None:
            self.ledger.done(job, envelope, header)

    def failed(self, peer: bytes, envelope: bytes, header: bytes, now: float) -> None:
        """An attempt failed: again elsewhere if that can help, else the code goes to the client."""
        error = decode(header, Failed).error()
        worker = self._workers.get(peer)
        job = self._close_attempt(peer, envelope, now)
        if job is None or worker is None:
            return
        if error.retryable:
            self._retry(job, worker, str(error), counted=True)
        else:
            self._end(job, error, JobState.FAILED)

    def returned(self, peer: bytes, envelope: bytes, now: float) -> None:
        """An attempt that was never begun comes back, without penalty."""
        worker = self._workers.get(peer)
        job = self._close_attempt(peer, envelope, now)
        if job is not None and worker is not None:
            self.ledger.totals["returned"] += 1
            self._retry(job, worker, "handed back", counted=False)

    def ready(self, peer: bytes, header: bytes, now: float) -> None:
        """A worker registers. Raises `ProtocolError`."""
        self.members.ready(peer, header, now)
        worker = self._workers.get(peer)
        if worker is not None:
            self.pools.touch(worker.pool)

    def heartbeat(self, peer: bytes, header: bytes, now: float) -> None:
        """A worker lives; the jobs it names have made progress. Raises `ProtocolError`."""
        worker = self._heard(peer, now)
        if worker is not None:
            for job_id in self.members.heartbeat(worker, header).progressed:
                job = self._jobs.get(job_id)
                if job is not None and job.worker is worker:
                    job.progress_at = worker.progress_at = now

    def worker_drains(self, peer: bytes, now: float) -> None:
        """A worker was told to stop and wants no more."""
        worker = self._heard(peer, now)
        if worker is not None:
            self.members.drain(worker, tell=False)

    def worker_leaves(self, peer: bytes, cause: str, now: float) -> None:
        """DRAINED, GOODBYE or a dead transport: what is still open goes to others, without penalty."""
        worker = self._workers.get(peer)
        if worker is not None:
            self.members.remove(worker, cause, now, counted=False)

    def drain_worker(self, worker_id: str) -> None:
        """An operator wants a worker to finish and leave. Raises `BadRequest` for an unknown id."""
        worker = self.members.by_id.get(worker_id)
        if worker is None:
            raise BadRequest(f"no worker `{worker_id}` is registered; `vc status` lists them")
        self.members.drain(worker, tell=True)

    # ---- time

    def next_deadline(self) -> float:
        """When `tick` has something to do, in the clock of `now`."""
        expiry = self.ledger.deadlines.next_deadline()
        return self._sweep_at if expiry is None else min(expiry, self._sweep_at)

    def tick(self, now: float) -> None:
        """Do what time demands: expiry of jobs; each sweep also liveness, leases and hopeless queues."""
        for job_id in self.ledger.deadlines.expired(now):
            self._end(self._jobs[job_id], DeadlineExceeded("the job's deadline passed"), JobState.FAILED)
        if now < self._sweep_at:
            return
        self._sweep_at = now + self._sweep_every_s
        self.members.sweep(now)
        self._check_leases(now)
        timeout_s = self.settings.client_timeout_s
        for peer in [c.peer for c in self.ledger.clients.values() if now - c.seen_at > timeout_s]:
            self.client_gone(peer)
        for pool in self.pools.by_engine.values():
            if not pool.workers and len(pool.queue):
                error = self.pools.hopeless(pool, now)
                if error is not None:
                    for job in list(pool.queue):
                        self._end(job, error, JobState.FAILED)

    def _check_leases(self, now: float) -> None:
        """A worker may beat while its engine hangs: an attempt without progress is taken from it."""
        lease_s = self.settings.progress_lease_s
        for worker in self._workers.values():
            for job in [job for job in worker.inflight.values() if job is not None]:
                # An attempt that waits behind another is measured by the worker's progress with any.
                since = job.progress_at
                if job.state == JobState.ASSIGNED:
                    since = max(since, worker.progress_at)
                if now - since > lease_s:
                    self._abandon(job, f"no progress for {lease_s:g} s", counted=True)

    # ---- dispatch

    def flush(self, now: float) -> None:
        """Hand out waiting jobs wherever something changed since the last flush."""
        for pool in self.pools.take_touched():
            queue, selector = pool.queue, pool.selector
            while waiting := len(queue):
                job = queue.peek()
                worker = selector.pick(waiting, job.avoid)
                if worker is None:
                    break
                left_ms = int((job.deadline - now) * 1000)
                if left_ms <= 0:
                    error = DeadlineExceeded("the job's deadline passed while it waited")
                    self._end(job, error, JobState.FAILED)
                    continue
                queue.pop()
                self._assign(job, worker, left_ms, now)

    def _assign(self, job: Job, worker: Worker, left_ms: int, now: float) -> None:
        # Counted before it is sent: a job that kills its worker must not come back uncounted.
        job.attempt += 1
        job.worker = worker
        job.progress_at = now
        move(job, JobState.ASSIGNED)
        envelope = wire.pack_envelope(wire.JOB, job.id, job.attempt, job.flags, job.segments_done, left_ms)
        worker.inflight[envelope[4:22]] = job
        worker.beat_at = now + worker.interval_s
        worker.pool.selector.given(worker)
        self.to_workers.append((worker.peer, envelope, job.header, job.payload))

    # ---- attempts that end otherwise

    def _heard(self, peer: bytes, now: float) -> Worker | None:
        worker = self._workers.get(peer)
        if worker is None:
            self.members.reregister(peer)
        else:
            worker.seen_at = now
        return worker

    def _open_attempt(self, peer: bytes, envelope: bytes, now: float) -> Job | None:
        """The job of the attempt a worker speaks of, or None when it is fenced off."""
        worker = self._heard(peer, now)
        if worker is None:
            return None
        key = envelope[4:22]
        job = worker.inflight.get(key)
        if job is not None:
            job.progress_at = worker.progress_at = now
        elif key not in worker.inflight:
            self.ledger.totals["stale"] += 1
            attempt = int.from_bytes(envelope[20:22])
            self.to_workers.append((peer, wire.pack_envelope(wire.CANCEL, envelope[4:20], attempt)))
        return job

    def _close_attempt(self, peer: bytes, envelope: bytes, now: float) -> Job | None:
        """The same for a message that ends the attempt: its credit comes back."""
        worker = self._heard(peer, now)
        if worker is None:
            return None
        key = envelope[4:22]
        if key not in worker.inflight:
            self.ledger.totals["stale"] += 1
            return None
        job = worker.inflight.pop(key)
        worker.progress_at = now
        worker.jobs_done += job is not None
        worker.pool.selector.freed(worker)
        self.pools.touch(worker.pool)
        return job

    def _abandon(self, job: Job, cause: str, *, counted: bool) -> None:
        """Take an open attempt from a worker that still lives, and try again."""
        worker = job.worker
        if worker is not None:
            self._disown(job, worker)
            self._retry(job, worker, cause, counted=counted)

    def _disown(self, job: Job, worker: Worker) -> None:
        """Stop listening to the newest attempt; the worker keeps the credit until it has ended it."""
        cancel = wire.pack_envelope(wire.CANCEL, job.id, job.attempt)
        if cancel[4:22] in worker.inflight:
            worker.inflight[cancel[4:22]] = None
            self.to_workers.append((worker.peer, cancel))

    def _worker_lost(self, worker: Worker, cause: str, counted: bool) -> None:
        for job in [job for job in worker.inflight.values() if job is not None]:
            begun = job.state == JobState.RUNNING
            self._retry(job, worker, cause, counted=counted and begun)
        worker.inflight.clear()

    def _retry(self, job: Job, worker: Worker, cause: str, *, counted: bool) -> None:
        job.history.append(f"attempt {job.attempt} on {worker.info.worker}: {cause}")
        job.losses += counted
        job.worker = None
        job.avoid = worker
        error = verdict(job, self.settings.max_attempts)
        if error is None and self.draining:
            error = _stopping()
        if error is not None:
            self._end(job, error, JobState.FAILED)
            return
        log.info("job=%s attempt=%d again: %s", job.id.hex(), job.attempt, cause)
        self.ledger.totals["retried"] += 1
        job.mid_segment = False
        move(job, JobState.QUEUED)
        job.pool.queue.push_front(job)
        self.pools.touch(job.pool)

    def _end(self, job: Job, error: BusError, state: JobState) -> None:
        """Answer a job with an error, wherever it is."""
        if job.worker is not None:
            self._disown(job, job.worker)
        self.ledger.fail(job, error, state)

    # ---- stopping

    def begin_drain(self) -> None:
        """Take nothing new, answer what was not begun, let the rest finish."""
        self.draining = True
        for job in [job for job in self._jobs.values() if job.state == JobState.QUEUED]:
            self._end(job, _stopping(), JobState.FAILED)

    def abort(self) -> None:
        """Answer everything that is still open, and say goodbye: the time to drain is over."""
        for job in list(self._jobs.values()):
            self._end(job, _stopping(), JobState.FAILED)
        self.members.farewell()

    def check_invariants(self) -> None:
        """Raise AssertionError unless the tables agree with each other. For tests: it walks everything."""
        check_invariants(self)
